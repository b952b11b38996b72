package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// beginning finds policies that nobody enforces as long as a Service leads to no waypoint, and that refuse others than the gateway when it does: whoever
// calls it from within the mesh goes by the waypoint then. It may be what is wanted, and stops nothing.
func (m *maker) beginning(b *backend, at []*policy.Point) {
	if _, leads := m.leads(b); leads || !b.wanted || b.hidden {
		return
	}
	point := m.atWaypoint(b.waypoint, b.key)
	list := slices.DeleteFunc(m.policiesAt(point), func(p *securityv1.AuthorizationPolicy) bool { // what is planned or ours refuses nobody anew
		_, role := pairedFor(p)
		return role != "" && m.pairingFor(b.key) != nil
	})
	if len(list) == 0 {
		return
	}
	var whole, partly []string
	for _, id := range m.strangers(b, m.callers(list)) {
		verdict := policy.Allow
		for _, p := range ports(b.service) {
			r := p.request(policy.Of(id))
			if len(at) > 0 && !slices.ContainsFunc(at, func(pods *policy.Point) bool { return pods.Decide(r).Verdict != policy.Deny }) {
				continue // nothing of its gets through as it is
			}
			if d := point.Decide(r).Verdict; d == policy.Deny || d == policy.Depends && verdict == policy.Allow {
				verdict = d
			}
		}
		switch verdict {
		case policy.Deny:
			whole = append(whole, caller(id))
		case policy.Depends:
			partly = append(partly, caller(id))
		case policy.Allow:
		}
	}
	if len(whole)+len(partly) == 0 {
		return
	}
	var names []string
	for _, p := range list {
		names = append(names, object("AuthorizationPolicy", keyOf(p)))
	}
	slices.Sort(names)
	begin := "begin"
	if len(names) == 1 {
		begin = "begins"
	}
	message := fmt.Sprintf("%s %s to be enforced when this Service leads to waypoint %s, for every caller in the mesh and not for the gateway alone", listed(names), begin, b.waypoint)
	if len(whole) > 0 {
		message += "; what is let through now is refused then: of " + listed(unique(whole))
	}
	if len(partly) > 0 {
		message += "; it depends on the request, of " + listed(unique(partly))
	}
	m.found(v1alpha1.Finding{
		Code: v1alpha1.FindingBegins, Severity: v1alpha1.SeverityWarning, Object: b.String(), Field: "metadata.labels[" + LabelUseWaypoint + "]",
		Message: message, Fix: "let the policies admit those that are to be admitted, before this Service is wired; or leave it so, if it is meant",
	})
}

// strangers are callers other than the gateways and the waypoint of a backend: those given, and the pods that are seen of the edge's namespace and of its
// other backends.
func (m *maker) strangers(b *backend, given []spiffeid.ID) []spiffeid.ID {
	known := m.waypointIDs(b.waypoint)
	for _, g := range m.gateways {
		known = append(known, parseIDs(g.identities(m.trustDomain()))...)
	}
	seen := m.sightings()
	for id, n := range seen.times {
		if slices.Contains(seen.of[b], id) {
			n--
		}
		if n > 0 {
			given = append(given, id)
		}
	}
	slices.SortFunc(given, func(a, b spiffeid.ID) int { return cmp.Compare(a.String(), b.String()) })
	return slices.DeleteFunc(slices.Compact(given), func(id spiffeid.ID) bool { return slices.Contains(known, id) })
}

// sightings are the identities of pods that are seen, in how many places: the edge's namespace, and each of its backends, which have those of of.
type sightings struct {
	times map[spiffeid.ID]int
	of    map[*backend][]spiffeid.ID
}

// sightings are made once, as every backend asks for those of all others.
func (m *maker) sightings() *sightings {
	if m.sighted != nil {
		return m.sighted
	}
	m.sighted = &sightings{map[spiffeid.ID]int{}, map[*backend][]spiffeid.ID{}}
	see := func(pods []*Pod) []spiffeid.ID {
		ids := map[spiffeid.ID]bool{}
		for _, p := range pods {
			if alive(p) && m.guarded(p) {
				for _, id := range parseIDs([]string{identity(m.trustDomain(), p)}) {
					ids[id] = true
				}
			}
		}
		for id := range ids {
			m.sighted.times[id]++
		}
		return slices.Collect(maps.Keys(ids))
	}
	var near []*Pod
	for i := range m.Pods {
		if m.Pods[i].Namespace == m.Edge.Namespace {
			near = append(near, &m.Pods[i])
		}
	}
	see(near)
	for _, b := range m.backends {
		if !m.concealed(b.key.Namespace) {
			m.sighted.of[b] = see(m.podsWith(b.key.Namespace, b.service.Spec.Selector))
		}
	}
	return m.sighted
}

// unique are texts in order, each once.
func unique(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}
