package run

import (
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	metaapi "istio.io/api/meta/v1alpha1"
	securityapi "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
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
	ours := who.DeepCopy()
	ours.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: v1alpha1.FieldOwnerPrefix + "edge.public"}}
	for _, p := range []*securityv1.AuthorizationPolicy{who, ours} {
		p.Status.Conditions = []*metaapi.IstioCondition{{Type: "ZtunnelAccepted", Status: "True"}}
	}
	for _, o := range []any{who, tokens, ours} {
		if _, err := strip(o); err != nil {
			t.Fatal(err)
		}
	}
	if len(who.Status.Conditions) > 0 || len(ours.Status.Conditions) != 1 {
		t.Errorf("of what istiod says there is %v, and %v of a policy of ours", who.Status.Conditions, ours.Status.Conditions)
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
