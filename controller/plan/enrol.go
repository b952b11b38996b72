package plan

import (
	"fmt"
	"slices"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
)

// Istio's labels and annotations of enrolment.
const (
	LabelDataplaneMode    = "istio.io/dataplane-mode"
	AnnotationRedirection = "ambient.istio.io/redirection"
	// AnnotationBypassInbound on a pod has ztunnel carry only what it sends.
	AnnotationBypassInbound = "ambient.istio.io/bypass-inbound-capture"

	modeAmbient       = "ambient"
	modeNone          = "none"
	annotationSidecar = "sidecar.istio.io/status"
)

// captured says whether ztunnel's node agent has said that it carries the pod's connections.
func captured(p *Pod) bool { return p.Annotations[AnnotationRedirection] == "enabled" }

// cannot says why a pod can never be captured, or "".
func cannot(p *Pod) (code, why string) {
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
		m.warn(g)
	}
}

func (m *maker) enrolAmbient(g *gateway) {
	if m.cannotBeCaptured(g) {
		return
	}
	if g.vendor.Native == edge.NativeByMode && len(g.pods) == 0 {
		s := Step{part: partEnrol, wide: true, Step: v1alpha1.Step{
			Verb: VerbVerify, Object: g.String(), State: v1alpha1.StepNext, Reason: "there are no pods yet, which would tell whether they speak HBONE themselves",
		}}
		m.capturedOnPaper(&s, g)
		m.add(s)
		return
	}
	before := len(m.plan.Findings)
	for _, s := range m.enrolSteps(g, modeAmbient) {
		m.add(s)
	}
	if !slices.ContainsFunc(m.plan.Findings[before:], func(f v1alpha1.Finding) bool { return f.Code == v1alpha1.FindingForeignValue }) {
		m.optedOut(g)
	}
	m.roll(g)
	m.shut(g)
	m.dnsTaken(g)
	done, late, state := 0, 0, v1alpha1.StepNext
	for _, p := range g.pods {
		switch {
		case g.late(p):
			late++
		case captured(p):
			done++
		}
	}
	if len(g.pods) > 0 && done == len(g.pods) {
		state = v1alpha1.StepDone
	}
	reason := fmt.Sprintf("%d of %d pods are captured", done, len(g.pods))
	if why := m.idles(g); why != "" {
		state, reason = v1alpha1.StepBlocked, why
	}
	if late > 0 {
		reason += fmt.Sprintf(", and %d have not noticed that they are", late)
	}
	s := Step{part: partEnrol, wide: true, Step: v1alpha1.Step{Verb: VerbVerify, Object: g.String(), State: state, Reason: reason}}
	m.capturedOnPaper(&s, g)
	m.add(s, partEnrol)
}

// cannotBeCaptured finds what keeps a gateway outside, and says whether there is any.
func (m *maker) cannotBeCaptured(g *gateway) bool {
	if g.vendor.Never != "" {
		m.found(v1alpha1.Finding{
			Code: v1alpha1.FindingHostNetwork, Severity: v1alpha1.SeverityError, Object: g.String(), Field: "spec",
			Message: fmt.Sprintf("%s cannot be brought into the mesh: %s", g, g.vendor.Never),
			Fix:     "set spec.capture to None, or put a gateway before these Services that can be captured",
		})
		return true
	}
	for _, p := range g.pods {
		if code, why := cannot(p); code != "" {
			m.found(v1alpha1.Finding{
				Code: code, Severity: v1alpha1.SeverityError, Object: object("Pod", keyOf(p)), Field: "spec",
				Message: fmt.Sprintf("this pod of %s cannot be brought into the mesh: %s", g, why),
				Fix:     "set spec.capture to Native or None, or run the gateway without",
			})
			return true
		}
	}
	return false
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
		for _, s := range m.enrolSteps(g, modeNone) {
			m.add(s)
		}
	}
	state, reason := v1alpha1.StepDone, counted(len(g.pods), "pod speaks HBONE itself", "pods speak HBONE themselves")
	idle := m.idles(g)
	switch {
	case idle != "":
		state, reason = v1alpha1.StepBlocked, idle
	case len(g.pods) == 0:
		state, reason = v1alpha1.StepNext, "there are no pods yet"
	case inside > 0:
		state, reason = v1alpha1.StepNext, fmt.Sprintf("%d of %d pods are still captured", inside, len(g.pods))
	case g.assumed():
		reason = counted(len(g.pods), "pod is taken to speak HBONE itself", "pods are taken to speak HBONE themselves") + ", as spec.capture says"
	case g.capture == v1alpha1.CaptureNone:
		reason = counted(len(g.pods), "pod stays", "pods stay") + " outside the mesh, as capture None asks"
	}
	s := Step{part: partEnrol, wide: true, Step: v1alpha1.Step{Verb: VerbVerify, Object: g.String(), State: state, Reason: reason}}
	m.capturedOnPaper(&s, g)
	m.add(s, partEnrol)
}

