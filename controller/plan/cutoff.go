package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// enrols says whether a gateway is about to be brought into the mesh, where it was not before: all backends see its identity from then on.
func (m *maker) enrols(g *gateway) bool {
	if !g.apart() {
		return false
	}
	if m.was(stepID(VerbVerify, g.String())) {
		return false // it was there: what got lost is mended
	}
	return slices.ContainsFunc(m.plan.Steps, func(s Step) bool { return s.part == partEnrol && s.Write != nil })
}

// apart says whether a gateway is to be captured, and has pods that are not.
func (g *gateway) apart() bool {
	return g.capture == v1alpha1.CaptureAmbient && slices.ContainsFunc(g.pods, func(p *Pod) bool { return !captured(p) })
}

// ledNow are the waypoints that backends lead to at present, while a gateway is to be brought into the mesh: it will go there.
func (m *maker) ledNow() []types.NamespacedName {
	if !slices.ContainsFunc(m.gateways, (*gateway).apart) {
		return nil
	}
	list := map[types.NamespacedName]bool{}
	for _, b := range m.backends {
		if key, leads := m.leads(b); leads && !b.hidden {
			list[key] = true
		}
	}
	return slices.SortedFunc(maps.Keys(list), compareKeys)
}

// was says whether a step was done when the status was written.
func (m *maker) was(id string) bool {
	return find(m.Edge.Status.Plan.Steps, func(s *v1alpha1.Step) bool { return s.ID == id && s.State == v1alpha1.StepDone }) != nil
}

// follows says whether a gateway that is in the mesh goes by the waypoint that a backend leads to already.
func (m *maker) follows(g *gateway, b *backend) (types.NamespacedName, bool) {
	waypoint, leads := m.leads(b)
	return waypoint, leads && m.mayFollow(g, b)
}

// cutOff finds a backend that lets a gateway through now, as one without identity, and would not when it is in the mesh: at its pods, or at the waypoint
// where it leads to one already. Enrolment is one step for all backends, so that the gateway stays outside. One that refuses it before as after is no
// worse off, and holds back nobody but itself. Of one whose namespace does not consent it is told, and nobody waits for that.
func (m *maker) cutOff(b *backend, at []*policy.Point) {
	for _, g := range m.gateways {
		ids := parseIDs(g.identities(m.trustDomain()))
		if len(ids) == 0 || !m.enrols(g) {
			continue
		}
		waypoint, follows := m.follows(g, b)
		seen := ids
		if follows {
			seen = m.waypointIDs(waypoint)
		}
		for _, p := range ports(b.service) {
			now := p.request(policy.Absent[spiffeid.ID]())
			if len(at) > 0 && !slices.ContainsFunc(at, func(pods *policy.Point) bool { return pods.Decide(now).Verdict != policy.Deny }) {
				continue // nothing gets through
			}
			for _, id := range ids {
				if point := m.atWaypoint(waypoint, b.key); follows && point.Decide(p.request(policy.Of(id))).Verdict == policy.Deny {
					m.cutsOffGateway(b, g, id, point, p, "at waypoint "+waypoint.String(), whenEnrolled)
				}
			}
			for _, pods := range at {
				for _, id := range seen {
					if pods.Decide(now).Verdict != policy.Deny && pods.Decide(p.request(policy.Of(id))).Verdict == policy.Deny {
						m.cutsOffGateway(b, g, id, pods, p, "at its pods", whenEnrolled)
					}
				}
			}
		}
	}
}

// When a gateway is cut off.
const (
	whenEnrolled = "when it is in the mesh"
	whenSwitched = "when it sends to Services' addresses"
)

