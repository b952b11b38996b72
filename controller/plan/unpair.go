package plan

import (
	"fmt"
	"slices"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// unpair deletes our policies by which waypoints answer as pods did, where these are not wanted any more: what admits a waypoint first, and what it denies
// last. Those of a Service that we lead to its waypoint stay until it does not lead there, and those of one that leads there all the same as long as
// somebody would get another answer without them.
func (m *maker) unpair(keep map[types.NamespacedName]bool) {
	for i := range pairRoles {
		for _, p := range m.Policies {
			service, role := pairedFor(p)
			if role != pairRoles[len(pairRoles)-1-i] || !m.created(p) {
				continue
			}
			x := m.pairingFor(service)
			if m.frozen[service] && (x == nil || x.lists || x.closed || role == pairDeny || role == pairGuard || role == pairPin) || x != nil && x.keeps(p, role) {
				continue
			}
			m.unpairOne(p, service, keep[service])
		}
	}
}

// Unpairs says whether something is left of what goes when a Service leads to its waypoint no more, or to another.
func (p *Plan) Unpairs() bool {
	return p.leaves || slices.ContainsFunc(p.Steps, func(s Step) bool { return s.part == partUnpair && s.State != v1alpha1.StepDone })
}

// keeps says whether a policy of a pairing is to stand. What it cannot be had now stays, but for lists where the pods have none any more: there they
// would shut out whom the pods let in.
func (x *pairing) keeps(p *securityv1.AuthorizationPolicy, role string) bool {
	if role == pairPin {
		return x.pin != nil
	}
	if x.stays() {
		return role == pairDeny || role == pairGuard || x.lists || x.unseen || x.closed
	}
	return slices.ContainsFunc(x.wanted, func(want *securityv1.AuthorizationPolicy) bool { return keyOf(want) == keyOf(p) })
}

func (m *maker) unpairOne(p *securityv1.AuthorizationPolicy, service types.NamespacedName, kept bool) {
	obj := object("AuthorizationPolicy", keyOf(p))
	s := Step{part: partUnpair, of: []string{object("Service", service)}, Step: v1alpha1.Step{Verb: VerbUnpair, Object: obj, Reason: "nobody needs it any more"}}
	switch p.Labels[v1alpha1.LabelOwner] {
	case m.Edge.Owner():
	case "":
		m.orphan(s, securityGroup, "AuthorizationPolicy", fmt.Sprintf("this policy was made for this edge, and has lost its label: "+
			"kubectl label authorizationpolicy -n %s %s %s=%s has it deleted, otherwise it goes on deciding", p.Namespace, p.Name, v1alpha1.LabelOwner, m.Edge.Owner()))
		return
	default:
		return
	}
	s.Write = &Write{APIVersion: policyAPI, Kind: "AuthorizationPolicy", Key: keyOf(p), UID: p.UID, Delete: true}
	if m.pairingFor(service) != nil { // the policies have gone whose twin it is; that holds whatever else holds the Service back
		s.of = nil
		m.add(s, partPair)
		return
	}
	o := m.service(service)
	_, role := pairedFor(p)
	switch {
	case o == nil:
	case role == pairPin: // no other policy depends on it
	case role == pairGuard:
		if m.present(&backend{key: service, service: o}).Name != "" && slices.ContainsFunc(m.policiesIn(service.Namespace), func(admit *securityv1.AuthorizationPolicy) bool {
			_, role := pairedFor(admit)
			return role == pairAdmit && m.created(admit) && len(m.admittedBy(admit, o)) > 0
		}) {
			s.Write, s.Reason = nil, "its pods still admit the waypoint"
		}
	case !kept && m.unwires(service): // which comes before
	case m.present(&backend{key: service, service: o}).Name != "":
		m.about([]string{obj}, func() { m.stillNeeded(&s, &backend{key: service, service: o}) })
	case meta.IsStatusConditionTrue(o.Status.Conditions, ConditionWaypointBound):
		s.Write, s.Reason = nil, "istiod still has the Service led to its waypoint"
	}
	m.add(s, partEnrol, partWaypoint, partWire, partLock, partUnlock, partUnswitch, partRelease)
}

// unwires says whether a step of the plan takes a Service's way to its waypoint away.
func (m *maker) unwires(service types.NamespacedName) bool {
	return slices.ContainsFunc(m.plan.Steps, func(s Step) bool {
		return s.Verb == VerbUnwire && s.Object == object("Service", service) && s.leads != ""
	})
}

// stillNeeded keeps what a waypoint needs that a Service leads to, though we do not ask for it: without it callers would get other answers.
func (m *maker) stillNeeded(s *Step, b *backend) {
	b.waypoint = m.present(b)
	was := m.policies
	defer func() { m.policies = was }()
	var all, others []*securityv1.AuthorizationPolicy
	for _, p := range m.Policies {
		of, role := pairedFor(p)
		if role == pairPin && m.pairs(p) {
			continue // it is about headers, and goes by itself
		}
		if all = append(all, p); role == "" || !m.pairs(p) || of != b.key {
			others = append(others, p)
		}
	}
	var near []*securityv1.AuthorizationPolicy // of all that decide there, ours too
	for _, p := range among(m.Policies, b.key.Namespace, b.waypoint.Namespace, m.Root()) {
		if m.decidesFor(p, b) {
			near = append(near, p)
		}
	}
	callers := m.callers(near)
	answers := func(list []*securityv1.AuthorizationPolicy) (all []policy.Verdict) {
		m.policies = newPolicies(list, func(p *securityv1.AuthorizationPolicy) bool { return isLock(p) || m.isClosing(p) || m.standsForLock(p) })
		path := &policy.Path{Waypoint: m.atWaypoint(b.waypoint, b.key), WaypointSource: policy.Of(m.ownIDs(b.waypoint)...)}
		for _, labels := range m.podKinds(b) {
			path.Workload = m.ztunnel(b.key.Namespace, labels)
			for _, port := range m.twinsFor(b).ports {
				for _, id := range callers {
					all = append(all, path.Decide(port.request(policy.Of(id))).Verdict)
				}
			}
		}
		return all
	}
	if len(callers) < maxCallers && slices.Equal(answers(all), answers(others)) {
		return
	}
	if m.halt(s.Object, fmt.Sprintf("%s leads to waypoint %s, and without it the waypoint or the pods would not answer its callers as they do", b, b.waypoint)) {
		m.stay(s)
	}
}

// decidesFor says whether a policy may decide about requests to a backend: at its pods, or at its waypoint.
func (m *maker) decidesFor(p *securityv1.AuthorizationPolicy, b *backend) bool {
	if hasTargets(p) {
		return targets(p, &p.Spec, b.key, "Service") || targets(p, &p.Spec, b.waypoint, "Gateway") || m.targetsClass(p, &p.Spec)
	}
	labels := p.Spec.GetSelector().GetMatchLabels()
	return len(labels) == 0 || slices.ContainsFunc(m.podKinds(b), func(kind map[string]string) bool { return hasLabels(kind, labels) })
}