// enrolSteps set label dataplane-mode=mode where it reaches the gateway's pods and nobody else.
func (m *maker) enrolSteps(g *gateway, mode string) []Step {
	ns := m.namespace(m.Edge.Namespace)
	strict := ""
	if mode == modeAmbient {
		strict = m.refusesOutside(g)
	}
	workloads, others := g.workloads, m.others(g)
	if len(workloads) == 0 {
		for _, kind := range []string{"Deployment", "DaemonSet"} {
			if w := m.workload(kind, g.key); w != nil {
				workloads = append(workloads, w)
				break
			}
		}
	}
	switch {
	case g.merged != nil:
		return []Step{m.enrolMerged(g, mode)}
	case g.object != nil && g.vendor.Infrastructure:
		return []Step{m.enrolBy(g, carrier{gatewayAPI, "Gateway", g.object}, "label its pods by spec.infrastructure", mode, strict, "spec", "infrastructure")}
	case m.elsewhere(g) != "":
		return m.enrolElsewhere(g, mode)
	case mode == modeAmbient && ns != nil && strict == "" && m.byNamespace(ns, workloads, others) && !m.apartForDNS(g, ns, workloads):
		how := "label the namespace: it brings in no other pods"
		if len(others) > 0 {
			how = "label the namespace"
			m.broughtIn(ns, others)
		}
		return []Step{m.enrolBy(g, carrier{"v1", "Namespace", ns}, how, mode, "", "metadata")}
	case len(workloads) > 0:
		how := "label its pod template, which restarts its pods"
		if strict == "" && len(others) > 0 {
			how += ": the namespace has others"
		}
		var steps []Step
		for _, w := range workloads {
			steps = append(steps, m.enrolBy(g, w.carrier, how, mode, strict, "spec", "template", "metadata"))
		}
		return steps
	}
	m.found(v1alpha1.Finding{
		Code: v1alpha1.FindingNoTarget, Severity: v1alpha1.SeverityError, Object: g.String(), Field: "spec.infrastructure",
		Message: "nothing is known that labels the pods of this gateway alone",
		Fix:     "label its pods " + LabelDataplaneMode + "=" + mode + " in your own way, or name its Deployment in workloadRefs",
	})
	return []Step{{part: partEnrol, Step: v1alpha1.Step{Verb: VerbEnrol, Object: g.String(), State: v1alpha1.StepBlocked, Reason: "no way is known"}}}
}

// enrolBy labels a gateway's pods by an object, at a path in it. strict says why its inbound connections are to be left alone, or "".
func (m *maker) enrolBy(g *gateway, c carrier, how, mode, strict string, at ...string) Step {
	want := []setting{labelled(LabelDataplaneMode, mode, at...)}
	if strict != "" {
		want = append(want, annotated(AnnotationBypassInbound, "true", at...))
		how += ", and leave its inbound connections alone: " + strict
	}
	if dns := m.forwardsDNS(g); m.leavesDNS(c, mode, dns, at...) {
		want = append(want, annotated(AnnotationDNSCapture, notCaptured, at...))
		if dns != "" {
			how += ", and leave its DNS alone: " + dns
		}
	}
	if m.state(c.object, want[0]) == absent && enrolledOtherwise(g, mode) {
		m.refused(g, strict)
		return Step{part: partEnrol, wide: true, Step: v1alpha1.Step{Verb: VerbEnrol, Object: c.String(), State: v1alpha1.StepDone, Reason: labelledAlready(mode)}}
	}
	all := append(slices.Clip(want), annotated(v1alpha1.AnnotationRollout, "", at...))
	s := m.put(c, VerbEnrol, how, want, all)
	if strict == "" {
		m.takeInbound(&s, c, want, all, at...)
	}
	s.part, s.wide = partEnrol, true
	if s.Write != nil && c.kind != "Namespace" {
		m.atOnce(g)
	}
	return s
}

// labelledAlready is why nothing is written where somebody else has labelled a gateway's pods.
func labelledAlready(mode string) string {
	if mode == modeNone {
		return "its pods are kept from capture by a label that they have already, not by us"
	}
	return "its pods are labelled already, not by us"
}

// counted is a number of things with what they do.
func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
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

// elsewhere is the namespace of a gateway's pods that is not the edge's, where only their own workload could label them. Empty: there is none.
func (m *maker) elsewhere(g *gateway) string {
	for _, w := range g.workloads {
		if w.key.Namespace != m.Edge.Namespace {
			return w.key.Namespace
		}
	}
	return ""
}

// enrolElsewhere sees whether pods of another namespace are in the mesh: bringing them in is up to an AmbientEdge there.
func (m *maker) enrolElsewhere(g *gateway, mode string) []Step {
	s := Step{part: partEnrol, wide: true, Step: v1alpha1.Step{Verb: VerbEnrol, Object: g.String(), State: v1alpha1.StepDone, Reason: "its pods are in the mesh already, not by us"}}
	if mode == modeNone || len(g.pods) > 0 && !slices.ContainsFunc(g.pods, func(p *Pod) bool { return !captured(p) }) {
		return []Step{s}
	}
	w := g.workloads[0]
	s.State, s.Reason = v1alpha1.StepBlocked, "its pods are in namespace "+w.key.Namespace
	m.found(v1alpha1.Finding{
		Code: v1alpha1.FindingShared, Severity: v1alpha1.SeverityError, Object: g.String(), Field: "spec.gatewayClassName",
		Message: fmt.Sprintf("the pods of this gateway are those of %s, which serve others too; an AmbientEdge of namespace %s does not touch them", w, m.Edge.Namespace),
		Fix:     fmt.Sprintf("make an AmbientEdge in namespace %s with workloadRefs: [{kind: %s, name: %s}]", w.key.Namespace, w.kind, w.key.Name),
	})
	return []Step{s}
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
