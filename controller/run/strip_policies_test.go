package run

import (
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	securityapi "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// TestCachesKeepWhatPoliciesDecide strips policies as caches do: what is left decides as the whole.
func TestCachesKeepWhatPoliciesDecide(t *testing.T) {
	who := &securityv1.AuthorizationPolicy{Spec: securityapi.AuthorizationPolicy{
		Action: securityapi.AuthorizationPolicy_DENY,
		Rules:  []*securityapi.Rule{{From: []*securityapi.Rule_From{{Source: &securityapi.Source{Namespaces: []string{"batch"}}}}}},
	}}
	who.Namespace, who.Name = "shop", "no-batch"
	tokens := &securityv1.RequestAuthentication{Spec: securityapi.RequestAuthentication{JwtRules: []*securityapi.JWTRule{{Issuer: "a", Jwks: "keys"}}}}
	for _, o := range []any{who, tokens} {
		if _, err := strip(o); err != nil {
			t.Fatal(err)
		}
	}
	if r := tokens.Spec.JwtRules; len(r) != 1 || r[0].GetIssuer() != "a" || r[0].GetJwks() != "" {
		t.Errorf("of a RequestAuthentication there is %v", r)
	}
	set := policy.New(policy.Mesh{AuthorizationPolicies: []*securityv1.AuthorizationPolicy{who}})
	at := set.Ztunnel(policy.Workload{Namespace: "shop"})
	for ns, want := range map[string]policy.Verdict{"batch": policy.Deny, "edge": policy.Allow} {
		if d := at.Decide(&policy.Request{Source: policy.Of(spiffeid.RequireFromString("spiffe://cluster.local/ns/" + ns + "/sa/x"))}); d.Verdict != want {
			t.Errorf("a caller of namespace %s: %v", ns, d)
		}
	}
}
