package plan

import (
	"fmt"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// comparison is of what callers of a backend get by its waypoint with what its pods give them.
type comparison struct {
	m          *maker
	b          *backend
	ports      []port
	kinds      []map[string]string // of pods
	before     []*policy.Point     // at each of these kinds, by the policies of others
	atWaypoint *policy.Point       // by those
	callers    []spiffeid.ID
	many       bool // policies tell apart more callers than are looked at
	denies     bool // it is about what before denies alone
}

// tell notes the callers that are looked at: those between whom policies tell at the pods of a backend, or at its waypoint, as the mesh's trust domain and its
// aliases have them; and the gateways, and pods that are seen, as far as there is room. The waypoint is none of them.
func (c *comparison) tell(at []*policy.Point) {
	m := c.m
	list := m.policiesAt(c.atWaypoint)
	for _, p := range at {
		list = append(list, m.policiesAt(p)...)
	}
	c.callers = m.callers(list)
	c.many = len(c.callers) >= maxCallers
	for _, id := range slices.Clip(c.callers) { // namespaces and service accounts are those of any trust domain
		if id.TrustDomain().Name() == m.trustDomain() {
			c.callers = append(c.callers, parseIDs([]string{"spiffe://" + somebody + id.Path()})...)
		}
	}
	for _, g := range m.gateways {
		c.callers = append(c.callers, parseIDs(g.identities(m.trustDomain()))...)
	}
	for _, alias := range m.TrustDomainAliases {
		for _, id := range slices.Clip(c.callers) {
			if id.TrustDomain().Name() == m.trustDomain() {
				c.callers = append(c.callers, parseIDs([]string{"spiffe://" + alias + id.Path()})...)
			}
		}
	}
	seen := m.strangers(c.b, nil)
	c.callers = append(c.callers, seen[:min(len(seen), max(maxCallers-len(c.callers), 0))]...)
	waypoint := m.ownIDs(c.b.waypoint)
	c.callers = slices.DeleteFunc(c.callers, func(id spiffeid.ID) bool { return slices.Contains(waypoint, id) })
}

// differs says who would get another answer by the waypoint than from the pods, if policies were these; nil where nobody would. What policies of others
// at the waypoint refuse by themselves begins when the Service leads there, as their authors want, and is none of it: but nobody is let through whom they
// refuse.
func (c *comparison) differs(policies []*securityv1.AuthorizationPolicy) *obstacle {
	m := c.m
	waypoint := m.ownIDs(c.b.waypoint)
	if len(waypoint) == 0 || c.many {
		return &obstacle{field: "metadata.labels[" + LabelUseWaypoint + "]", why: "has policies that tell too many callers apart to see that nothing changes for anybody", fix: "have them name fewer"}
	}
	was := m.policies
	m.policies = m.indexOf(among(policies, c.b.key.Namespace, c.b.waypoint.Namespace, m.Root()))
	defer func() { m.policies = was }()
	at := m.atWaypoint(c.b.waypoint, c.b.key)
	for i, labels := range c.kinds {
		path := &policy.Path{Waypoint: at, WaypointSource: policy.Of(waypoint...), Workload: m.ztunnel(c.b.key.Namespace, labels)}
		for _, port := range c.ports {
			for _, id := range c.callers {
				r := port.request(policy.Of(id))
				before, theirs, after := c.before[i].Decide(r), c.atWaypoint.Decide(r).Verdict, path.Decide(r)
				if !kept(before.Verdict, theirs, after.Verdict) && (!c.denies || before.Verdict != policy.Allow) {
					return c.obstacle(before, after, id)
				}
			}
		}
	}
	return nil
}

// kept says whether an answer stays: of the pods, of what others have at the waypoint, and of the whole way by the waypoint.
func kept(before, theirs, after policy.Verdict) bool {
	switch {
	case before == policy.Depends:
		return false
	case before == policy.Deny:
		return after == policy.Deny
	case theirs == policy.Allow:
		return after == policy.Allow
	case theirs == policy.Deny:
		return after == policy.Deny
	}
	return after == policy.Depends
}

// obstacle names the rule by which a caller gets another answer.
func (c *comparison) obstacle(before policy.Decision, after policy.Answer, id spiffeid.ID) *obstacle {
	o := &obstacle{
		field: "spec.ports", why: fmt.Sprintf("has pods whose policies cannot be had at waypoint %s: %s would get another answer there", c.b.waypoint, caller(id)),
		fix: "let the policies at the pods tell callers apart by their principals alone",
	}
	d, why := before, fmt.Sprintf("would not give %s the same answer behind waypoint %s", caller(id), c.b.waypoint)
	if before.Verdict == policy.Allow {
		if d = after.Deciding(); after.Workload.Verdict == policy.Deny {
			d = after.Workload
			why = fmt.Sprintf("refuses the waypoint itself, as %s: no list can admit what it denies", short(c.m.ownIDs(c.b.waypoint)[0]))
			o.fix = "have it leave out that principal"
		}
	}
	p := c.m.index().byRef[d.Policy]
	if p == nil {
		return o
	}
	if _, role := pairedFor(p); role != "" {
		return o
	}
	o.policy, o.why = p, why
	if o.field = d.Field; o.field == "" {
		o.field = fmt.Sprintf("rules[%d]", max(d.Rule, 0))
	}
	return o
}
