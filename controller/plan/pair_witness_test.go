package plan_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

const witness = "isthmus-witness-666e4f4cfc92"

// pairUnled is the world in which twins and witness stand, the waypoint shows them, and the pods do not admit it yet.
func pairUnled(t *testing.T) string {
	t.Helper()
	return strings.Replace(without(pairDone(t), "name: "+admitTwin, "name: isthmus-lock-"), "labels: {istio.io/use-waypoint: waypoint}, managedFields", "managedFields", 1)
}

// TestNobodyIsAdmittedBeforeTheTwinsAreShown, nor led there, whatever else the world says.
func TestNobodyIsAdmittedBeforeTheTwinsAreShown(t *testing.T) {
	world := pairUnled(t)
	if p := plan.Make(snapshot(t, world)); policyStep(p, plan.VerbPair, admitTwin).State != v1alpha1.StepNext {
		t.Fatalf("with everything shown it is not admitted: %s", describe(p, snapshot(t, world).Edge))
	}
	foreign := func(at, rules, action string) string {
		return "\n---\n{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: foreign, namespace: " + at + "}, spec: {action: " + action +
			", targetRefs: [{group: gateway.networking.k8s.io, kind: KIND, name: NAME}], rules: " + rules + "}}"
	}
	gateway := func(text string) string {
		return strings.NewReplacer("KIND", "Gateway", "NAME", "waypoint").Replace(text)
	}
	class := func(text string) string {
		return strings.NewReplacer("KIND", "GatewayClass", "NAME", "istio-waypoint").Replace(text)
	}
	witnessService := "{apiVersion: v1, kind: Service, metadata: {name: " + witness
	for name, c := range map[string]struct {
		world   string
		change  func(*plan.Snapshot)
		finding string
	}{
		"nobody has asked":          {world: world, change: func(s *plan.Snapshot) { s.Shown = nil }},
		"it does not show":          {world: strings.Replace(world, witnessService+", namespace: shop,", witnessService+", namespace: shop, annotations: {test/hides: it refuses},", 1)},
		"it shows twins of before":  {world: strings.Replace(world, "uid: deny1, generation: 1", "uid: deny1, generation: 2", 1)},
		"a twin that was made anew": {world: strings.Replace(world, "uid: allow1", "uid: allow2", 1)},
		"a path of before was asked": {world: world, change: func(s *plan.Snapshot) {
			s.Shown = map[types.NamespacedName]plan.WitnessFact{{Namespace: "shop", Name: "waypoint"}: {WaypointFact: plan.WaypointFact{Answers: true}, Path: "/isthmus/old"}}
		}},
		"nobody can ask":                     {world: world, change: func(s *plan.Snapshot) { s.Shown, s.Unable = nil, "it has no identity" }},
		"the witness's policy is dry":        {world: strings.Replace(world, "kind: AuthorizationPolicy, metadata: {name: "+witness+",", "kind: AuthorizationPolicy, metadata: {name: "+witness+`, annotations: {istio.io/dry-run: "true"},`, 1)},
		"a Service of somebody else's":       {world: strings.Replace(world, witnessService+", namespace: shop, uid: wit1, labels: {isthmus.dev/owner: edge.public, istio.io/use-waypoint: waypoint}, managedFields: [{manager: isthmus.dev/edge.public", witnessService+", namespace: shop, uid: wit1, labels: {isthmus.dev/owner: edge.public, istio.io/use-waypoint: waypoint}, managedFields: [{manager: kubectl", 1), finding: v1alpha1.FindingVoided}, // it is a Service without selector, behind which anything may be
		"a Service with pods":                {world: strings.Replace(world, `spec: {"ports":[{"name":"http"`, `spec: {"selector":{"app":"orders"},"ports":[{"name":"http"`, 1), finding: "Service shop/" + witness},
		"a Service that is led elsewhere":    {world: strings.Replace(world, "istio.io/use-waypoint: waypoint}, managedFields: [{manager: isthmus.dev/edge.public, operation: Update", "istio.io/use-waypoint: another}, managedFields: [{manager: isthmus.dev/edge.public, operation: Update", 1), finding: "Service shop/" + witness},
		"a policy of somebody else's":        {world: strings.Replace(world, "kind: AuthorizationPolicy, metadata: {name: "+witness+", namespace: shop, uid: wit2, labels: {isthmus.dev/owner: edge.public}, managedFields: [{manager: isthmus.dev/edge.public", "kind: AuthorizationPolicy, metadata: {name: "+witness+", namespace: shop, uid: wit2, labels: {isthmus.dev/owner: edge.public}, managedFields: [{manager: kubectl", 1), finding: "AuthorizationPolicy shop/" + witness},
		"a policy that tells paths apart":    {world: world + gateway(foreign("shop", "[{to: [{operation: {notPaths: [PATH]}}]}]", "DENY")), finding: "AuthorizationPolicy shop/foreign"},
		"one for all waypoints":              {world: world + class(foreign("istio-system", "[{to: [{operation: {notPaths: [PATH]}}]}]", "DENY")), finding: "AuthorizationPolicy istio-system/foreign"},
		"a list that does":                   {world: world + gateway(foreign("shop", "[{to: [{operation: {paths: [PATH]}}]}]", "ALLOW")), finding: v1alpha1.FindingVoided},
		"a policy that refuses whoever asks": {world: world + gateway(foreign("shop", "[{to: [{operation: {ports: [\"80\"], methods: [GET]}}]}]", "DENY")), finding: "AuthorizationPolicy shop/foreign"},
	} {
		w := c.world
		if strings.Contains(w, "PATH") {
			q := plan.WitnessesToAsk(snapshot(t, strings.ReplaceAll(w, "PATH", "/x")))
			w = strings.ReplaceAll(w, "PATH", q[0].Path)
		}
		if w == world && c.change == nil {
			t.Fatalf("%s: nothing is changed", name)
		}
		s := snapshot(t, w)
		if c.change != nil {
			c.change(s)
		}
		p := plan.Make(s)
		for _, step := range []plan.Step{policyStep(p, plan.VerbPair, admitTwin), stepOf(p, plan.VerbWire, "Service shop/orders")} {
			if step.State == v1alpha1.StepNext || step.State == v1alpha1.StepDone || step.Write != nil {
				t.Errorf("%s: %s is %s", name, step.ID, step.State)
			}
		}
		is := slices.ContainsFunc(p.Findings, func(f v1alpha1.Finding) bool {
			if c.finding == v1alpha1.FindingVoided {
				return f.Code == c.finding
			}
			return f.Code == v1alpha1.FindingPair && f.Object == c.finding && f.Severity == v1alpha1.SeverityError
		})
		if is != (c.finding != "") {
			t.Errorf("%s: findings are %+v", name, p.Findings)
		}
	}
}

