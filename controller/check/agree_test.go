package check

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// TestChecksAndPlansAgreeOnWhatAWaypointVoids: of policies of any kind at the pods of a Service that leads to a waypoint, and at that waypoint. What a check
// finds a plan does too; and what a plan alone finds lets in by the waypoint whom pods merely do not name, beside others whom they do.
func TestChecksAndPlansAgreeOnWhatAWaypointVoids(t *testing.T) {
	text, err := os.ReadFile("testdata/ISM205-gateway-and-waypoint-and-all-others.yaml")
	if err != nil {
		t.Fatal(err)
	}
	base, _, _ := strings.Cut(string(text), "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy")
	checks := slices.DeleteFunc(All(), func(c Check) bool { return c.Code != v1alpha1.FindingVoided })
	random := rand.New(rand.NewPCG(205, 500))
	both, neither, plans := 0, 0, 0
	for i := range 600 {
		in := base + policiesAtPods(random)
		w := worldOf(t, in)
		found := Run(w, checks)
		views := w.Views()
		if len(views) != 1 || len(views[0].Backends) != 1 {
			t.Fatalf("the gateway sends nowhere: %+v", views)
		}
		planned := slices.ContainsFunc(views[0].Findings, func(f v1alpha1.Finding) bool { return f.Code == v1alpha1.FindingVoided })
		switch _, policies, _ := strings.Cut(in, base); {
		case len(found) > 0 && planned:
			both++
		case len(found) > 0:
			t.Errorf("%d: a check finds what plans do not:\n%s\n%s", i, policies, say(found))
		case !planned:
			neither++
		default:
			plans++
			for _, f := range views[0].Findings {
				if f.Code == v1alpha1.FindingVoided && (!strings.Contains(f.Message, "nothing refuses that caller for sure") || !strings.Contains(policies, "sa/waypoint") &&
					!strings.Contains(policies, "namespaces: [shop]") && strings.Contains(policies, "action: DENY")) {
					t.Errorf("%d: a plan finds what no check does:\n%s\n%s", i, policies, f.Message)
				}
			}
		}
	}
	t.Logf("both find %d, neither %d, plans alone %d", both, neither, plans)
	if both < 50 || neither < 50 || plans == 0 {
		t.Error("these policies are too much alike")
	}
}

// policiesAtPods are some, for pods and for their waypoint.
func policiesAtPods(random *rand.Rand) string {
	one := func(list ...string) string { return list[random.IntN(len(list))] }
	var all []string
	for i := range 1 + random.IntN(3) {
		var rules []string
		for range 1 + random.IntN(2) {
			rule := fmt.Sprintf("from: [{source: {%s}}]", one(
				"principals: [cluster.local/ns/edge/sa/http-istio]", "principals: [cluster.local/ns/shop/sa/waypoint]",
				"principals: [cluster.local/ns/edge/sa/http-istio, cluster.local/ns/shop/sa/waypoint]", "principals: [cluster.local/ns/batch/sa/job]",
				"notPrincipals: [cluster.local/ns/shop/sa/waypoint]", "namespaces: [shop]", "namespaces: [batch]", "notNamespaces: [batch]",
				`ipBlocks: ["10.0.0.0/8"]`, `principals: ["*"]`,
			))
			if port := one("8080", "9090", ""); port != "" {
				rule += fmt.Sprintf(`, to: [{operation: {ports: ["%s"]}}]`, port)
			}
			rules = append(rules, "{"+rule+"}")
		}
		all = append(all, fmt.Sprintf("{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {namespace: shop, name: p%d}, spec: {%s, action: %s, rules: [%s]}}\n",
			i, one("selector: {matchLabels: {app: orders}}", "selector: {matchLabels: {app: orders}}", `targetRefs: [{group: "", kind: Service, name: orders}]`),
			one("ALLOW", "DENY"), strings.Join(rules, ", ")))
	}
	return strings.Join(all, "---\n")
}
