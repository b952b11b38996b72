package check

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// captureChecks are about labels that bring pods into the mesh, and what comes of them.
func captureChecks() []Check {
	return []Check{
		{
			Code: "ISM350", Title: "pods are asked into the mesh that cannot come", Severities: []v1alpha1.Severity{v1alpha1.SeverityWarning, v1alpha1.SeverityInfo},
			Pains:  []string{"C1", "C4"},
			Matter: "A workload has the node's network, and its label or that of its namespace asks for its pods to be captured.",
			Harm:   "They never are: what they send is plaintext, STRICT refuses it, and no policy is enforced before them.",
			Fix:    "Run it without hostNetwork, or label it none, so that nobody counts on it.",
			Find:   (*World).cannotCome,
		},
		{
			Code: "ISM353", Title: "a dataplane mode that is none", Severities: []v1alpha1.Severity{v1alpha1.SeverityWarning}, Pains: []string{"C12", "C13"},
			Matter: "Label istio.io/dataplane-mode has another value than ambient or none.",
			Harm:   "It brings nothing into the mesh; on a pod it does not keep it outside either, where the namespace asks it in.",
			Fix:    "Write ambient or none.",
			Find:   (*World).modes,
		},
		{
			Code: "ISM355", Title: "a namespace asks for sidecars and for ambient mode",
			Severities: []v1alpha1.Severity{v1alpha1.SeverityWarning, v1alpha1.SeverityInfo},
			Pains:      []string{"B14", "C4"},
			Matter:     "A namespace has istio-injection=enabled or istio.io/rev, and istio.io/dataplane-mode=ambient.",
			Harm:       "Pods get sidecars, and ztunnel leaves them alone: they are not in ambient mode, and go on with the sidecar's rules.",
			Fix:        "Remove one of the two labels; pods follow when they start anew.",
			Find:       (*World).bothModes,
		},
		{
			Code: "ISM356", Title: "pods are asked into the mesh and are not in it", Severities: []v1alpha1.Severity{v1alpha1.SeverityWarning},
			Pains:  []string{"C5", "C7", "C12", "A5"},
			Matter: "Labels ask for pods to be captured, they are ready, and the node agent has not said that it carries them.",
			Harm:   "They send plaintext, and no policy is enforced before them.",
			Fix:    "Look at istio-cni-node on their nodes, and start the pods anew.",
			Find:   (*World).notCaptured,
		},
		{
			Code: "ISM357", Title: "the DNS of a DNS server is captured", Severities: []v1alpha1.Severity{v1alpha1.SeverityWarning}, Pains: []string{"C9"},
			Matter: "A pod of the mesh serves DNS, and ztunnel answers what the pod itself asks.",
			Harm:   "What it forwards comes back to the mesh: wrong answers, refused updates, or a loop.",
			Fix:    "Annotate its pod template ambient.istio.io/dns-capture=false.",
			Find:   (*World).dnsServers,
		},
		{
			Code: "ISM358", Title: "a label of the mesh stands where nobody reads it", Severities: []v1alpha1.Severity{v1alpha1.SeverityWarning},
			Pains:  []string{"A3", "C13"},
			Matter: "istio.io/dataplane-mode is a label of a Service, or of a workload and not of its pod template; or istio.io/use-waypoint is one of a workload.",
			Harm:   "It does nothing: pods stay outside the mesh, requests go past the waypoint.",
			Fix:    "Put it into the pod template, or label the namespace or the Service.",
			Find:   (*World).misplaced,
		},
	}
}

// workload is a Deployment or DaemonSet.
type workload struct {
	Object

	labels   map[string]string
	template *corev1.PodTemplateSpec
}

func (w *World) workloads() []workload {
	list := make([]workload, 0, len(w.Deployments)+len(w.DaemonSets))
	for i := range w.Deployments {
		d := &w.Deployments[i]
		list = append(list, workload{Object{"apps", "Deployment", keyOf(d)}, d.Labels, &d.Spec.Template})
	}
	for i := range w.DaemonSets {
		d := &w.DaemonSets[i]
		list = append(list, workload{Object{"apps", "DaemonSet", keyOf(d)}, d.Labels, &d.Spec.Template})
	}
	return list
}