// TestPoliciesOfOthersAreNotInTheWay: for other Services, other paths, or of what nobody knows.
func TestPoliciesOfOthersAreNotInTheWay(t *testing.T) {
	for name, more := range map[string]string{
		"at another Service": "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: foreign, namespace: shop}, spec: {action: DENY, targetRefs: [{kind: Service, name: stock}], rules: [{}]}}",
		"of other paths":     "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: foreign, namespace: shop}, spec: {action: DENY, targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: waypoint}], rules: [{to: [{operation: {paths: [\"/admin*\"]}}]}]}}",
		"at pods":            "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: foreign, namespace: shop}, spec: {action: DENY, selector: {matchLabels: {app: other}}, rules: [{}]}}",
	} {
		p := plan.Make(snapshot(t, pairUnled(t)+"\n---\n"+more))
		if s := policyStep(p, plan.VerbPair, admitTwin); s.State != v1alpha1.StepNext {
			t.Errorf("%s: it is %s; findings %+v", name, s.State, p.Findings)
		}
	}
}

// TestAliasesAreNoTwins: a waypoint takes a principal of one trust domain for one of each, and the pods do not.
func TestAliasesAreNoTwins(t *testing.T) {
	s := snapshot(t, pairUnled(t))
	s.TrustDomainAliases = []string{"old.td"}
	p := plan.Make(s)
	if list := said(p, v1alpha1.FindingVoided); policyStep(p, plan.VerbPair, admitTwin).Write != nil || !slices.ContainsFunc(list, func(f v1alpha1.Finding) bool {
		return strings.Contains(f.Message, "another answer") || strings.Contains(f.Message, "old.td")
	}) {
		t.Errorf("callers of an alias would get in: %s", describe(p, s.Edge))
	}
}

// TestAWitnessGoesWithTheTwins.
func TestAWitnessGoesWithTheTwins(t *testing.T) {
	world := without(pairDone(t), "name: callers", "name: no-batch")
	for range 4 {
		p := plan.Make(snapshot(t, world))
		for _, w := range p.Writes() {
			if w.Delete {
				world = without(world, fmt.Sprintf("kind: %s, metadata: {name: %s,", w.Kind, w.Key.Name))
			}
		}
	}
	for _, left := range []string{"isthmus-pair-", "isthmus-witness-"} {
		if strings.Contains(world, left) {
			t.Errorf("%s is left: %s", left, world)
		}
	}
	if !strings.Contains(world, "isthmus-lock-") {
		t.Error("the lock went too")
	}
}
