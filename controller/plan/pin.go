package plan

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	securityapi "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge/rules"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// A pin keeps a header that the gateways write from everybody else: at the waypoint it denies a request that has the header and does not come from them. It
// proves something only where a client outside cannot send the header through them, so that it is made where every one of their routes takes it away or
// overwrites it, and all that they do is understood. One that stands is not taken away because that has changed: others would get in by the header again.

// pins adds the steps that pin headers. They come before their Service is led to its waypoint.
func (m *maker) pins() {
	if !m.Edge.Pins() {
		return
	}
	for _, x := range m.pairings {
		m.about(x.itself(), func() { m.pinOne(x) })
	}
}

func (m *maker) pinOne(x *pairing) {
	stands := m.policyAt(m.pairKey(x.backend, pairPin))
	if stands != nil && !m.created(stands) {
		stands = nil // another has its name, which pairStep tells
	}
	headers := m.headersToPin(x, pinnedBy(stands))
	if len(headers) == 0 {
		return
	}
	var ids []string
	for _, g := range m.gateways {
		ids = append(ids, g.identities(m.trustDomain())...)
	}
	ports := httpPorts(x)
	switch p := m.sharer(ids); {
	case stands == nil && len(ports) == 0:
		m.notPinned(x, headers, "its waypoint reads no requests: none of its ports is of HTTP by name or appProtocol", "name the port http, or give it appProtocol http")
		return
	case stands == nil && len(ids) == 0:
		m.notPinned(x, headers, "no gateway has pods to tell its identity", "start its pods")
		return
	case p != nil:
		m.notPinned(x, headers, fmt.Sprintf("%s has the gateway's service account, and may write them too", object("Pod", keyOf(p))), "give the gateway a service account of its own")
		if stands == nil {
			return
		}
	}
	x.pin = m.pinFor(x, headers, ids, ports)
	if stands != nil && (len(ids) == 0 || len(ports) == 0) {
		x.pin.Spec.Rules = stands.Spec.GetRules() // what it should be is not known now
	}
	s := Step{part: partPair, of: x.itself(), Step: v1alpha1.Step{
		Verb: VerbPair, Object: object("AuthorizationPolicy", keyOf(x.pin)), State: v1alpha1.StepNext,
		Reason: fmt.Sprintf("have waypoint %s deny requests with %s that do not come from the gateway, whoever sends them", x.waypoint, listed(headers)),
	}}
	m.pairStep(&s, x, x.pin, pairPin)
	if stands != nil {
		m.add(s) // it follows the gateway, and waits for nothing before
		return
	}
	m.add(s, partEnrol, partWaypoint)
}

// pinFor is the policy of a pin: a rule for each header.
func (m *maker) pinFor(x *pairing, headers, ids, ports []string) *securityv1.AuthorizationPolicy {
	var principals []string
	for _, id := range ids {
		principals = append(principals, strings.TrimPrefix(id, "spiffe://"))
	}
	principals = unique(principals)
	var list []*securityapi.Rule
	for _, h := range headers {
		list = append(list, &securityapi.Rule{
			From: []*securityapi.Rule_From{{Source: &securityapi.Source{NotPrincipals: principals}}},
			To:   []*securityapi.Rule_To{{Operation: &securityapi.Operation{Ports: ports}}},
			When: []*securityapi.Condition{{Key: "request.headers[" + h + "]", Values: []string{"*"}}},
		})
	}
	return m.atService(x.backend, pairPin, securityapi.AuthorizationPolicy_DENY, list)
}

// httpPorts are the ports of a Service at which a waypoint reads requests. At others it would leave the header out of a rule that denies, and deny all.
func httpPorts(x *pairing) (list []string) {
	for i := range x.service.Spec.Ports {
		if p := x.service.Spec.Ports[i].Port; SpeaksHTTP(x.service, p) {
			list = append(list, strconv.Itoa(int(p)))
		}
	}
	return unique(list)
}

// pinnedBy are the headers of a pin, in order. Nil has none.
func pinnedBy(p *securityv1.AuthorizationPolicy) (list []string) {
	if p == nil {
		return nil
	}
	for _, r := range p.Spec.GetRules() {
		for _, when := range r.GetWhen() {
			if name, is := policy.HeaderOf(when.GetKey()); is {
				list = append(list, name)
			}
		}
	}
	return unique(list)
}

