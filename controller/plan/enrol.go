package plan

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// Istio's labels and annotations of enrolment.
const (
	LabelDataplaneMode    = "istio.io/dataplane-mode"
	AnnotationRedirection = "ambient.istio.io/redirection"
	modeAmbient           = "ambient"
	modeNone              = "none"
	annotationSidecar     = "sidecar.istio.io/status"
)

// captured says whether ztunnel's node agent has said that it carries the pod's connections.
func captured(p *corev1.Pod) bool { return p.Annotations[AnnotationRedirection] == "enabled" }

// cannot says why a pod can never be captured, or "".
func cannot(p *corev1.Pod) (code, why string) {
	switch {
	case p.Spec.HostNetwork:
		return v1alpha1.FindingHostNetwork, "it has the node's network, which is never captured"
	case p.Annotations[annotationSidecar] != "":
		return v1alpha1.FindingSidecar, "it has a sidecar, and sidecars are left alone"
	}
	return "", ""
}

// enrol adds the steps that bring each gateway to its kind of capture, and those that see it there.
func (m *maker) enrol() {
	for _, g := range m.gateways {
		switch g.capture {
		case v1alpha1.CaptureAmbient:
			m.enrolAmbient(g)
		case v1alpha1.CaptureNative, v1alpha1.CaptureNone:
			m.enrolNone(g)
		}
	}
}

func (m *maker) enrolAmbient(g *gateway) {
	for _, p := range g.pods {
		if code, why := cannot(p); code != "" {
			m.found(v1alpha1.Finding{
				Code: code, Severity: v1alpha1.SeverityError, Object: object("Pod", keyOf(p)), Field: "spec",
				Message: fmt.Sprintf("this pod of %s cannot be brought into the mesh: %s", g, why),
				Fix:     "set spec.capture to Native or None, or run the gateway without",
			})
			return
		}
	}
	m.add(m.enrolStep(g, modeAmbient))
	done, state := 0, v1alpha1.StepNext
	for _, p := range g.pods {
		if captured(p) {
			done++
		}
	}
	if len(g.pods) > 0 && done == len(g.pods) {
		state = v1alpha1.StepDone
	}
	m.add(Step{part: partEnrol, Step: v1alpha1.Step{
		Verb: VerbVerify, Object: g.String(), State: state, Reason: fmt.Sprintf("%d of %d pods are captured", done, len(g.pods)),
	}}, partEnrol)
}

// enrolNone keeps a gateway that speaks for itself from being captured.
func (m *maker) enrolNone(g *gateway) {
	inside := 0
	for _, p := range g.pods {
		if captured(p) {
			inside++
		}
	}
	ns := m.namespace(m.Edge.Namespace)
	if inside > 0 || ns != nil && ns.Labels[LabelDataplaneMode] == modeAmbient {
		m.add(m.enrolStep(g, modeNone))
	}
	state, reason := v1alpha1.StepDone, fmt.Sprintf("%d pods speak HBONE themselves", len(g.pods))
	switch {
	case len(g.pods) == 0:
		state, reason = v1alpha1.StepNext, "there are no pods yet"
	case inside > 0:
		state, reason = v1alpha1.StepNext, fmt.Sprintf("%d of %d pods are still captured", inside, len(g.pods))
	case g.capture == v1alpha1.CaptureNone:
		reason = fmt.Sprintf("%d pods stay outside the mesh, as capture None asks", len(g.pods))
	}
	m.add(Step{part: partEnrol, Step: v1alpha1.Step{Verb: VerbVerify, Object: g.String(), State: state, Reason: reason}}, partEnrol)
}

