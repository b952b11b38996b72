package plan

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
)

// AnnotationDNSCapture on a pod, with the value false, has ztunnel leave alone what the pod sends to port 53. Without it ztunnel answers that itself, as istio-cni's
// default has it.
const AnnotationDNSCapture = "ambient.istio.io/dns-capture"

const notCaptured = "false" // a value of AnnotationDNSCapture

// PortDNS is the port of DNS servers, which ztunnel answers in place of.
const PortDNS = 53

// forwardsDNS says by what a gateway sends to a DNS server, or "". Once its pods are captured ztunnel would answer in place of that server: wrong answers, refused updates,
// or a loop. A route counts when the gateway has accepted it.
func (m *maker) forwardsDNS(g *gateway) string {
	if g.dns == nil {
		g.dns = new(m.findDNS(g))
	}
	return *g.dns
}

func (m *maker) findDNS(g *gateway) string {
	if b := m.Edge.Spec.Backends; b != nil && len(b.Services) > 0 {
		for _, b := range m.backends {
			for i := range b.service.Spec.Ports {
				if m.isDNS(b.service, &b.service.Spec.Ports[i]) {
					return b.String() + " serves DNS"
				}
			}
		}
	}
	if g.object != nil {
		for _, r := range m.routesFor(g) {
			if r.kind != kindUDPRoute || !m.parented(r, g) || !m.routesDNS(r) {
				continue
			}
			if why, _ := m.counts(r, g); why == "" {
				return r.String() + " sends to a DNS server"
			}
		}
	}
	for _, f := range m.follow() {
		if f.gateway != g || f.why != "" || !m.routesDNS(f.route) {
			continue
		}
		if m.parented(f.route, g) || m.consents(f.key.Namespace, "", "Service") { // of others that are delegated to nothing is told
			return f.String() + " sends to a DNS server"
		}
	}
	for _, c := range m.containers(g) {
		if slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.ContainerPort == PortDNS }) {
			return "its container " + c.Name + " serves DNS"
		}
	}
	return ""
}

// containers are those of a gateway's pods, or of the templates that are to make them.
func (m *maker) containers(g *gateway) (list []corev1.Container) {
	for _, p := range g.pods {
		list = append(list, p.Spec.Containers...)
	}
	for _, w := range g.workloads {
		list = append(list, w.template.Spec.Containers...)
	}
	return list
}

// routesDNS says whether a rule of a route sends to port 53 of a Service, or of its pods.
func (m *maker) routesDNS(r *route) bool {
	for i := range r.look().sends {
		s := &r.sends[i]
		if !isService(s.ref) || s.ref.Port == nil {
			continue
		}
		if *s.ref.Port == PortDNS {
			return true
		}
		key := r.refers(s.ref)
		is := m.service(key)
		if is == nil || key.Namespace != m.Edge.Namespace && !m.consents(key.Namespace, "", "Service") { // nothing is told of what is there
			continue
		}
		for j := range is.Spec.Ports {
			if is.Spec.Ports[j].Port == *s.ref.Port && m.isDNS(is, &is.Spec.Ports[j]) {
				return true
			}
		}
	}
	return false
}

// isDNS says whether a port of a Service, or that of its pods which it leads to, is that of DNS.
func (m *maker) isDNS(s *corev1.Service, port *corev1.ServicePort) bool {
	if port.Port == PortDNS || port.TargetPort.IntVal == PortDNS {
		return true
	}
	name := port.TargetPort.StrVal
	return name != "" && slices.ContainsFunc(m.podsWith(s.Namespace, s.Spec.Selector), func(p *Pod) bool {
		return slices.ContainsFunc(p.Spec.Containers, func(c corev1.Container) bool {
			return slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.Name == name && p.ContainerPort == PortDNS })
		})
	})
}

// leavesDNS says whether an object that brings a gateway's pods in is to have the annotation that leaves their DNS alone. It is decided when they are brought in, and stays
// so: whoever may write a route is not to have the gateway started anew.
func (m *maker) leavesDNS(c carrier, mode, dns string, at ...string) bool {
	if mode != modeAmbient || c.kind == "Namespace" {
		return false
	}
	return holds(c.object, m.Edge.FieldOwner(), annotated(AnnotationDNSCapture, "", at...).managed()...) ||
		dns != "" && m.state(c.object, labelled(LabelDataplaneMode, mode, at...)) == absent
}

// dnsTaken finds a gateway that sends to a DNS server, and is captured so that ztunnel answers in place of it: others have brought it in, or the route came later.
func (m *maker) dnsTaken(g *gateway) {
	dns := m.forwardsDNS(g)
	if dns == "" {
		return
	}
	for _, p := range g.pods {
		if !captured(p) || p.Annotations[AnnotationDNSCapture] == notCaptured {
			continue
		}
		m.found(v1alpha1.Finding{
			Code: v1alpha1.FindingDNSCaptured, Severity: v1alpha1.SeverityWarning, Object: object("Pod", keyOf(p)), Field: "metadata.annotations[" + AnnotationDNSCapture + "]",
			Message: fmt.Sprintf("%s, and what this pod of %s sends to port 53 ztunnel answers itself: wrong answers, refused updates, or a loop", dns, g),
			Fix:     m.leaveDNS(g),
		})
		return // one is enough
	}
}

// leaveDNS says where the annotation goes.
func (m *maker) leaveDNS(g *gateway) string {
	const set = AnnotationDNSCapture + "=" + notCaptured
	if g.object != nil && g.vendor.Infrastructure {
		return "annotate its pods by " + edge.Field([]string{"spec", "infrastructure", "annotations", AnnotationDNSCapture}) + ": \"" + notCaptured + "\", which starts them anew"
	}
	return "annotate its pod template with " + set + ", which starts its pods anew"
}

// apartForDNS says whether a gateway that is to be brought in needs an annotation of its pods, which the label of a namespace cannot bring. What has been chosen stays.
func (m *maker) apartForDNS(g *gateway, ns *corev1.Namespace, workloads []*workload) bool {
	return len(workloads) > 0 && m.forwardsDNS(g) != "" && !holds(ns, m.Edge.FieldOwner(), labelled(LabelDataplaneMode, "").managed()...)
}