// headersToPin are those by which policies at a waypoint let in, and that only the gateways are to write. stands are those that are pinned already.
func (m *maker) headersToPin(x *pairing, stands []string) (list []string) {
	trusted := m.trusted(x)
	for _, h := range slices.Sorted(maps.Keys(trusted)) {
		t := trusted[h]
		if len(t.by) == 0 {
			continue // all that let in by it name the gateways
		}
		is := slices.Contains(stands, h)
		written, why, fix := m.writes(x, h)
		if !written && !is && why == "" {
			continue // it is none of the gateways'
		}
		if everyRequestHas(h) {
			m.notPinned(x, []string{h}, "proxies write it to every request, and a pin would deny everybody but the gateway", "have the policies that let in by it name who may write it")
			continue
		}
		if other := m.pinnedBefore(x, h); other != "" {
			m.notPinned(x, []string{h}, other+" pins it to its own gateways, which would deny these", "have one AmbientEdge alone send to this Service, or pin")
			continue
		}
		switch {
		case !written && why == "":
			why, fix = "the gateway does not write it any more", "have the policies that let in by it name who may write it"
		case why != "":
		case len(t.others) > 0:
			why, fix = fmt.Sprintf("%s lets %s in by it too, and a pin would deny that", t.by[0], listed(t.others)), "have that policy let in by something else, or take the principal from it"
		case len(m.sendToo(x)) > 0:
			why = fmt.Sprintf("AmbientEdge %s sends to this Service too, and a pin would deny its gateways the header", listed(m.sendToo(x)))
			fix = "have one AmbientEdge alone send to this Service"
		default:
			why, fix = m.comesThrough(x, h)
		}
		switch {
		case why == "":
		case !is:
			m.notPinned(x, []string{h}, why, fix)
			continue
		default:
			m.notPinned(x, []string{h}, why, fix)
			f := &m.plan.Findings[len(m.plan.Findings)-1]
			f.Message = fmt.Sprintf("header %s is pinned to the gateway, and would not be as things are: %s; it stays pinned, as %s lets in by it", h, why, t.by[0])
		}
		list = append(list, h)
	}
	return list
}

// everyRequestHas says whether a waypoint sees a header, in lower case, with every request, or writes it itself before its policies are asked.
func everyRequestHas(header string) bool {
	return strings.HasPrefix(header, ":") || strings.HasPrefix(header, "x-forwarded-") || strings.HasPrefix(header, "x-envoy-") || slices.Contains([]string{"host", "x-request-id"}, header)
}

// notPinned finds headers that are not pinned.
func (m *maker) notPinned(x *pairing, headers []string, why, fix string) {
	m.found(v1alpha1.Finding{
		Code: v1alpha1.FindingNotPinned, Severity: v1alpha1.SeverityWarning, Object: x.String(),
		Message: fmt.Sprintf("authorization.pair.headers Pin is asked for, and who calls this Service from inside the mesh may write %s, by which a policy at its waypoint lets in: it is not pinned, as %s", listed(headers), why),
		Fix:     fix,
	})
}

// trust is of a header by which policies let in.
type trust struct {
	by     []string // policies that do so whoever has written it
	others []string // principals that policies name as those who write it, besides the gateways'
}

// trusted are the headers by which the policies at a backend's waypoint let in: a value is asked for to be allowed, or not to be denied.
func (m *maker) trusted(x *pairing) map[string]*trust {
	all := map[string]*trust{}
	for _, p := range m.policiesAt(m.atWaypoint(x.waypoint, x.key)) {
		if _, role := pairedFor(p); role != "" || dryRun(p) {
			continue
		}
		for _, r := range p.Spec.GetRules() {
			for _, when := range r.GetWhen() {
				values := when.GetValues()
				if p.Spec.GetAction() == securityapi.AuthorizationPolicy_DENY {
					values = when.GetNotValues()
				}
				name, is := policy.HeaderOf(when.GetKey())
				if !is || len(values) == 0 {
					continue
				}
				if all[name] == nil {
					all[name] = &trust{}
				}
				m.trustedBy(all[name], p, r)
			}
		}
	}
	return all
}

// trustedBy notes whom a rule takes a header from. Of a namespace that has not consented it tells nothing.
func (m *maker) trustedBy(t *trust, p *securityv1.AuthorizationPolicy, r *securityapi.Rule) {
	by, told := "a policy at the waypoint", m.consents(p.Namespace, "", "Service")
	if told {
		by = object("AuthorizationPolicy", keyOf(p))
	}
	names, whole := writersOf(r, p.Namespace, m.trustDomain())
	if !whole {
		t.by = unique(append(t.by, by))
		return
	}
	for _, g := range m.gateways {
		names = slices.DeleteFunc(names, func(name string) bool { return slices.Contains(g.identities(m.trustDomain()), "spiffe://"+name) })
	}
	if len(names) == 0 {
		return
	}
	if !told {
		names = []string{"others"}
	}
	t.by, t.others = unique(append(t.by, by)), unique(append(t.others, names...))
}

