package plan

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	securityapi "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// A Service without a list of callers is closed in two places: at its waypoint by a list that has the gateways alone, before it leads there, and at its pods
// by a policy like a lock, that denies whoever is not the waypoint, when all else is done. The pods get no list: their other ports stay as they are.

// closeKey is the policy that keeps everybody from a Service's pods but its waypoint.
func (m *maker) closeKey(b *backend) types.NamespacedName {
	of := sha256.Sum256([]byte(keyOf(m.Edge).String() + " everybody"))
	return types.NamespacedName{Namespace: b.key.Namespace, Name: fmt.Sprintf("%s%s-%x", lockPrefix, b.key.Name, of[:4])}
}

// close finds what has to stand at the waypoint of a backend without a list of callers, so that it refuses everybody but the gateways, and those still whom
// the pods refuse. Where others have a list there already, that decides, and none is put beside it, which would let in more.
func (m *maker) close(x *pairing, theirs []*securityv1.AuthorizationPolicy, before []*policy.Point, paired bool) {
	b := x.backend
	if x.obstacle = m.pairable(b, before, paired); x.obstacle != nil {
		return
	}
	if x.wanted, x.obstacle = m.twinPolicies(b, m.policiesAt(before[0])); x.obstacle != nil {
		return
	}
	c := &comparison{m: m, b: b, ports: m.twinsFor(b).ports, kinds: m.podKinds(b), before: before, atWaypoint: m.atWaypoint(b.waypoint, b.key), denies: true}
	if !c.atWaypoint.DefaultDeny() {
		list, o := m.gatewaysAlone(b, before)
		if o != nil {
			x.wanted, x.obstacle = nil, o
			return
		}
		x.wanted = append(x.wanted, list)
	}
	c.tell(before)
	if o := c.differs(append(slices.Clip(theirs), x.wanted...)); o != nil {
		x.wanted, x.obstacle = nil, o
		return
	}
	m.scope(x, x.wanted, before)
	m.closes(x, c)
}

// gatewaysAlone is the list of callers of a backend that has the gateways, on the ports that their routes name, or else on all.
func (m *maker) gatewaysAlone(b *backend, before []*policy.Point) (*securityv1.AuthorizationPolicy, *obstacle) {
	ids, why, fix := m.principals()
	if stands := m.policyAt(m.pairKey(b, pairAllow)); why != "" && stands != nil && m.made(stands) {
		ids, why = m.gatewayPrincipals(), "" // nobody is let in whom it has not let in
	}
	if why != "" {
		return nil, &obstacle{field: "spec", why: "is to be closed to everybody but the gateway: " + why, fix: fix}
	}
	var rules []*securityapi.Rule
	for _, id := range ids {
		all := m.letIn(b, before, id)
		ports := all
		if its := m.callsBy(b, id); its.why == "" && len(its.list) > 0 {
			ports = nil
			for _, to := range operations(its.list, all) {
				ports = unique(append(ports, to.GetOperation().GetPorts()...))
			}
		}
		if len(ports) > 0 {
			rules = append(rules, &securityapi.Rule{
				From: []*securityapi.Rule_From{{Source: &securityapi.Source{Principals: []string{id}}}},
				To:   []*securityapi.Rule_To{{Operation: &securityapi.Operation{Ports: ports}}},
			})
		}
	}
	return m.atService(b, pairAllow, securityapi.AuthorizationPolicy_ALLOW, rules), nil
}

// closes finds who is refused when a backend is closed, of those that are known: by policies that tell them apart, and as pods that are seen.
func (m *maker) closes(x *pairing, c *comparison) {
	var names []string
	for _, id := range m.strangers(x.backend, slices.Clone(c.callers)) {
		for _, p := range c.ports {
			if !strings.Contains(id.String(), somebody) && slices.ContainsFunc(c.before, func(at *policy.Point) bool { return at.Decide(p.request(policy.Of(id))).Verdict != policy.Deny }) {
				names = append(names, short(id))
			}
		}
	}
	who := "no caller is known by policies, or seen as a pod of this AmbientEdge's namespace and backends"
	if names = unique(names); len(names) > 0 {
		who = "of those known by policies, and seen as pods of this AmbientEdge's namespace and backends, these: " + listed(names)
	}
	is := "will be refused when it is wired, and at its pods when the rest is done"
	if m.closedAt(x.backend) != nil {
		is = "is refused"
	}
	m.about(x.itself(), func() {
		m.found(v1alpha1.Finding{
			Code: v1alpha1.FindingCloses, Severity: v1alpha1.SeverityInfo, Object: x.String(), Field: "spec.ports",
			Message: fmt.Sprintf("whoever is not the gateway %s, as authorization.pair.defaultDeny is Set and this Service has no list of callers; %s", is, who),
			Fix:     "give its pods a list of callers, an AuthorizationPolicy ALLOW, that has whoever is to be let in: then that decides",
		})
	})
}

