package check

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	securityapi "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge/rules"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

func edgeAddressChecks() []Check {
	worse, degrades := v1alpha1.SeverityError, v1alpha1.SeverityWarning
	return []Check{
		{
			Code: "ISM515", Title: "a client outside chooses the address that the mesh lets in", Severities: []v1alpha1.Severity{worse, degrades},
			Pains:  []string{"B6", "EH07"},
			Matter: "A policy at the waypoint lets clients' addresses in (remoteIpBlocks), and a gateway passes X-Forwarded-For on as clients send it.",
			Harm:   "Anybody outside gets in by sending an address that is let in.",
			Fix:    "Let the gateway append or replace X-Forwarded-For.",
			Find:   findChosenOutside,
		},
		{
			Code: "ISM516", Title: "the mesh sees a balancer's address in place of the client's", Severities: []v1alpha1.Severity{degrades},
			Pains:  []string{"B6", "EH08"},
			Matter: "A policy at the waypoint compares clients' addresses (remoteIpBlocks), and the gateway stands behind proxies that write X-Forwarded-For.",
			Harm:   "The waypoint takes the last entry, which is the balancer: an ALLOW never matches, a DENY neither.",
			Fix:    "Compare clients' addresses at the gateway, which knows how many proxies stand before it.",
			Find:   findBalancers,
		},
		{
			Code: "ISM517", Title: "a list of addresses at one gateway alone", Severities: []v1alpha1.Severity{degrades, v1alpha1.SeverityInfo},
			Pains:  []string{"B15", "EH10"},
			Matter: "A gateway lets some addresses in, and the Service behind it is reached by another gateway without that list, or by everybody in the mesh.",
			Harm:   "Who goes another way is not asked.",
			Fix:    "Have a policy at the waypoint admit that gateway alone.",
			Find:   findAddressesAtOneEdge,
		},
	}
}

// compared is a condition on clients' addresses.
type compared struct {
	policy *securityv1.AuthorizationPolicy
	rule   *securityapi.Rule
	field  string
	blocks []string
}

// addresses are the conditions on clients' addresses.
func (s *meshSide) addresses() []compared {
	var list []compared
	for _, p := range s.policies {
		for i, r := range p.Spec.Rules {
			for j, from := range r.GetFrom() {
				if blocks := from.GetSource().GetRemoteIpBlocks(); len(blocks) > 0 {
					list = append(list, compared{p, r, fmt.Sprintf("spec.rules[%d].from[%d].source.remoteIpBlocks", i, j), blocks})
				}
			}
			for j, when := range r.GetWhen() {
				if when.GetKey() == "remote.ip" && len(when.GetValues()) > 0 {
					list = append(list, compared{p, r, fmt.Sprintf("spec.rules[%d].when[%d]", i, j), when.GetValues()})
				}
			}
		}
	}
	return list
}

// address is one of a block.
func address(block string) (netip.Addr, bool) {
	if p, err := netip.ParsePrefix(block); err == nil {
		return p.Addr(), true
	}
	a, err := netip.ParseAddr(block)
	return a, err == nil
}

func findChosenOutside(w *World, found func(Finding)) {
	for t := range w.trips() {
		m, r := t.mesh(w), t.forwarded()
		if m == nil || r == nil || r.Forwarded.For != rules.Passes || t.passes("x-forwarded-for") != rules.Yes {
			continue
		}
		for _, c := range m.addresses() {
			if c.policy.Spec.Action != securityapi.AuthorizationPolicy_ALLOW {
				continue
			}
			ip, ok := address(c.blocks[0])
			if !ok || !slices.ContainsFunc(t.requests(w, m), func(q policy.Request) bool {
				q.RemoteIP = policy.Of(ip)
				return m.point.Decide(&q).Verdict != policy.Deny
			}) {
				continue
			}
			f := Finding{
				Object: decidingObject(c.policy), Field: c.field,
				Related: []Object{t.edge.object(), ruleObject(t.route), ServiceObject(m.service)},
				Message: fmt.Sprintf("%s passes X-Forwarded-For on to %s as clients send it: anybody outside gets in by sending %s", t.edge.View.String(),
					ServiceObject(m.service), ip),
				Fix: fmt.Sprintf("let %s append or replace X-Forwarded-For, or compare addresses there", t.edge.View.String()),
			}
			if r.Object.Name != "" {
				f.Related = append(f.Related, ruleObject(r.Object))
				f.Fix += fmt.Sprintf(" (%s of %s)", r.Field, ruleObject(r.Object))
			}
			t.severity(w, &f, false)
			if r.Object.Name == "" {
				f.Severity = v1alpha1.SeverityWarning // what a kind of gateways does is known of some version of it
			}
			found(f)
		}
	}
}

