package plan

import (
	"slices"
	"strings"

	securityapi "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// isLock says whether a policy is the lock of an AmbientEdge, of this or another one. That an AmbientEdge has written it is what managedFields say; as these
// and its name are free to choose, it must also do what a lock does, and nothing else.
func isLock(p *securityv1.AuthorizationPolicy) bool {
	return strings.HasPrefix(p.Name, lockPrefix) && locksOnly(p) && slices.ContainsFunc(p.ManagedFields, func(f metav1.ManagedFieldsEntry) bool {
		return strings.HasPrefix(f.Manager, v1alpha1.FieldOwnerPrefix)
	})
}

// locksOnly says whether a policy has the shape of a lock: it denies principals, each by its whole name, some ports of selected pods.
func locksOnly(p *securityv1.AuthorizationPolicy) bool {
	return deniesOnly(p, (*securityapi.Source).GetPrincipals, func(ids []string) *securityapi.Source { return &securityapi.Source{Principals: ids} })
}

// closesOnly says whether a policy has the shape of what closes pods: it denies some of their ports to all but principals, each by its whole name.
func closesOnly(p *securityv1.AuthorizationPolicy) bool {
	return deniesOnly(p, (*securityapi.Source).GetNotPrincipals, func(ids []string) *securityapi.Source { return &securityapi.Source{NotPrincipals: ids} })
}

// deniesOnly says whether a policy denies some ports of selected pods to a source of some names alone, each a whole one, and nothing else.
func deniesOnly(p *securityv1.AuthorizationPolicy, names func(*securityapi.Source) []string, source func([]string) *securityapi.Source) bool {
	if hasTargets(p) || len(p.Spec.GetSelector().GetMatchLabels()) == 0 || p.Spec.GetAction() != securityapi.AuthorizationPolicy_DENY || len(p.Spec.GetRules()) != 1 {
		return false
	}
	r := p.Spec.GetRules()[0]
	if len(r.GetFrom()) != 1 || len(r.GetTo()) != 1 || len(r.GetWhen()) > 0 {
		return false
	}
	ids, ports := names(r.GetFrom()[0].GetSource()), r.GetTo()[0].GetOperation().GetPorts()
	if len(ids) == 0 || len(ports) == 0 || slices.ContainsFunc(ids, func(id string) bool { return strings.Contains(id, "*") }) {
		return false
	}
	return r.GetFrom()[0].GetSource().String() == source(ids).String() && r.GetTo()[0].GetOperation().String() == (&securityapi.Operation{Ports: ports}).String()
}

// standsForLock says whether a policy is where the lock of this edge would be, at a Service that it has led to its waypoint, and is that lock, which
// somebody has changed and which is written anew, or does to the edge what its lock would: what it denies then is what the AmbientEdge asks to be denied.
func (m *maker) standsForLock(p *securityv1.AuthorizationPolicy) bool {
	if !m.Edge.Locks() || !m.created(p) && !locksOnly(p) {
		return false
	}
	services := m.servicesIn(p.Namespace)
	of := slices.IndexFunc(services, func(s *corev1.Service) bool { return m.lockKey(&backend{key: keyOf(s)}) == keyOf(p) })
	if of < 0 || !holds(services[of], m.Edge.FieldOwner(), labelled(LabelUseWaypoint, "").managed()...) {
		return false
	}
	if m.created(p) {
		return true
	}
	ours, _, _ := m.principals()
	return !slices.ContainsFunc(p.Spec.GetRules()[0].GetFrom()[0].GetSource().GetPrincipals(), func(id string) bool { return !slices.Contains(ours, id) })
}