// pod is one that the workload would have.
func (o *workload) pod() *plan.Pod {
	t := o.template
	return &plan.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: o.Namespace, Labels: t.Labels, Annotations: t.Annotations}, Spec: plan.SpecOf(&t.Spec)}
}

func (w *World) cannotCome(found func(Finding)) {
	for _, o := range w.workloads() {
		p := o.pod()
		asked, known := w.askedIn(p)
		if !p.Spec.HostNetwork || !asked || !known {
			continue
		}
		f := Finding{Object: o.Object, Field: "spec.template.spec.hostNetwork", Severity: v1alpha1.SeverityInfo}
		f.Message = "its pods have the node's network and are never captured, though its namespace is in the mesh: what they send is plaintext, and no " +
			"policy is enforced before them"
		f.Fix = "run it without hostNetwork, or label its pod template " + plan.LabelDataplaneMode + "=" + modeNone + ", so that nobody counts on it"
		if p.Labels[plan.LabelDataplaneMode] == modeAmbient {
			f.Severity = v1alpha1.SeverityWarning
			f.Message = "its pods are labelled to be captured, and have the node's network, which is never captured: what they send is plaintext, and no " +
				"policy is enforced before them"
		}
		found(f)
	}
}

func (w *World) modes(found func(Finding)) {
	one := func(o Object, field string, labels map[string]string, also string) {
		is, set := labels[plan.LabelDataplaneMode]
		if !set || is == modeAmbient || is == modeNone {
			return
		}
		f := Finding{Object: o, Field: field + "labels[" + plan.LabelDataplaneMode + "]", Fix: "write " + modeAmbient + " or " + modeNone}
		f.Message = fmt.Sprintf("%q is no mode of the data plane: it brings nothing into the mesh%s", is, also)
		found(f)
	}
	for i := range w.Namespaces {
		one(namespaceObject(w.Namespaces[i].Name), "metadata.", w.Namespaces[i].Labels, "")
	}
	const also = ", and does not keep it outside where the namespace asks it in"
	for _, o := range w.workloads() {
		one(o.Object, "spec.template.metadata.", o.template.Labels, also)
	}
	for i := range w.Pods {
		if p := &w.Pods[i]; len(p.OwnerReferences) == 0 && (!w.Paper || w.where[podObject(p)] != "") {
			one(podObject(p), "metadata.", p.Labels, also)
		}
	}
}

func (w *World) bothModes(found func(Finding)) {
	for i := range w.Namespaces {
		n := &w.Namespaces[i]
		if n.Labels[plan.LabelDataplaneMode] != modeAmbient {
			continue
		}
		var asks string
		switch {
		case n.Labels["istio-injection"] == "enabled":
			asks = "istio-injection=enabled"
		case n.Labels["istio-injection"] == "" && n.Labels["istio.io/rev"] != "":
			asks = "istio.io/rev=" + n.Labels["istio.io/rev"]
		default:
			continue
		}
		key, _, _ := strings.Cut(asks, "=")
		f := Finding{Object: namespaceObject(n.Name), Field: labelField(key), Fix: "remove the label, and start anew the pods that have sidecars"}
		f.Message = "this asks for sidecars (" + asks + ") and for ambient mode: pods get sidecars, and ztunnel leaves those alone"
		f.Patch = "kubectl label " + f.Object.resource() + " " + key + "-"
		if key == "istio.io/rev" { // of whose injector nothing is seen here
			f.Severity, f.Patch = v1alpha1.SeverityInfo, ""
			f.Message = "this asks for sidecars (" + asks + ") and for ambient mode: where an injector of that revision runs, pods get sidecars, and ztunnel " +
				"leaves those alone"
			f.Fix = "label Gateways with the revision that waypoints need, and not the namespace"
		}
		found(f)
	}
}

