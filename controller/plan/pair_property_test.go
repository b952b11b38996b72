package plan_test

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	securityapi "istio.io/api/security/v1beta1"
	typev1beta1 "istio.io/api/type/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/controller/policy"
	"github.com/isthmus-mesh/isthmus/controller/policy/policytest"
)

// pairedWorld is a gateway in the mesh before a Service that leads to no waypoint, and another Service of the same pods.
const pairedWorld = `
apiVersion: isthmus.dev/v1alpha1
kind: AmbientEdge
metadata: {name: public, namespace: edge}
spec:
  workloadRefs: [{kind: Deployment, name: gateway}]
  mode: Manage
  backends: {services: [{namespace: shop, name: orders}]}
  waypoint: {policy: Use, name: waypoint}
  authorization: {mode: Pair}
---
{apiVersion: v1, kind: Pod, metadata: {name: orders-1, namespace: shop, labels: {app: orders, version: v1}, annotations: {ambient.istio.io/redirection: enabled}}, spec: {serviceAccountName: orders}}
---
{apiVersion: v1, kind: Pod, metadata: {name: orders-2, namespace: shop, labels: {app: orders, version: v2}, annotations: {ambient.istio.io/redirection: enabled}}, spec: {serviceAccountName: orders}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: edge, uid: n1, labels: {istio.io/dataplane-mode: ambient}, managedFields: [{manager: isthmus.dev/edge.public, operation: Apply, fieldsType: FieldsV1, fieldsV1: {f:metadata: {f:labels: {f:istio.io/dataplane-mode: {}}}}}]}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}, annotations: {isthmus.dev/edges: "edge/public"}}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: gateway, namespace: edge}, spec: {selector: {matchLabels: {app: gateway}}, template: {metadata: {labels: {app: gateway}}}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: gateway-1, namespace: edge, labels: {app: gateway}, annotations: {ambient.istio.io/redirection: enabled}}, spec: {serviceAccountName: gateway}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: istio-waypoint}, spec: {controllerName: istio.io/mesh-controller}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: waypoint, namespace: shop, uid: w1, labels: {istio.io/waypoint-for: service}, annotations: {test/answers: "yes"}}, spec: {gatewayClassName: istio-waypoint}, status: {addresses: [{value: 10.96.0.9}], conditions: [{type: Programmed, status: "True"}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: orders, namespace: shop, uid: s1}, spec: {clusterIP: 10.96.0.1, selector: {app: orders}, ports: [{name: a, port: 80, targetPort: 8080}, {name: b, port: 81, targetPort: 8081}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: stock, namespace: shop, uid: s2}, spec: {clusterIP: 10.96.0.2, selector: {app: orders}, ports: [{port: 80, targetPort: STOCK}]}}
`

const gatewayPrincipal = "cluster.local/ns/edge/sa/gateway"

// pairWords are such that policies of them meet each other and the callers below. Some are HTTP's, which ztunnel does not know.
var pairWords = policytest.Words{
	Principals: []string{
		gatewayPrincipal, "cluster.local/ns/batch/sa/job", "cluster.local/ns/batch/sa/job", "cluster.local/ns/shop/*", "*/sa/job", "cluster.local/ns/shop/sa/waypoint",
	},
	Namespaces: []string{"batch", "shop", "b*"},
	Accounts:   []string{"edge/gateway", "job", "batch/job"},
	Ports:      []string{"8080", "8081", "9090"},
	Keys:       []string{"source.principal", "source.namespace", "destination.port"},
}

// pairCallers are of the classes that these words make, and of some that they do not.
func pairCallers() (list []spiffeid.ID) {
	for _, ns := range []string{"edge", "batch", "shop", "bb", "x", "istio-system"} {
		for _, sa := range []string{"gateway", "job", "orders", "other"} {
			list = append(list, spiffeid.RequireFromString("spiffe://cluster.local/ns/"+ns+"/sa/"+sa))
		}
	}
	return append(list, spiffeid.RequireFromString("spiffe://other.td/ns/batch/sa/job"))
}

