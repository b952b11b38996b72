package plan

import (
	"fmt"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// present is the waypoint that a backend leads to now; none where its name is empty.
func (m *maker) present(b *backend) types.NamespacedName {
	is := &backend{key: b.key, service: b.service}
	m.bound(is)
	return is.waypoint
}

// leaves finds policies for the waypoint that a backend leads to now, and that would end for it when it is led to another: those for the Service itself
// go with it.
func (m *maker) leaves(b *backend) {
	is := m.present(b)
	if is.Name == "" || is == b.waypoint || m.gateway(is) == nil {
		return
	}
	there := m.enforced(b.waypoint, "Gateway", false)
	names := slices.DeleteFunc(m.enforced(is, "Gateway", false), func(name string) bool { return slices.Contains(there, name) })
	if len(names) == 0 {
		return
	}
	f := v1alpha1.Finding{
		Code: v1alpha1.FindingPathChange, Severity: v1alpha1.SeverityError, Object: b.String(), Field: "metadata.labels[" + LabelUseWaypoint + "]",
		Message: fmt.Sprintf("this Service leads to waypoint %s, which enforces %s for it, and would be led to waypoint %s, which does not", is, listed(names), b.waypoint),
		Fix:     fmt.Sprintf("have these policies name the Service, or waypoint %s too, in their targetRefs; or set spec.waypoint.name to %s", b.waypoint, is.Name),
	}
	if !m.consents(is.Namespace, "", "Service") {
		f.Message = fmt.Sprintf("this Service leads to waypoint %s, which enforces policies for it, and would be led to waypoint %s, which does not", is, b.waypoint)
	}
	m.found(f)
}

// staying are the Services that are not kept and have to stay led to their waypoint, for policies that depend on it: gateways go there as long.
func (m *maker) staying(keep map[types.NamespacedName]bool) []string {
	if m.plan.Undoing && m.confirmed() {
		return nil
	}
	var list []string
	path := labelled(LabelUseWaypoint, "").managed()
	for i := range m.Services {
		s := &m.Services[i]
		if keep[keyOf(s)] || !holds(s, m.Edge.FieldOwner(), path...) || !m.wrote(s) || m.shared(s, path) {
			continue
		}
		waypoint := ledTo(s)
		if len(m.enforced(keyOf(s), "Service", true)) > 0 || m.gateway(waypoint) != nil && len(m.enforced(waypoint, "Gateway", false)) > 0 {
			list = append(list, object("Service", keyOf(s)))
		}
	}
	return list
}

// switchedBy are the Services that an object's switch is for. None: it is that of a gateway, for all of them.
func switchedBy(o metav1.Object) []string {
	var keys []types.NamespacedName
	switch o := o.(type) {
	case *networkingv1.Ingress:
		keys = servicesOfIngress(o)
	case *unstructured.Unstructured:
		for _, ref := range targetRefs(o) {
			if name, ok := ref["name"].(string); ok && ref["kind"] == "Service" {
				keys = append(keys, types.NamespacedName{Namespace: o.GetNamespace(), Name: name})
			}
		}
	}
	var list []string
	for _, key := range keys {
		list = append(list, object("Service", key))
	}
	return list
}

// freezes says whether an object has the switch of a Service that is held back.
func (m *maker) freezes(o metav1.Object) bool {
	of := switchedBy(o)
	for key := range m.frozen {
		if len(of) == 0 || slices.Contains(of, object("Service", key)) {
			return true
		}
	}
	return false
}

// plaintext keeps the gateways in the mesh where pods refuse who has no identity: gateways that were in the mesh by us have none afterwards.
func (m *maker) plaintext() {
	var unenrol []string
	for i := range m.plan.Steps {
		if s := &m.plan.Steps[i]; s.Verb == VerbUnenrol {
			unenrol = append(unenrol, s.Object)
		}
	}
	if len(unenrol) == 0 {
		return
	}
	now := &maker{Snapshot: m.Snapshot} // its findings are not for undo
	now.findGateways()
	now.findBackends()
	var gateways []string
	for _, g := range now.gateways {
		if g.capture == v1alpha1.CaptureAmbient && slices.ContainsFunc(g.pods, captured) {
			gateways = append(gateways, g.String())
		}
	}
	if len(gateways) == 0 {
		return
	}
	for _, b := range now.backends {
		if by := now.refusesPlaintext(b); by != "" {
			m.about(unenrol, func() {
				m.halt(b.String(), fmt.Sprintf("%s will be outside the mesh, and %s refuses those who are", listed(gateways), by))
			})
		}
	}
}

// refusesPlaintext is what refuses a caller without identity at a backend's pods, at one port at least, or "".
func (m *maker) refusesPlaintext(b *backend) string {
	for _, at := range m.pods(b) {
		for _, p := range ports(b.service) {
			d := at.Decide(p.request(policy.Absent[spiffeid.ID]()))
			if d.Verdict != policy.Deny {
				continue
			}
			obj, _ := m.decider(b, d, m.policiesAt(at))
			if obj == b.String() {
				return "a policy at its pods"
			}
			return obj
		}
	}
	return ""
}