// closedAt is the policy that keeps everybody from a backend's pods but its waypoint, where it stands.
func (m *maker) closedAt(b *backend) *securityv1.AuthorizationPolicy {
	if p := m.policyAt(m.closeKey(b)); p != nil && m.made(p) && closesOnly(p) {
		return p
	}
	return nil
}

// closeOne adds the step that keeps everybody from the pods of a backend but its waypoint. It comes when the lock stands.
func (m *maker) closeOne(x *pairing) {
	b := x.backend
	key := m.closeKey(b)
	s := Step{part: partLock, of: m.samePods(b), Step: v1alpha1.Step{
		Verb: VerbLock, Object: object("AuthorizationPolicy", key), State: v1alpha1.StepDone,
		Reason: fmt.Sprintf("the pods of %s take nobody but waypoint %s", b, b.waypoint),
	}}
	p := m.policyAt(key)
	_, why, fix := m.lockSpec(b)
	principals, o := m.comingBy(b, m.closedAt(b), func(p *securityv1.AuthorizationPolicy) []string {
		return p.Spec.GetRules()[0].GetFrom()[0].GetSource().GetNotPrincipals()
	})
	switch {
	case p != nil && !m.created(p):
		why, fix = s.Object+" is there by the name of the lock, and none of this AmbientEdge's; it is not overwritten", "delete it, or give it another name"
	case why == "" && o != nil:
		why, fix = "it "+o.why, o.fix
	}
	if why != "" {
		s.State, s.Reason = v1alpha1.StepBlocked, why
		m.found(v1alpha1.Finding{
			Code: v1alpha1.FindingCloses, Severity: v1alpha1.SeverityWarning, Object: b.String(), Field: "spec",
			Message: "its pods are not closed to others, who reach them past the waypoint as before: " + why, Fix: fix,
		})
		m.add(s)
		return
	}
	spec, _, _ := m.denySpec(b, map[string]any{"notPrincipals": texted(principals)}) // which the lock has too
	if p == nil || !m.made(p) || !sameSpec(p, spec) || dryRun(p) {
		s.State, s.Reason = v1alpha1.StepNext, fmt.Sprintf("have the pods of %s take nobody but waypoint %s", b, b.waypoint)
		if !m.ask(key.Namespace, securityGroup, "AuthorizationPolicy", "close "+b.String()) {
			s.State, s.Reason = v1alpha1.StepBlocked, "no consent"
		} else {
			s.Write = m.over(m.newLock(key, spec), p)
		}
	}
	s.wants = func() *Write { return m.newLock(key, spec) }
	m.add(s, partEnrol, partWaypoint, partPair, partWitness, partWire, partLock)
}

// keepsClosed says whether what closes a Service's pods is to stay, where what was done for the Service does.
func (m *maker) keepsClosed(service types.NamespacedName) bool {
	x := m.pairingFor(service)
	return m.Edge.Closes() && (x == nil || x.closed || x.stays())
}

// isClosing says whether a policy is such a one that an AmbientEdge has made, and lets a waypoint through: behind that it denies nobody.
func (m *maker) isClosing(p *securityv1.AuthorizationPolicy) bool {
	return strings.HasPrefix(p.Name, lockPrefix) && closesOnly(p) && slices.ContainsFunc(p.ManagedFields, func(f metav1.ManagedFieldsEntry) bool {
		return strings.HasPrefix(f.Manager, v1alpha1.FieldOwnerPrefix)
	}) && slices.ContainsFunc(p.Spec.GetRules()[0].GetFrom()[0].GetSource().GetNotPrincipals(), m.ofWaypoint)
}