func findBalancers(w *World, found func(Finding)) {
	for t := range w.trips() {
		m, r := t.mesh(w), t.forwarded()
		if m == nil || r == nil || r.Forwarded.For != rules.Appends || r.Forwarded.TrustedHops == 0 && len(r.Forwarded.TrustedSources) == 0 {
			continue
		}
		for _, c := range m.addresses() {
			if among(c.blocks, r.Forwarded.TrustedSources) {
				continue
			}
			found(Finding{
				Object: decidingObject(c.policy), Field: c.field, Related: []Object{ruleObject(r.Object), ruleObject(t.route), ServiceObject(m.service)},
				Message: fmt.Sprintf("%s stands behind proxies of its own, and appends their address to X-Forwarded-For: "+
					"that one, and not the client's, is compared for %s", t.edge.View.String(), ServiceObject(m.service)),
				Fix: fmt.Sprintf("compare clients' addresses at %s, and admit its principal here", t.edge.View.String()),
			})
		}
	}
}

// among says whether blocks have an address of others.
func among(blocks, others []string) bool {
	for _, b := range blocks {
		p, err := netip.ParsePrefix(b)
		for _, o := range others {
			if a, ok := address(o); b == o || ok && err == nil && p.Contains(a) {
				return true
			}
		}
	}
	return false
}

func findAddressesAtOneEdge(w *World, found func(Finding)) {
	ways := w.waysPast(asks)
	for t := range w.trips() {
		i := slices.IndexFunc(t.rules, func(r *rules.Rule) bool {
			return r.IPs != nil && len(r.Unknown) == 0 && len(r.IPs.Allow) > 0 && !r.IPs.AllowOthers && !r.IPs.Else
		})
		if i < 0 || w.guarded(t) {
			continue
		}
		by := t.rules[i]
		f := Finding{Object: ruleObject(by.Object), Field: by.Field, Related: []Object{ruleObject(t.route)}, Severity: v1alpha1.SeverityInfo}
		s := ServiceObject(w.Service(t.service))
		f.Message = fmt.Sprintf("it asks for clients' addresses at %s alone: everybody in the mesh gets to %s without", t.edge.View.String(), s)
		for _, other := range ways[t.service] {
			if other.edge != t.edge {
				f.Severity = v1alpha1.SeverityWarning
				f.Related = append(f.Related, ruleObject(other.route))
				f.Message = fmt.Sprintf("it asks for clients' addresses at %s alone: %s leads to %s too, and asks nothing",
					t.edge.View.String(), other.edge.View.String(), s)
				break
			}
		}
		f.Fix = fmt.Sprintf("have a policy at the waypoint of %s admit %s alone", s, t.edge.View.String())
		found(f)
	}
}

// waysPast are trips to each Service on which no rule is of a kind, as far as can be seen: one of each gateway.
func (w *World) waysPast(is func(*rules.Rule) bool) map[types.NamespacedName][]*trip {
	ways := map[types.NamespacedName][]*trip{}
	for t := range w.trips() {
		list := ways[t.service]
		if n := len(list); (n == 0 || list[n-1].edge != t.edge) && !t.open && len(t.having(is)) == 0 {
			ways[t.service] = append(list, t)
		}
	}
	return ways
}

// guarded says whether policies for the Service of a trip tell callers of the mesh apart: a stranger does not get in, whatever it sends, or nobody can tell.
// Pods behind a waypoint that is in force see the waypoint, whoever calls: what they ask tells nobody apart.
func (w *World) guarded(t *trip) bool {
	ix := w.edgeWorld().mesh
	return ix.guarded.of(t.service, func() bool {
		stranger := policy.Request{Source: policy.Of(w.stranger()), Token: policy.Absent[policy.Token]()}
		m := ix.side(t.service)
		if m != nil && m.point.Decide(&stranger).Verdict != policy.Allow {
			return true
		}
		return (m == nil || !m.there) && w.guardedAtPods(t.service)
	})
}

// guardedAtPods says whether policies at the pods of a Service may refuse a stranger. Of a Service without pods, or outside the mesh, nobody knows.
func (w *World) guardedAtPods(key types.NamespacedName) bool {
	pods := w.PodsOf(w.Service(key))
	if len(pods) == 0 || !w.InMesh(pods[0]) {
		return true
	}
	set := policy.New(policy.Mesh{
		AuthorizationPolicies: slices.Concat(w.PoliciesIn(key.Namespace), w.PoliciesIn(w.Root())), RootNamespace: w.Root(), TrustDomain: w.Mesh.TrustDomain,
	})
	at := set.Ztunnel(policy.Workload{Namespace: pods[0].Namespace, Labels: pods[0].Labels})
	return at.Decide(&policy.Request{Source: policy.Of(w.stranger())}).Verdict != policy.Allow
}

// asks says whether a rule asks who it is.
func asks(r *rules.Rule) bool {
	return r.JWT != nil || r.Login != nil || r.Credentials != nil || r.ExtAuth != nil || r.Access != nil || r.IPs != nil
}

// gammaObject names a route of the mesh.
func gammaObject(r *gatewayv1.HTTPRoute) Object {
	return Object{gatewayv1.GroupName, "HTTPRoute", types.NamespacedName{Namespace: r.Namespace, Name: r.Name}}
}

// commas lists names.
func commas(list []string) string { return strings.Join(list, ", ") }
