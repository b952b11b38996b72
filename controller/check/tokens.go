package check

import (
	"fmt"
	"slices"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// tokenChecks are about JWTs: RequestAuthentications, and the policies that ask for tokens.
func tokenChecks() []Check {
	return []Check{
		{
			Code: "ISM235", Title: "a policy asks for tokens where nobody reads them", Severities: both(), Pains: []string{"B7", "EJ02"},
			Matter: "A policy at a waypoint has requestPrincipals or request.auth conditions, and no RequestAuthentication is at the same waypoint for the same " +
				"Service. One at the gateway does not count.",
			Harm: "No token is ever seen: an ALLOW refuses everybody, and so does a DENY of who has none.",
			Fix:  "Attach a RequestAuthentication to the same Service, and have the gateway forward the token.",
			Find: findUnreadTokens,
		},
		{
			Code: "ISM236", Title: "a RequestAuthentication is attached to pods, and nobody enforces it", Severities: both(), Pains: []string{"B7"},
			Matter: "A RequestAuthentication is attached by selector or namespace to pods before which ztunnel stands, which reads no requests.",
			Harm:   "Tokens are not looked at: forged ones and expired ones get through.",
			Fix:    "Attach it to the Service by targetRefs, so that its waypoint enforces it.",
			Find:   findIgnoredAuthentications,
		},
		{
			Code: "ISM237", Title: "tokens are checked and not asked for", Severities: []v1alpha1.Severity{v1alpha1.SeverityWarning, v1alpha1.SeverityInfo},
			Pains:  []string{"B7", "EJ05"},
			Matter: "A RequestAuthentication at a waypoint refuses bad tokens, and no policy there asks for one.",
			Harm:   "Who sends no token at all gets through.",
			Fix:    "Add an AuthorizationPolicy with requestPrincipals for the same Service.",
			Find:   findOptionalTokens,
		},
	}
}

// servedFor are the Services that a waypoint enforces a policy for, with the waypoint. Those that targetRefs name, or that lead to what they name.
func (w *World) servedFor(namespace string, spec targeting) (list []*corev1.Service) {
	for _, r := range targetRefsOf(spec) {
		key := objectKey(namespace, r.GetName())
		switch r.GetKind() {
		case policy.KindService:
			if s := w.services[key]; s != nil {
				if _, ok := w.leadsTo(s); ok {
					list = append(list, s)
				}
			}
		case policy.KindGateway:
			list = append(list, w.guard().led[key]...)
		}
	}
	return list
}

// tokensRead says whether a RequestAuthentication is at the waypoint of a Service, for it.
func (w *World) tokensRead(s *corev1.Service) bool {
	waypoint, _ := w.leadsTo(s)
	g := w.guard()
	return len(g.tokens[policy.Target{Kind: policy.KindService, Namespace: s.Namespace, Name: s.Name}])+
		len(g.tokens[policy.Target{Kind: policy.KindGateway, Namespace: waypoint.Namespace, Name: waypoint.Name}])+
		len(g.tokens[policy.Target{Kind: "GatewayClass", Namespace: w.Root(), Name: policy.WaypointClass}]) > 0
}

func findUnreadTokens(w *World, found func(Finding)) {
	for _, p := range w.Policies {
		fields := slices.DeleteFunc(lists(p), func(l listed) bool { return !l.ofToken() })
		if len(fields) == 0 || len(targetRefsOf(&p.Spec)) == 0 {
			continue
		}
		for _, s := range w.servedFor(p.Namespace, &p.Spec) {
			if w.tokensRead(s) {
				continue
			}
			l := &fields[0]
			found(Finding{
				Severity: w.ifWhole(), Object: accessObject(p), Field: l.field, Related: []Object{ServiceObject(s)},
				Message: fmt.Sprintf("no RequestAuthentication is at the waypoint of Service %s/%s, so that no token is ever seen there: %s", s.Namespace, s.Name,
					effect(p, l)),
				Fix: fmt.Sprintf("create a RequestAuthentication in namespace %s with the issuer and targetRefs: [{group: \"\", kind: Service, name: %s}]; and have "+
					"the gateway forward the token",
					s.Namespace, s.Name),
			})
			break // one is enough
		}
	}
}

func findIgnoredAuthentications(w *World, found func(Finding)) {
policies:
	for _, p := range w.RequestAuthentications {
		if len(targetRefsOf(&p.Spec)) > 0 || p.Namespace == w.Root() || w.podUnder(p.Namespace, p.Spec.Selector) == nil {
			continue
		}
		for _, pod := range w.pods[p.Namespace] {
			if !w.ztunnelBefore(pod) && has(pod.Labels, p.Spec.GetSelector().GetMatchLabels()) {
				continue policies // a proxy of its own may enforce it
			}
		}
		f := Finding{
			Severity: v1alpha1.SeverityError, Object: securityObject(kindRequestAuthentication, p), Field: "spec.selector",
			Message: fmt.Sprintf("ztunnel stands before %s and reads no requests: nobody looks at tokens", w.selectorText(p.Namespace, p.Spec.Selector)),
			Fix:     w.attachInstead(p.Namespace, p.Spec.Selector),
		}
		if p.Spec.Selector == nil {
			f.Severity, f.Field = v1alpha1.SeverityWarning, "spec"
		}
		found(f)
	}
}

func findOptionalTokens(w *World, found func(Finding)) {
	for _, p := range w.RequestAuthentications {
		if used(p) {
			continue
		}
		for _, s := range w.servedFor(p.Namespace, &p.Spec) {
			waypoint, _ := w.leadsTo(s)
			if w.asksForTokens(waypoint, s) {
				continue
			}
			f := Finding{
				Severity: v1alpha1.SeverityWarning, Object: securityObject(kindRequestAuthentication, p), Field: "spec.jwtRules", Related: []Object{ServiceObject(s)},
				Message: fmt.Sprintf("bad tokens for Service %s/%s are refused, and no policy at waypoint %s asks for one: who sends none gets through", s.Namespace,
					s.Name, waypoint),
				Fix: "add an AuthorizationPolicy for the same Service whose rules have requestPrincipals: [\"*\"]",
			}
			if w.Paper {
				f.Severity = v1alpha1.SeverityInfo
			}
			found(f)
			break
		}
	}
}

// used says whether tokens are for something else than to be asked for: what they say, or they themselves, go on to the Service.
func used(p *securityv1.RequestAuthentication) bool {
	for _, r := range p.Spec.JwtRules {
		if r.GetForwardOriginalToken() || r.GetOutputPayloadToHeader() != "" || len(r.GetOutputClaimToHeaders()) > 0 {
			return true
		}
	}
	return len(p.Spec.JwtRules) == 0
}

// asksForTokens says whether a policy at a waypoint depends on tokens, or leaves the decision to somebody else.
func (w *World) asksForTokens(waypoint types.NamespacedName, s *corev1.Service) bool {
	return slices.ContainsFunc(w.behind(waypoint, objectKey(s.Namespace, s.Name)).Policies(), func(ref policy.Ref) bool {
		p := w.guard().byRef[ref]
		return p != nil && (p.Spec.Action == actionCustom || slices.ContainsFunc(lists(p), func(l listed) bool { return l.ofToken() }))
	})
}