// enrolStep sets label dataplane-mode=mode where it reaches the gateway's pods and nobody else.
func (m *maker) enrolStep(g *gateway, mode string) Step {
	path := []string{"f:spec", "f:template", "f:metadata"}
	template := func(labels map[string]any) map[string]any {
		return map[string]any{"spec": map[string]any{"template": map[string]any{"metadata": map[string]any{"labels": labels}}}}
	}
	switch ns := m.namespace(m.Edge.Namespace); {
	case g.object != nil && g.vendor.Infrastructure:
		have := map[string]string{}
		if i := g.object.Spec.Infrastructure; i != nil {
			for k, v := range i.Labels {
				have[string(k)] = string(v)
			}
		}
		return m.labelStep(labelled{
			kind: "Gateway", apiVersion: gatewayAPI, object: g.object, have: have, path: []string{"f:spec", "f:infrastructure"},
			how: "label its pods by spec.infrastructure",
			fields: func(l map[string]any) map[string]any {
				return map[string]any{"spec": map[string]any{"infrastructure": map[string]any{"labels": l}}}
			},
		}, g, mode)
	case mode == modeAmbient && ns != nil && m.allMayGoIn(g):
		return m.labelStep(labelled{
			kind: "Namespace", apiVersion: "v1", object: ns, have: ns.Labels,
			how:    "label the namespace: it brings in no other pods",
			fields: func(l map[string]any) map[string]any { return map[string]any{"metadata": map[string]any{"labels": l}} },
		}, g, mode)
	case m.deployment(g.key) != nil:
		d := m.deployment(g.key)
		return m.labelStep(labelled{
			kind: "Deployment", apiVersion: "apps/v1", object: d, have: d.Spec.Template.Labels, path: path, fields: template,
			how: "label its pod template, which restarts its pods: the namespace has others",
		}, g, mode)
	case m.daemonSet(g.key) != nil:
		d := m.daemonSet(g.key)
		return m.labelStep(labelled{
			kind: "DaemonSet", apiVersion: "apps/v1", object: d, have: d.Spec.Template.Labels, path: path, fields: template,
			how: "label its pod template, which restarts its pods: the namespace has others",
		}, g, mode)
	}
	m.found(v1alpha1.Finding{
		Code: v1alpha1.FindingNoTarget, Severity: v1alpha1.SeverityError, Object: g.String(), Field: "spec.infrastructure",
		Message: "nothing is known that labels the pods of this gateway alone",
		Fix:     "label its pods " + LabelDataplaneMode + "=" + mode + " in your own way, or name its Deployment in workloadRefs",
	})
	return Step{part: partEnrol, Step: v1alpha1.Step{Verb: VerbEnrol, Object: g.String(), State: v1alpha1.StepBlocked, Reason: "no way is known"}}
}

// labelled is an object that can carry the label, and where.
type labelled struct {
	apiVersion, kind, how string
	object                metav1.Object
	have                  map[string]string
	path                  []string // nil: metadata
	fields                func(labels map[string]any) map[string]any
}

func (m *maker) labelStep(l labelled, g *gateway, mode string) Step {
	key := keyOf(l.object)
	s := Step{part: partEnrol, Step: v1alpha1.Step{Verb: VerbEnrol, Object: object(l.kind, key), Reason: l.how}}
	switch labelState(l.object, l.have, m.Edge.FieldOwner(), LabelDataplaneMode, mode, l.path...) {
	case absent:
		if enrolledOtherwise(g, mode) {
			s.State, s.Reason = v1alpha1.StepDone, "its pods are labelled already, not by us"
			return s
		}
		s.Write = &Write{APIVersion: l.apiVersion, Kind: l.kind, Key: key, UID: l.object.GetUID(), Fields: l.fields(map[string]any{LabelDataplaneMode: mode})}
	case ours:
		s.State = v1alpha1.StepDone
	case theirs:
		s.State, s.Reason = v1alpha1.StepDone, "it is labelled already, not by us"
	case foreign:
		s.State = v1alpha1.StepBlocked
		m.foreign(s.Object, "labels["+LabelDataplaneMode+"]", l.have[LabelDataplaneMode], mode, othersHold(l.object, label(LabelDataplaneMode, l.path...)...))
	}
	return s
}

// enrolledOtherwise: every pod has the label itself.
func enrolledOtherwise(g *gateway, mode string) bool {
	for _, p := range g.pods {
		if p.Labels[LabelDataplaneMode] != mode {
			return false
		}
	}
	return len(g.pods) > 0
}

func (m *maker) foreign(obj, fieldName, has, want string, managers []string) {
	by := "somebody else"
	if len(managers) > 0 {
		by = fmt.Sprintf("%q", managers[0])
	}
	m.found(v1alpha1.Finding{
		Code: v1alpha1.FindingForeignValue, Severity: v1alpha1.SeverityError, Object: obj, Field: fieldName,
		Message: fmt.Sprintf("this is %q, set by %s, and %q is needed here; it is not overwritten", has, by, want),
		Fix:     fmt.Sprintf("remove it there, or set it to %q", want),
	})
}

// allMayGoIn: every other pod of the namespace has its own label, or can never be captured.
func (m *maker) allMayGoIn(g *gateway) bool {
	own := map[types.NamespacedName]bool{}
	for _, other := range m.gateways {
		if other.capture == v1alpha1.CaptureAmbient {
			for _, p := range other.pods {
				own[keyOf(p)] = true
			}
		}
	}
	for i := range m.Pods {
		p := &m.Pods[i]
		if p.Namespace != g.key.Namespace || own[keyOf(p)] || !alive(p) {
			continue
		}
		if code, _ := cannot(p); code == "" && p.Labels[LabelDataplaneMode] == "" {
			return false
		}
	}
	return true
}
