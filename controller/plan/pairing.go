package plan

import (
	"fmt"
	"slices"
	"strings"

	securityapi "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// pairingOf finds what has to stand for a backend. theirs are the policies of others, which m.policies has for now. Nothing has to stand where every caller
// gets by the waypoint what the pods give him. Nor has it where somebody else leads the Service to a waypoint already and nothing of ours stands: what its callers
// get there would change. Where we have led it there it has, whenever a policy came or something of ours went: but if a list of its pods names the waypoint, as somebody
// wants, what their lists let in by it stays, and what they deny is denied.
func (m *maker) pairingOf(b *backend, theirs []*securityv1.AuthorizationPolicy) *pairing {
	x := &pairing{backend: b}
	kinds := m.podKinds(b)
	var before []*policy.Point
	for _, labels := range kinds {
		before = append(before, m.ztunnel(b.key.Namespace, labels))
	}
	paired := m.paired(b)
	x.lists = slices.ContainsFunc(before, func(p *policy.Point) bool { return p.DefaultDeny() })
	if x.unseen = paired && !m.told(b); x.unseen {
		return x
	}
	if x.obstacle = m.unselectedBy(b); x.obstacle != nil {
		return x
	}
	leads := !paired && m.present(b).Name != ""
	denies := false // and nothing else is looked at
	if leads {
		x.led = !m.ledByUs(b)
		denies = x.lists && !m.refuseWaypoint(b, before) && m.namesWaypoint(b, before)
	}
	if x.closed = m.Edge.Closes() && !x.lists && len(kinds) > 0; x.closed {
		m.close(x, theirs, before, paired)
		return x
	}
	if x.led || len(kinds) == 0 || len(m.policiesAt(before[0])) == 0 && m.alike(before) {
		return x
	}
	if denies {
		before = nil
		for _, labels := range kinds {
			before = append(before, m.denying(b, labels))
		}
	}
	c := &comparison{m: m, b: b, ports: m.twinsFor(b).ports, kinds: kinds, before: before, atWaypoint: m.atWaypoint(b.waypoint, b.key), denies: denies}
	if c.tell(before); c.differs(theirs) == nil {
		return x
	}
	list, o := m.twinsOf(b, before, paired)
	if o == nil {
		o = c.differs(append(slices.Clip(theirs), list...))
	}
	switch x.wanted, x.obstacle = list, o; {
	case o == nil:
		m.scope(x, x.wanted, before)
	case paired || leads:
		x.narrow = append(m.narrowed(b, before), m.guards(b)...)
		m.scope(x, x.narrow, before)
	}
	return x
}

// twinsOf are the policies of a pairing, or why it cannot be had.
func (m *maker) twinsOf(b *backend, before []*policy.Point, paired bool) ([]*securityv1.AuthorizationPolicy, *obstacle) {
	if o := m.pairable(b, before, paired); o != nil {
		return nil, o
	}
	at := m.policiesAt(before[0])
	list, o := m.twinPolicies(b, at)
	if o != nil || !slices.ContainsFunc(list, func(p *securityv1.AuthorizationPolicy) bool {
		return p.Spec.Action == securityapi.AuthorizationPolicy_ALLOW
	}) {
		return list, o
	}
	admit, o := m.admission(b, slices.DeleteFunc(at, func(p *securityv1.AuthorizationPolicy) bool {
		return p.Spec.GetAction() != securityapi.AuthorizationPolicy_ALLOW
	}))
	if o != nil {
		return nil, o
	}
	return append(list, admit), nil
}

// told says whether a backend has pods that tell which policies hold for them.
func (m *maker) told(b *backend) bool {
	return slices.ContainsFunc(m.podsWith(b.key.Namespace, b.service.Spec.Selector), enforces)
}

// denying is what denies at pods of a backend, without what allows.
func (m *maker) denying(b *backend, labels map[string]string) *policy.Point {
	list := slices.DeleteFunc(m.policiesAt(m.ztunnel(b.key.Namespace, labels)), func(p *securityv1.AuthorizationPolicy) bool {
		return p.Spec.GetAction() != securityapi.AuthorizationPolicy_DENY
	})
	return m.set(list, b.key.Namespace).Ztunnel(policy.Workload{Namespace: b.key.Namespace, Labels: labels})
}

// hinders finds why a pairing cannot be had.
func (m *maker) hinders(x *pairing) {
	o := x.obstacle
	if o == nil {
		return
	}
	f := v1alpha1.Finding{
		Code: v1alpha1.FindingVoided, Severity: v1alpha1.SeverityError, Object: x.String(), Field: o.field, Fix: o.fix,
		Message: "this " + o.why + ". Authorization Pair leads a Service to a waypoint only if every caller gets the answer there that he has got",
	}
	switch {
	case len(x.narrow) == 0:
	case o.opens:
		f.Message += "; it leads there, and until then its pods admit who comes by that; what they do not let in any more of its own callers is refused"
	default:
		f.Message += "; it leads there, and until then what its pods do not let in any more is refused there too, and nobody else is let in"
	}
	switch {
	case o.policy == nil:
	case m.consents(x.key.Namespace, "", "Service"):
		f.Object, f.Field = object("AuthorizationPolicy", keyOf(o.policy)), "spec."+o.field
	default:
		f.Field, f.Message = "", "a policy at its pods "+strings.TrimPrefix(f.Message, "this ")
	}
	m.once(f)
}

// unpaired finds backends for which Pair has nothing to do beside what Lock does.
func (m *maker) unpaired() {
	for _, x := range m.pairings {
		if m.Edge.Closes() && !x.lists && !x.closed && !x.stays() && !m.held(x.String()) {
			m.found(v1alpha1.Finding{
				Code: v1alpha1.FindingCloses, Severity: v1alpha1.SeverityWarning, Object: x.String(), Field: "spec.selector",
				Message: "this Service is not closed to others, as authorization.pair.defaultDeny asks: it has no pods in the mesh, at which that would be enforced", Fix: "bring its pods into the mesh",
			})
		}
		if x.stays() || len(x.wanted) > 0 || m.held(x.String()) {
			continue
		}
		f := v1alpha1.Finding{
			Code: v1alpha1.FindingPair, Severity: v1alpha1.SeverityInfo, Object: x.String(),
			Message: "authorization Pair does for this Service what Lock does, and makes no list: by its waypoint every caller gets the answer that its pods give him",
		}
		if x.led {
			f.Message = "authorization Pair does for this Service what Lock does, and makes no list: it has led to its waypoint before, and what its callers get there stays"
		}
		m.found(f)
	}
}

// ledByUs says whether a backend leads to its waypoint by our label. Whoever holds it too came later: what others have set stays theirs.
func (m *maker) ledByUs(b *backend) bool {
	return m.present(b) == b.waypoint && holds(b.service, m.Edge.FieldOwner(), labelled(LabelUseWaypoint, "").managed()...)
}

// refuseWaypoint says whether pods refuse a backend's waypoint at each port.
func (m *maker) refuseWaypoint(b *backend, at []*policy.Point) bool {
	for _, p := range at {
		for _, port := range m.twinsFor(b).ports {
			if p.Decide(port.request(policy.Of(m.ownIDs(b.waypoint)...))).Verdict != policy.Deny {
				return false
			}
		}
	}
	return len(at) > 0
}

// namesWaypoint says whether a list at pods names a backend's waypoint itself. One that has it by its namespace, or as it is none of others, was made for callers.
func (m *maker) namesWaypoint(b *backend, at []*policy.Point) bool {
	var ids, accounts []string
	for _, id := range m.ownIDs(b.waypoint) {
		ns, account, _ := strings.Cut(strings.TrimPrefix(id.Path(), "/ns/"), "/sa/")
		ids, accounts = append(ids, short(id)), append(accounts, ns+"/"+account)
	}
	among := func(list, values []string) bool {
		return slices.ContainsFunc(values, func(v string) bool { return slices.Contains(list, v) })
	}
	for _, point := range at {
		for _, p := range m.policiesAt(point) {
			for _, r := range p.Spec.GetRules() {
				names := slices.ContainsFunc(r.GetFrom(), func(f *securityapi.Rule_From) bool {
					return among(ids, f.GetSource().GetPrincipals()) || among(accounts, qualified(f.GetSource().GetServiceAccounts(), p.Namespace))
				}) || slices.ContainsFunc(r.GetWhen(), func(c *securityapi.Condition) bool {
					return c.GetKey() == "source.principal" && among(ids, c.GetValues())
				})
				if names && p.Spec.GetAction() == securityapi.AuthorizationPolicy_ALLOW {
					return true
				}
			}
		}
	}
	return false
}

// paired says whether something of a pairing stands for a backend.
func (m *maker) paired(b *backend) bool {
	if m.known.paired == nil {
		m.known.paired = map[types.NamespacedName]bool{}
		for _, p := range m.Policies {
			if service, role := pairedFor(p); role != pairPin && m.pairs(p) {
				m.known.paired[service] = true
			}
		}
	}
	return m.known.paired[b.key]
}

// alike says whether points enforce the same policies.
func (m *maker) alike(points []*policy.Point) bool {
	return !slices.ContainsFunc(points, func(p *policy.Point) bool { return !slices.Equal(p.Policies(), points[0].Policies()) })
}

// pairable says what forbids that a waypoint takes over what the pods of a backend answer. Where it has, a pod that is starting is no matter.
func (m *maker) pairable(b *backend, before []*policy.Point, paired bool) *obstacle {
	if !m.alike(before) {
		for _, at := range before[1:] {
			for _, ref := range slices.Concat(at.Policies(), before[0].Policies()) {
				if slices.Contains(at.Policies(), ref) != slices.Contains(before[0].Policies(), ref) {
					return &obstacle{policy: m.index().byRef[ref], field: "selector", why: fmt.Sprintf("is for some pods of %s alone, and a waypoint does not tell them apart", b), fix: "give these pods a Service of their own"}
				}
			}
		}
	}
	for _, p := range m.podsWith(b.key.Namespace, b.service.Spec.Selector) {
		if !m.guarded(p) && !paired {
			return &obstacle{field: "spec.selector", why: fmt.Sprintf("has %s, which is outside the mesh: no policy is enforced there, and a waypoint does not tell it from the others", object("Pod", keyOf(p))), fix: "bring the pod into the mesh"}
		}
	}
	if o := m.untoldBy(b); o != nil && !paired {
		return o
	}
	if c := m.canaried(b); c.by != "" && c.key != b.waypoint && m.gateway(c.key) != nil {
		return &obstacle{field: "metadata.labels[" + LabelCanary + "]", fix: "take the canary away, as " + c.by + " names it, until this Service leads to one waypoint",
			why: fmt.Sprintf("would lead to canary %s beside waypoint %s, for a share of its requests: nobody has seen twins in force there, and the pods admit one waypoint", c.key, b.waypoint)}
	}
	if g := m.gateway(b.waypoint); g != nil && g.Labels[LabelWaypointFor] == "all" {
		return &obstacle{field: "metadata.labels[" + LabelUseWaypoint + "]", fix: "name another in spec.waypoint.name",
			why: fmt.Sprintf("would lead to waypoint %s, which takes what is sent to pods too: policies that target a Service are not for that", b.waypoint)}
	}
	return nil
}

// untoldBy is a policy that pods of a backend may come under, and there is none that tells.
func (m *maker) untoldBy(b *backend) *obstacle {
	if m.told(b) {
		return nil
	}
	for _, ns := range unique([]string{b.key.Namespace, m.Root()}) {
		for one, list := range m.index().atPods[ns] {
			for _, p := range list {
				labels := p.Spec.GetSelector().GetMatchLabels()
				more, other := false, false
				for k, v := range labels {
					is, has := b.service.Spec.Selector[k]
					more, other = more || !has, other || has && is != v
				}
				if one != "" && more && !other {
					return &obstacle{policy: p, field: "selector", why: fmt.Sprintf("may be for the pods of %s, of which there is none that tells by its labels", b), fix: "start one of them"}
				}
			}
		}
	}
	return nil
}

// unselectedBy is a policy that may be for the pods of a Service without selector, of which nobody knows which they are; nil for any other Service, and for one
// that leads to its waypoint already.
func (m *maker) unselectedBy(b *backend) *obstacle {
	if len(b.service.Spec.Selector) > 0 || m.present(b) == b.waypoint {
		return nil
	}
	for _, ns := range unique([]string{b.key.Namespace, m.Root()}) {
		var list []*securityv1.AuthorizationPolicy
		for _, more := range m.index().atPods[ns] {
			list = append(list, more...)
		}
		sortPolicies(list)
		for _, p := range list {
			if is := p.Spec.GetAction(); !dryRun(p) && (is == securityapi.AuthorizationPolicy_ALLOW || is == securityapi.AuthorizationPolicy_DENY) {
				return &obstacle{policy: p, field: "selector", why: fmt.Sprintf("may be for the pods of %s, which has no selector that tells which these are", b), fix: "give the Service a selector"}
			}
		}
	}
	return nil
}

// twinPolicies are the policies at the waypoint that take the place of those at the pods: one of what is denied to callers, and one of what is allowed, where
// a list of that stands.
func (m *maker) twinPolicies(b *backend, list []*securityv1.AuthorizationPolicy) (twins []*securityv1.AuthorizationPolicy, o *obstacle) {
	rules := map[securityapi.AuthorizationPolicy_Action][]*securityapi.Rule{}
	stands := false
	t := m.twinsFor(b)
	for _, p := range list {
		more, o := t.rules(p)
		if o != nil {
			return nil, o
		}
		action := p.Spec.GetAction()
		stands = stands || action == securityapi.AuthorizationPolicy_ALLOW
		if rules[action] = append(rules[action], more...); len(rules[action]) > maxTwinRules {
			return nil, &obstacle{policy: p, field: "rules", why: fmt.Sprintf("makes more than %d rules with the others at these pods, which no policy may have", maxTwinRules), fix: "make fewer"}
		}
	}
	if deny := rules[securityapi.AuthorizationPolicy_DENY]; len(deny) > 0 {
		twins = append(twins, m.atService(b, pairDeny, securityapi.AuthorizationPolicy_DENY, deny))
	}
	if stands {
		twins = append(twins, m.atService(b, pairAllow, securityapi.AuthorizationPolicy_ALLOW, rules[securityapi.AuthorizationPolicy_ALLOW]))
	}
	return twins, nil
}