func randomPolicies(rng *rand.Rand) (list []*securityv1.AuthorizationPolicy) {
	words := pairWords
	words.Often = 2 + rng.IntN(3)
	if rng.IntN(4) == 0 {
		words.Methods, words.Paths = []string{"GET"}, []string{"/a"}
	}
	if rng.IntN(10) == 0 {
		words.Blocks = []string{"10.0.0.0/8"}
		words.Keys = append(words.Keys, "source.ip")
	}
	if rng.IntN(6) == 0 {
		words.Principals = append(words.Principals, "other.td/ns/batch/sa/job")
	}
	for i := range 1 + rng.IntN(3) {
		p := &securityv1.AuthorizationPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprint("p", i), UID: types.UID(fmt.Sprint("p", i))}}
		p.Spec.Action = policytest.Pick(rng, []securityapi.AuthorizationPolicy_Action{securityapi.AuthorizationPolicy_ALLOW, securityapi.AuthorizationPolicy_ALLOW, securityapi.AuthorizationPolicy_DENY})
		selects := func(labels map[string]string) { p.Spec.Selector = &typev1beta1.WorkloadSelector{MatchLabels: labels} }
		switch rng.IntN(12) {
		case 0:
			p.Namespace = "istio-system"
		case 1:
			selects(map[string]string{"version": "v1"})
		case 2:
			p.Spec.TargetRefs = []*typev1beta1.PolicyTargetReference{{Kind: "Service", Name: "orders"}}
		case 3:
			p.Spec.TargetRefs = []*typev1beta1.PolicyTargetReference{{Kind: "Gateway", Group: "gateway.networking.k8s.io", Name: "waypoint"}}
		case 4, 5:
		default:
			selects(map[string]string{"app": "orders"})
		}
		for range 1 + rng.IntN(2) {
			p.Spec.Rules = append(p.Spec.Rules, words.Rule(rng))
		}
		if p.Spec.Action == securityapi.AuthorizationPolicy_ALLOW && rng.IntN(4) > 0 { // or the gateway is refused, and nothing is wired
			p.Spec.Rules = append(p.Spec.Rules, &securityapi.Rule{From: []*securityapi.Rule_From{{Source: &securityapi.Source{Principals: []string{gatewayPrincipal}}}}})
		}
		list = append(list, p)
	}
	return list
}

var worlds = flag.Int("worlds", 300, "how many random worlds of policies a pairing is walked in")

// TestPairKeepsEverybodysAnswer walks to the end of a pairing and back, in random worlds, and asks for each caller after each thing that a data plane
// hears: who was let through is, and who was refused is. What policies at the waypoint refuse by themselves begins with the wiring, and is no affair of
// Pair's; nor is the gateway's way past the waypoint, which its lock closes last.
func TestPairKeepsEverybodysAnswer(t *testing.T) {
	rounds, wired, twins, admitted, refused := *worlds, 0, 0, 0, 0
	for seed := range rounds {
		rng := rand.New(rand.NewPCG(uint64(seed), 7))
		s := snapshot(t, stockAt(rng))
		s.Policies = randomPolicies(rng)
		if rng.IntN(4) == 0 { // somebody else leads the other Service there
			s.Services[1].Labels = map[string]string{plan.LabelUseWaypoint: "waypoint"}
		}
		start := s.Services[0].DeepCopy()
		theirs := slices.Clone(s.Policies)
		d := newDataPlane(t, rng, s)
		d.check = sameAnswers(t, d, theirs, seed)
		p := d.walk()
		switch {
		case d.led && p.Wrong():
			t.Fatalf("seed %d: it is wired, and something is wrong: %s", seed, describe(p, s.Edge))
		case d.led:
			wired++
			if slices.ContainsFunc(s.Policies, func(p *securityv1.AuthorizationPolicy) bool { return strings.HasPrefix(p.Name, "isthmus-pair-") }) {
				twins++
			}
			if _, is := d.policies[types.NamespacedName{Namespace: "shop", Name: "isthmus-pair-orders-a6cc6474-admit"}]; is {
				admitted++
			}
		default:
			if refused++; len(said(p, v1alpha1.FindingVoided))+len(said(p, v1alpha1.FindingNotAdmitted))+len(said(p, v1alpha1.FindingPair)) == 0 {
				t.Fatalf("seed %d: it is not wired, and nothing says why: %s", seed, describe(p, s.Edge))
			}
		}

		now := metav1.Now()
		s.Edge.DeletionTimestamp = &now
		s.Edge.Annotations = map[string]string{v1alpha1.AnnotationUndo: s.Edge.UndoConfirmation()} // whatever others have at the waypoint
		d.walk()
		if d.led {
			t.Fatalf("seed %d: it is wired still", seed)
		}
		if d := cmp.Diff(names(theirs), names(s.Policies)); d != "" {
			t.Fatalf("seed %d: policies are left, or gone:\n%s", seed, d)
		}
		if n := len(s.Services); n != 2 {
			t.Fatalf("seed %d: %d Services are there: a witness is left", seed, n)
		}
		if d := cmp.Diff(labelsOf(start.Labels), labelsOf(s.Services[0].Labels)); d != "" {
			t.Fatalf("seed %d: labels are left, or gone:\n%s", seed, d)
		}
	}
	t.Logf("of %d worlds %d were wired, %d of these with twins and %d with an admission; %d were refused", rounds, wired, twins, admitted, refused)
	if twins < rounds/10 || admitted < rounds/20 || refused < rounds/20 {
		t.Error("these worlds are about too little")
	}
}