// notCaptured finds ready pods that should be in the mesh, once for a namespace.
func (w *World) notCaptured(found func(Finding)) {
	if w.Paper {
		return
	}
	for _, ns := range sortedKeys(w.pods) {
		if ns == "kube-system" || ns == w.Root() { // the node agent leaves these alone as a rule
			continue
		}
		var out []string
		for _, p := range w.pods[ns] {
			asked, _ := w.askedIn(p)
			if asked && !w.InMesh(p) && !p.Spec.HostNetwork && p.Annotations[annotationSidecar] == "" && isReady(p) && p.DeletionTimestamp == nil && !w.ofWaypoint(p) {
				out = append(out, p.Name)
			}
		}
		if len(out) == 0 {
			continue
		}
		slices.Sort(out)
		found(Finding{
			Object: namespaceObject(ns), Field: labelField(plan.LabelDataplaneMode),
			Message: fmt.Sprintf("%d of %d pods are asked into the mesh, are ready, and are not in it: %s. They send plaintext, and no policy is enforced "+
				"before them", len(out), len(w.pods[ns]), some(out)),
			Fix: "look at istio-cni-node on their nodes; then start them anew: kubectl delete pod -n " + ns + " " + out[0],
		})
	}
}

const annotationDNS = plan.AnnotationDNSCapture

func (w *World) dnsServers(found func(Finding)) {
	for _, o := range w.workloads() {
		p := o.pod()
		asked, known := w.askedIn(p)
		if !asked || !known || p.Spec.HostNetwork || p.Annotations[annotationDNS] != "" || p.Annotations[annotationSidecar] != "" {
			continue
		}
		what := ""
		for i := range p.Spec.Containers {
			c := &p.Spec.Containers[i]
			for _, port := range c.Ports {
				if port.ContainerPort == 53 || port.Name == "dns" && port.Protocol == corev1.ProtocolUDP {
					what = cmp.Or(what, "container "+c.Name+" serves DNS")
				}
			}
			if strings.Contains(c.Image, "external-dns") && slices.Contains(c.Args, "--provider=rfc2136") {
				what = cmp.Or(what, "container "+c.Name+" sends DNS updates")
			}
		}
		if what == "" {
			continue
		}
		found(Finding{
			Object: o.Object, Field: "spec.template.metadata.annotations[" + annotationDNS + "]",
			Message: what + ", and what it asks or sends itself by DNS is answered by ztunnel: wrong answers, refused updates, or a loop",
			Fix:     "annotate its pod template " + annotationDNS + "=false",
			Patch:   templateCommand(o.Object, "annotations", annotationDNS, "false"),
		})
	}
}

func (w *World) misplaced(found func(Finding)) {
	for i := range w.Services {
		s := &w.Services[i]
		if s.Labels[plan.LabelDataplaneMode] != modeAmbient {
			continue
		}
		if slices.ContainsFunc(w.PodsOf(s), func(p *plan.Pod) bool { asked, known := w.askedIn(p); return asked || !known }) {
			continue // it does no harm
		}
		found(Finding{
			Object: ServiceObject(s), Field: labelField(plan.LabelDataplaneMode),
			Message: "nobody reads this label of a Service: its pods stay outside the mesh",
			Fix:     "label their namespace, or their pod template",
		})
	}
	for _, o := range w.workloads() {
		asked, known := w.askedIn(o.pod())
		if o.labels[plan.LabelDataplaneMode] == modeAmbient && !asked && known && o.template.Labels[plan.LabelDataplaneMode] == "" {
			found(Finding{
				Object: o.Object, Field: labelField(plan.LabelDataplaneMode),
				Message: "nobody reads this label of a " + o.Kind + ": its pods stay outside the mesh", Fix: "put it into spec.template.metadata.labels",
				Patch: templateCommand(o.Object, "labels", plan.LabelDataplaneMode, modeAmbient),
			})
		}
		name := o.labels[plan.LabelUseWaypoint]
		if name == "" || name == waypointNone || o.template.Labels[plan.LabelUseWaypoint] != "" {
			continue
		}
		for _, s := range w.servicesOf[o.Namespace] {
			if _, _, leads := w.WaypointOf(s); leads || !has(o.template.Labels, s.Spec.Selector) || len(s.Spec.Selector) == 0 || w.supposed[o.Namespace] {
				continue
			}
			found(Finding{
				Object: o.Object, Field: labelField(plan.LabelUseWaypoint), Related: []Object{ServiceObject(s)},
				Message: fmt.Sprintf("nobody reads this label of a %s: what is sent to %s goes past waypoint %s", o.Kind, ServiceObject(s), name),
				Fix:     "label the Service", Patch: w.leadCommand(s, objectKey(s.Namespace, name)),
			})
		}
	}
}
