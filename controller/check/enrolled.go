package check

import (
	"fmt"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// enrolledChecks are about pods that are in the mesh, or not, and those who call them.
func enrolledChecks() []Check {
	return []Check{
		{
			Code: v1alpha1.FindingBackendOutside, Title: "pods behind a waypoint are outside the mesh", Severities: []v1alpha1.Severity{v1alpha1.SeverityWarning},
			Pains:  []string{"C5", "C12", "B10"},
			Matter: "A Service leads to a waypoint, and pods of it are not in the mesh.",
			Harm:   "The last hop to them is plaintext, and no policy is enforced there: who sends to a pod's address is let in.",
			Fix:    "Label their namespace istio.io/dataplane-mode=ambient.",
			Find:   (*World).backendsOutside,
		},
		{
			Code: "ISM351", Title: "a gateway that speaks HBONE is captured too", Severities: []v1alpha1.Severity{v1alpha1.SeverityError, v1alpha1.SeverityWarning},
			Pains:  []string{"C2", "EI09"},
			Matter: "A gateway speaks HBONE itself, and its pods are captured, or will be when they start anew.",
			Harm:   "ztunnel and the gateway both want port 15008 and wrap what is wrapped: requests end with 400, or pods do not start.",
			Fix:    "Label its pods istio.io/dataplane-mode=none.",
			Find:   (*World).capturedTwice,
		},
		{
			Code: "ISM352", Title: "the API server calls pods that refuse it", Severities: []v1alpha1.Severity{v1alpha1.SeverityError},
			Pains: []string{"C3", "C8", "EI08"},
			Matter: "A webhook or an aggregated API is served by pods of the mesh, and STRICT or a policy refuses those who have no identity of the mesh, as " +
				"the API server.",
			Harm: "Writes that need the webhook fail in the whole cluster, or it is skipped, as its failurePolicy says.",
			Fix:  "Keep these pods outside the mesh, or make an exception for their port.",
			Find: (*World).calleesRefuse,
		},
		{
			Code: "ISM359", Title: "a gateway's controller is in the mesh", Severities: []v1alpha1.Severity{v1alpha1.SeverityError, v1alpha1.SeverityInfo},
			Pains:  []string{"C3", "EI08"},
			Matter: "The controller of a vendor's gateways is captured, most often by the label of a namespace that is meant for its proxies.",
			Harm: "Error: its pods refuse who has no identity of the mesh, and proxies outside get no configuration. Info: it works as long as nobody asks " +
				"for STRICT.",
			Fix:  "Label the controller's pod template none, or bring in proxies one by one by their Gateways.",
			Find: (*World).controllersInside,
		},
	}
}

func (w *World) backendsOutside(found func(Finding)) {
	for _, l := range w.index().leads {
		if l.service == nil {
			continue
		}
		pods, out := w.PodsOf(l.service), 0
		for _, p := range pods {
			if w.InMesh(p) || p.Labels[labelTunnel] == "http" || p.Annotations[annotationSidecar] != "" {
				continue
			}
			if _, known := w.askedIn(p); known || p.Spec.HostNetwork {
				out++
			}
		}
		if out == 0 {
			continue
		}
		f := Finding{Object: l.object, Related: []Object{gatewayObject(l.waypoint)}, Fix: "bring them into the mesh by label " + plan.LabelDataplaneMode +
			" of their pod template; that of the namespace brings in all its pods, also those that others outside the mesh call"}
		f.Message = fmt.Sprintf("%d of %d pods of this Service are not in the mesh: the last hop to them is plaintext, and no policy is enforced "+
			"there", out, len(pods))
		found(f)
	}
}

const (
	labelTunnel       = "networking.istio.io/tunnel"
	annotationSidecar = "sidecar.istio.io/status"
)

func (w *World) capturedTwice(found func(Finding)) {
	views := w.Views()
	for i := range views {
		v := &views[i]
		if v.Vendor.Native == edge.NativeNever {
			continue
		}
		if v.Vendor.Native == edge.NativeAlways && v.Object != nil {
			w.askedTwice(v, found)
		}
		for _, p := range v.Pods {
			f := Finding{Object: w.standing(podObject(p)), Field: labelField(plan.LabelDataplaneMode), Related: []Object{viewObject(v)}}
			f.Fix = "label its pods " + plan.LabelDataplaneMode + "=" + modeNone + ", and start them anew"
			if v.Object != nil && v.Vendor.Infrastructure {
				f.Patch = infrastructureCommand(viewObject(v), plan.LabelDataplaneMode, modeNone)
			}
			is, known := w.askedIn(p)
			switch {
			case !speaksHBONE(v, p):
			case p.Annotations[plan.AnnotationRedirection] == "enabled":
				f.Message = fmt.Sprintf("this pod of %s speaks HBONE itself, and is captured too: requests end with 400, or its port 15008 is taken", v)
				found(f)
			case is && known && p.Annotations[annotationSidecar] == "" && !p.Spec.HostNetwork:
				f.Severity = v1alpha1.SeverityWarning
				f.Message = fmt.Sprintf("this pod of %s speaks HBONE itself, and is about to be captured too: its labels and those of its namespace ask for that", v)
				found(f)
			}
		}
	}
}

// askedTwice finds a Gateway that asks for the capture of pods that speak HBONE. Istio's controller labels them none where nothing else is asked.
func (w *World) askedTwice(v *plan.View, found func(Finding)) {
	var where string
	switch {
	case w.byInfrastructure(v):
		where = "spec.infrastructure.labels[" + plan.LabelDataplaneMode + "]"
	case v.Object.Labels[plan.LabelDataplaneMode] == modeAmbient:
		where = labelField(plan.LabelDataplaneMode)
	default:
		return
	}
	found(Finding{
		Object: gatewayObject(v.Key), Field: where,
		Message: "this asks for its pods to be captured, which speak HBONE themselves: requests end with 400, or their port 15008 is taken",
		Fix:     "set it to " + modeNone,
	})
}

// nobody is a caller from outside the mesh.
func nobody() policy.Request { return policy.Request{Source: policy.Absent[spiffeid.ID]()} }

// refusesAll says by what a pod refuses all who have no identity, at each port that a Service leads to, or "".
func (w *World) refusesAll(s *corev1.Service, p *plan.Pod) string {
	point := w.pointBefore(p)
	by := ""
	for i := range s.Spec.Ports {
		r := nobody()
		if port := targetPort(&s.Spec.Ports[i], p); port != 0 {
			r.WorkloadPort = policy.Of(port)
		}
		d := point.Decide(&r)
		if d.Verdict != policy.Deny {
			return ""
		}
		by = d.String()
		if !d.Policy.IsZero() {
			by = d.Policy.String()
		}
	}
	return by
}

// targetPort is the port of a pod that a port of a Service leads to, or 0.
func targetPort(at *corev1.ServicePort, p *plan.Pod) uint16 {
	port := at.TargetPort.IntVal
	switch {
	case at.TargetPort == intstr.IntOrString{}:
		port = at.Port
	case at.TargetPort.Type == intstr.String:
		port = 0
		for i := range p.Spec.Containers {
			for _, is := range p.Spec.Containers[i].Ports {
				if is.Name == at.TargetPort.StrVal {
					port = is.ContainerPort
				}
			}
		}
	}
	if port < 0 || port > 65535 {
		return 0
	}
	return uint16(port)
}

func (w *World) calleesRefuse(found func(Finding)) {
	for _, c := range w.Callees {
		s := w.Service(c.Service)
		if s == nil {
			continue
		}
		for _, p := range w.PodsOf(s) {
			if !w.InMesh(p) || p.Annotations[plan.AnnotationBypassInbound] == "true" {
				continue
			}
			by := w.refusesAll(s, p)
			if by == "" {
				continue
			}
			found(Finding{
				Object: ServiceObject(s), Related: append([]Object{w.standing(podObject(p))}, policyNamed(by)...),
				Message: fmt.Sprintf("the API server calls this Service for %s, has no identity of the mesh, and is refused by its pods: %s", c.By, by),
				Fix: "label the pods " + plan.LabelDataplaneMode + "=" + modeNone + ", or make their port PERMISSIVE by a PeerAuthentication with a selector " +
					"and portLevelMtls",
			})
			break
		}
	}
}

// policyNamed is a policy by the text of its reference.
func policyNamed(ref string) []Object {
	kind, name, ok := strings.Cut(ref, " ")
	if ns, n, both := strings.Cut(name, "/"); ok && both && !strings.Contains(n, " ") {
		return []Object{{"security.istio.io", kind, types.NamespacedName{Namespace: ns, Name: n}}}
	}
	return nil
}

// controllersInside finds the controllers of other vendors than Istio in the mesh.
func (w *World) controllersInside(found func(Finding)) {
	outside := map[string]string{} // by vendor, a gateway of it
	views := w.Views()
	for i := range views {
		if v := &views[i]; len(w.outside(v)) > 0 {
			outside[v.Vendor.Name] = v.String()
		}
	}
	for _, o := range w.workloads() {
		p := o.pod()
		var images []string
		for i := range p.Spec.Containers {
			images = append(images, p.Spec.Containers[i].Image)
		}
		v, is := edge.ByControllerWorkload(p.Labels, images)
		asked, known := w.askedIn(p)
		if !is || !asked || !known || v.Native == edge.NativeAlways || v.Workload.Fits(p.Labels, images) {
			continue
		}
		f := Finding{Object: o.Object, Field: "spec.template.metadata.labels[" + plan.LabelDataplaneMode + "]", Severity: v1alpha1.SeverityInfo}
		f.Message = fmt.Sprintf("this is the controller of %s, and in the mesh: under STRICT its proxies and the API server are refused unless they are in "+
			"the mesh too", v.Name)
		f.Fix = "label its pod template " + plan.LabelDataplaneMode + "=" + modeNone
		f.Patch = templateCommand(o.Object, "labels", plan.LabelDataplaneMode, modeNone)
		if g, d := outside[v.Name], w.pointBefore(p).Decide(new(nobody())); g != "" && d.Verdict == policy.Deny {
			f.Severity = v1alpha1.SeverityError
			f.Message = fmt.Sprintf("this is the controller of %s, in the mesh, and refuses who has no identity of it (%s): %s is outside and gets no "+
				"configuration", v.Name, d, g)
		}
		found(f)
	}
}