// writersOf are the principals that a rule is about; whole: it is about no others.
func writersOf(r *securityapi.Rule, namespace, trustDomain string) (names []string, whole bool) {
	for _, from := range r.GetFrom() {
		s := from.GetSource()
		one := slices.Clone(s.GetPrincipals())
		for _, account := range qualified(s.GetServiceAccounts(), namespace) {
			ns, name, _ := strings.Cut(account, "/")
			one = append(one, fmt.Sprintf("%s/ns/%s/sa/%s", trustDomain, ns, name))
		}
		if len(one) == 0 {
			return nil, false
		}
		names = append(names, one...)
	}
	for _, when := range r.GetWhen() {
		if when.GetKey() == "source.principal" && len(when.GetValues()) > 0 && len(r.GetFrom()) == 0 {
			names = append(names, when.GetValues()...)
		}
	}
	return names, len(names) > 0 && !slices.ContainsFunc(names, func(name string) bool { return strings.Contains(name, "*") })
}

// writes says whether the gateways write a header of their own accord on a way to a backend; why: that is not known.
func (m *maker) writes(x *pairing, header string) (is bool, why, fix string) {
	for _, w := range m.ways() {
		if w.route != nil && w.service != x.key {
			continue
		}
		for _, from := range rules.Origins(w.rules, header) {
			if from != rules.FromRequest && from != rules.FromToken {
				return true, "", ""
			}
		}
		if w.unseen != "" && why == "" {
			why = fmt.Sprintf("whether the gateway writes it is not known: %s: %s", w, w.unseen)
			fix = "have the policies that let in by it name who may write it"
		}
	}
	return false, why, fix
}

// comesThrough says by which way of the gateways a client's own header may come through, or "". What passes bytes on counts where it leads to the backend itself.
func (m *maker) comesThrough(x *pairing, header string) (why, fix string) {
	fix = fmt.Sprintf("take %s away at the gateway itself, before any route, or by a RequestHeaderModifier filter there", header)
	for _, w := range m.ways() {
		if w.route != nil && (w.route.kind == "TCPRoute" || w.route.kind == "TLSRoute") && w.service != x.key {
			continue
		}
		fromClient := slices.ContainsFunc(rules.Origins(w.rules, header), func(from rules.Origin) bool { return from == rules.FromRequest || from == rules.FromToken })
		switch {
		case w.unseen != "":
			return fmt.Sprintf("a client's own may come through by %s: %s", w, w.unseen), fix
		case fromClient:
			return fmt.Sprintf("by %s its value is of what the client sends", w), fix
		case rules.Clean(w.rules, header) != rules.Yes:
			return fmt.Sprintf("a client's own comes through by %s", w), fix
		}
	}
	return "", ""
}

// sendToo are other AmbientEdges that lead to a backend, as what they have written there tells.
func (m *maker) sendToo(x *pairing) (list []string) {
	for _, f := range x.service.ManagedFields {
		if owner, is := strings.CutPrefix(f.Manager, v1alpha1.FieldOwnerPrefix); is && owner != m.Edge.Owner() {
			list = append(list, owner)
		}
	}
	for _, p := range m.policiesIn(x.key.Namespace) {
		owner := p.Labels[v1alpha1.LabelOwner]
		if of, role := pairedFor(p); owner != "" && owner != m.Edge.Owner() && (role != "" && of == x.key || isLock(p) && lockedBy(p) == x.key) {
			list = append(list, owner)
		}
	}
	return unique(list)
}

// pinnedBefore is another AmbientEdge that has pinned a header of a backend and comes before this one, or "": two pins deny each other's gateways.
func (m *maker) pinnedBefore(x *pairing, header string) string {
	stands := m.policyAt(m.pairKey(x.backend, pairPin))
	for _, p := range m.policiesIn(x.key.Namespace) {
		owner := p.Labels[v1alpha1.LabelOwner]
		of, role := pairedFor(p)
		if role != pairPin || of != x.key || owner == "" || owner == m.Edge.Owner() || !slices.Contains(pinnedBy(p), header) {
			continue
		}
		if stands == nil || !slices.Contains(pinnedBy(stands), header) || owner < m.Edge.Owner() {
			return "AmbientEdge " + owner
		}
	}
	return ""
}