// turnedAway finds a backend whose namespace does not consent, and that leads to a waypoint where a gateway will be refused, or behind which: a switch that is
// about to be set for the gateway as a whole leads it there, and so far it reaches the pods. Of others admitted tells, and the switch waits for them.
func (m *maker) turnedAway(b *backend, at []*policy.Point) {
	waypoint, leads := m.leads(b)
	if !leads || !slices.ContainsFunc(m.plan.Steps, func(s Step) bool { return s.Verb == VerbSwitch && s.wide && s.Write != nil }) {
		return
	}
	for _, g := range m.gateways {
		ids, s := parseIDs(g.identities(m.trustDomain())), m.chosen(g)
		if len(ids) == 0 || s == nil || s.On != edge.OnGateway && s.On != edge.OnParameters || m.mayFollow(g, b) {
			continue
		}
		now := policy.Of(ids...)
		if m.enrols(g) {
			now = policy.Absent[spiffeid.ID]()
		}
		for _, p := range ports(b.service) {
			through := func(pods *policy.Point) bool { return pods.Decide(p.request(now)).Verdict != policy.Deny }
			if len(at) > 0 && !slices.ContainsFunc(at, through) {
				continue // nothing gets through
			}
			for _, id := range ids {
				if point := m.atWaypoint(waypoint, b.key); point.Decide(p.request(policy.Of(id))).Verdict == policy.Deny {
					m.cutsOffGateway(b, g, id, point, p, "at waypoint "+waypoint.String(), whenSwitched)
				}
			}
			for _, pods := range at {
				for _, id := range m.waypointIDs(waypoint) {
					if through(pods) && pods.Decide(p.request(policy.Of(id))).Verdict == policy.Deny {
						m.cutsOffGateway(b, g, id, pods, p, "at its pods", whenSwitched)
					}
				}
			}
		}
	}
}

// cutsOffGateway finds that a gateway is let through now, and will not be at a point where an identity is not admitted. For all backends but those whose
// namespaces do not consent it stays as it is.
func (m *maker) cutsOffGateway(b *backend, g *gateway, id spiffeid.ID, point *policy.Point, p port, where, when string) {
	r := p.request(policy.Of(id))
	obj, field := m.decider(b, point.Decide(r), m.policiesAt(point))
	f := v1alpha1.Finding{
		Code: v1alpha1.FindingNotAdmitted, Severity: v1alpha1.SeverityError, Object: obj, Field: field,
		Message: fmt.Sprintf("%s, requests of %s to %s are let through now, and would be refused %s: principal %s is not admitted. It stays outside until they would not be, for all of its backends",
			where, g, b, when, short(id)),
		Fix: "let the policies there admit principal " + short(id),
	}
	if b.refused {
		f.Severity = v1alpha1.SeverityWarning
		f.Message = fmt.Sprintf("%s, requests of %s to %s are let through now, and will be refused %s: principal %s is not admitted. Its namespace does not consent, and nobody waits for it",
			where, g, b, when, short(id))
	}
	if obj != b.String() {
		f.Fix = cmp.Or(changes(point.WhyNot(r)), f.Fix)
	}
	m.once(f)
}

// ledAlready looks at the waypoints that backends lead to by themselves, and that nothing is planned for: a gateway that is brought into the mesh goes there.
func (m *maker) ledAlready(planned map[types.NamespacedName]bool) {
	for _, key := range m.ledNow() {
		if fact := m.Waypoints[key]; !planned[key] && !fact.Answers && fact.Why != "" && m.Unable == "" {
			m.silent(key, fact.Why, false)
		}
	}
}

// silent finds a waypoint that does not answer. Where a Service leads there already, and a gateway is about to follow, that would be cut off: the gateway
// stays outside. For one whose namespace does not consent nobody waits. One that nothing is planned for matters to nobody else.
func (m *maker) silent(key types.NamespacedName, why string, planned bool) {
	f := v1alpha1.Finding{
		Code: v1alpha1.FindingWaypointSilent, Severity: v1alpha1.SeverityWarning, Object: object("Gateway", key),
		Message: "this waypoint is programmed but does not answer on its HBONE port: " + why, Fix: "look at its pods",
	}
	told := ""
	for _, g := range m.gateways {
		for _, b := range m.backends {
			waypoint, follows := m.follows(g, b)
			if !follows || waypoint != key || !m.enrols(g) {
				continue
			}
			if b.refused {
				told = cmp.Or(told, fmt.Sprintf(". %s leads there, and %s will get no answer when it is in the mesh. Its namespace does not consent, and nobody waits for it", b, g))
				continue
			}
			who := "a Service whose namespace has not consented"
			if !m.concealed(b.key.Namespace) {
				who = b.String()
				f.Fix += "; or take label " + LabelUseWaypoint + " from " + who
			}
			f.Severity = v1alpha1.SeverityError
			f.Message += fmt.Sprintf(". %s leads there, and %s would get no answer when it is in the mesh: it stays outside until then, for all of its backends", who, g)
			m.about(nil, func() { m.found(f) })
			return
		}
	}
	if f.Message += told; planned || told != "" {
		m.found(f)
	}
	if planned {
		m.plan.holds.wait(causeOf(&f), m.whom...)
	}
}