func stockAt(rng *rand.Rand) string {
	return strings.ReplaceAll(pairedWorld, "STOCK", policytest.Pick(rng, []string{"8080", "9090"}))
}

func labelsOf(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

func names(list []*securityv1.AuthorizationPolicy) (all []string) {
	for _, p := range list {
		all = append(all, p.Namespace+"/"+p.Name)
	}
	return all
}

// sameAnswers compares what callers get with what they got before, by the policies of others alone.
func sameAnswers(t *testing.T, d *dataPlane, theirs []*securityv1.AuthorizationPolicy, seed int) func(string) {
	t.Helper()
	var calls []call
	for _, id := range pairCallers() {
		for pod := range 2 {
			calls = append(calls, call{id, 80, 8080, pod}, call{id, 81, 8081, pod}, call{id, 80, 9090, pod})
		}
	}
	type answer struct{ direct, begins, stock policy.Verdict }
	stock := types.NamespacedName{Namespace: "shop", Name: "stock"}
	stockLed := d.s.Services[1].Labels != nil
	stockPort := uint16(d.s.Services[1].Spec.Ports[0].TargetPort.IntValue())
	before := map[call]answer{}
	then, others := enforcing(theirs, d.s), enforcing(atWaypointOnly(theirs), d.s)
	begins, atStock := others.behind(orders, true), then.behind(stock, stockLed)
	for _, c := range calls {
		before[c] = answer{then.way(c, nil), others.way(c, begins), then.way(c, atStock)}
	}
	return func(after string) {
		now := d.now()
		waypoint, atStock := now.behind(orders, d.led), now.behind(stock, stockLed)
		for _, c := range calls {
			if d.apart != "" && c.id.String() == "spiffe://"+d.apart {
				continue // of it another check tells
			}
			was, gateway := before[c], c.id.String() == "spiffe://"+gatewayPrincipal
			if way := now.way(c, waypoint); c.port != 9090 && !stays(was.direct, way, was.begins, d.led) {
				t.Fatalf("seed %d: after %s, led %t: %s to port %d of the Service got %v, and gets %v\n%s", seed, after, d.led, c.id, c.service, was.direct, way, describe(plan.Make(d.s), d.s.Edge))
			}
			if direct := now.way(c, nil); !gateway && was.direct != direct {
				t.Fatalf("seed %d: after %s: %s to port %d of pod %d got %v, and gets %v", seed, after, c.id, c.port, c.pod, was.direct, direct)
			}
			if locked := !stockLed && gateway; c.port == stockPort && !locked {
				if is := now.way(c, atStock); is != was.stock {
					t.Fatalf("seed %d: after %s: %s to the other Service got %v, and gets %v", seed, after, c.id, was.stock, is)
				}
			}
		}
	}
}

// stays says whether an answer is the one of before. begins is what others have at the waypoint.
func stays(was, is, begins policy.Verdict, led bool) bool {
	switch {
	case !led, was == policy.Deny:
		return was == is
	case was == policy.Depends: // on what a waypoint does not see
		return false
	case begins == policy.Allow:
		return is == policy.Allow
	}
	return is == begins
}

// atWaypointOnly are the policies that pods do not have.
func atWaypointOnly(list []*securityv1.AuthorizationPolicy) []*securityv1.AuthorizationPolicy {
	return slices.DeleteFunc(slices.Clone(list), func(p *securityv1.AuthorizationPolicy) bool { return len(p.Spec.GetTargetRefs()) == 0 })
}
