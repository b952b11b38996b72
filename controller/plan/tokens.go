package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	securityapi "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// takesToken is a RequestAuthentication by which a gateway takes every token away that it lets pass, or nil: it is none, or nobody can be sure of it. That is
// read of Istio's own gateway alone. What other gateways do with tokens is in objects that plans do not read, and is found by checks.
func (m *maker) takesToken(g *gateway) *securityv1.RequestAuthentication {
	if g.vendor.Name != "istio" || g.object == nil || len(g.pods) == 0 {
		return nil
	}
	namespaces := unique([]string{g.key.Namespace, g.pods[0].Namespace, m.Root()})
	if len(m.extensionsIn(namespaces...)) > 0 {
		return nil // one of these may put it back
	}
	var by *securityv1.RequestAuthentication
	for _, r := range m.tokensIn(namespaces...) {
		if !m.authenticates(r, g) || len(r.Spec.GetJwtRules()) == 0 {
			continue
		}
		if slices.ContainsFunc(r.Spec.GetJwtRules(), func(j *securityapi.JWTRule) bool {
			return j.GetForwardOriginalToken() || elsewhere(j) || writesToken(j)
		}) {
			return nil
		}
		if by == nil {
			by = r
		}
	}
	return by
}

// authenticates says whether a RequestAuthentication is for all pods of a gateway, or names it.
func (m *maker) authenticates(r *securityv1.RequestAuthentication, g *gateway) bool {
	if len(r.Spec.GetTargetRefs()) > 0 || r.Spec.GetTargetRef() != nil {
		return targets(r, &r.Spec, g.key, "Gateway")
	}
	return !slices.ContainsFunc(g.pods, func(p *Pod) bool {
		labels := r.Spec.GetSelector().GetMatchLabels()
		return r.Namespace != p.Namespace && r.Namespace != m.Root() || len(labels) > 0 && !hasLabels(p.Labels, labels)
	})
}

// elsewhere says whether a rule looks for tokens in other places than clients have them by themselves.
func elsewhere(j *securityapi.JWTRule) bool {
	return len(j.GetFromHeaders())+len(j.GetFromParams())+len(j.GetFromCookies()) > 0
}

// writesToken says whether a rule writes something of its token where tokens are looked for.
func writesToken(j *securityapi.JWTRule) bool {
	names := []string{j.GetOutputPayloadToHeader()}
	for _, h := range j.GetOutputClaimToHeaders() {
		names = append(names, h.GetHeader())
	}
	return slices.ContainsFunc(names, func(name string) bool { return strings.EqualFold(name, "authorization") })
}

// tokenless finds a backend whose waypoint asks every request of a gateway for a token, which the gateway takes away: with one they may pass.
func (m *maker) tokenless(b *backend, g *gateway, who spiffeid.ID, point *policy.Point, request *policy.Request) {
	by := m.takesToken(g)
	if by == nil || slices.ContainsFunc(m.tokensIn(b.key.Namespace, b.waypoint.Namespace, m.Root()), func(r *securityv1.RequestAuthentication) bool {
		return slices.ContainsFunc(r.Spec.GetJwtRules(), elsewhere)
	}) {
		return
	}
	r := *request
	r.Token = policy.Absent[policy.Token]()
	d := point.Decide(&r)
	if d.Verdict != policy.Deny {
		return
	}
	obj, _ := m.decider(b, d, m.policiesAt(point))
	asks := obj + " asks"
	if obj == b.String() {
		asks = "a policy at the waypoint of " + obj + " asks"
	}
	f := v1alpha1.Finding{
		Code: v1alpha1.FindingTokenTaken, Severity: v1alpha1.SeverityWarning, Object: object("RequestAuthentication", keyOf(by)), Field: "spec.jwtRules",
		Message: fmt.Sprintf("%s takes the token away once it has checked it, and %s for one: every request of it to %s is answered with 403 at waypoint %s", g, asks, b, b.waypoint),
		Fix:     fmt.Sprintf("set forwardOriginalToken: true in its jwtRules; or let the policy ask for principal %s, and not for a token", short(who)),
	}
	if m.begins(b, g) {
		f.Severity = v1alpha1.SeverityError
		f.Message = fmt.Sprintf("%s takes the token away once it has checked it, and %s for one: every request of it to %s will be answered with 403 once waypoint %s enforces that", g, asks, b, b.waypoint)
	}
	m.once(f)
}
