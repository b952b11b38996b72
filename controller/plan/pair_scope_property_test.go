package plan_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/controller/policy"
	"github.com/isthmus-mesh/isthmus/controller/policy/policytest"
)

// scopedWorld is the world of a pairing with Istio's own gateway, whose routes are to come.
var scopedWorld = strings.NewReplacer(
	"workloadRefs: [{kind: Deployment, name: gateway}]", "targetRefs: [{name: http}]",
	"  backends: {services: [{namespace: shop, name: orders}]}\n", "",
	"authorization: {mode: Pair}", "authorization: {mode: Pair, pair: {scope: Route}}",
	"labels: {app: gateway}, annotations: {ambient.istio.io/redirection: enabled}}", "labels: {gateway.networking.k8s.io/gateway-name: http}}",
).Replace(pairedWorld) + `---
{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: istio}, spec: {controllerName: istio.io/gateway-controller}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: http, namespace: edge, uid: g1}, spec: {gatewayClassName: istio, listeners: [{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]}}
`

// scopedSnapshot is scopedWorld, with a namespace of the gateway that nobody has brought into the mesh: the gateway speaks HBONE itself.
func scopedSnapshot(t *testing.T, rng *rand.Rand) *plan.Snapshot {
	t.Helper()
	s := snapshot(t, strings.ReplaceAll(scopedWorld, "STOCK", policytest.Pick(rng, []string{"8080", "9090"})))
	for i := range s.Namespaces {
		if o := &s.Namespaces[i]; o.Name == "edge" {
			o.Labels, o.ManagedFields = nil, nil
		}
	}
	return s
}

// accepted has a route's status say that the gateway has it as it is.
func accepted(r *gatewayv1.HTTPRoute) {
	ns := gatewayv1.Namespace("edge")
	r.Status.Parents = []gatewayv1.RouteParentStatus{{ParentRef: gatewayv1.ParentReference{Name: "http", Namespace: &ns}, ControllerName: "istio.io/gateway-controller", Conditions: []metav1.Condition{
		{Type: "Accepted", Status: "True", ObservedGeneration: r.Generation}, {Type: "ResolvedRefs", Status: "True", ObservedGeneration: r.Generation},
	}}}
}

// randomRoutes are some that all lead to orders.
func randomRoutes(rng *rand.Rand, generation int64) (list []gatewayv1.HTTPRoute) {
	ns := gatewayv1.Namespace("edge")
	for i := range 1 + rng.IntN(2) {
		r := gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprint("r", i), Generation: generation}}
		r.Spec.ParentRefs = []gatewayv1.ParentReference{{Name: "http", Namespace: &ns}}
		r.Spec.Hostnames = policytest.Pick(rng, [][]gatewayv1.Hostname{nil, {"a.test"}, {"a.test", "b.test"}})
		for range 1 + rng.IntN(2) {
			port := policytest.Pick(rng, []gatewayv1.PortNumber{80, 80, 81})
			rule := gatewayv1.HTTPRouteRule{BackendRefs: []gatewayv1.HTTPBackendRef{{BackendRef: gatewayv1.BackendRef{BackendObjectReference: gatewayv1.BackendObjectReference{Name: "orders", Port: &port}}}}}
			exact := false
			for range rng.IntN(3) {
				value := policytest.Pick(rng, []string{"/", "/a", "/a/b", "/b", "/a/"})
				m := gatewayv1.HTTPRouteMatch{Path: &gatewayv1.HTTPPathMatch{Value: &value}}
				if rng.IntN(3) == 0 {
					kind := gatewayv1.PathMatchExact
					m.Path.Type, exact = &kind, true
				}
				if rng.IntN(2) == 0 {
					method := policytest.Pick(rng, []gatewayv1.HTTPMethod{"GET", "POST"})
					m.Method = &method
				}
				rule.Matches = append(rule.Matches, m)
			}
			full, prefix, host := "/c", policytest.Pick(rng, []string{"/d", "/", ""}), gatewayv1.PreciseHostname("z.test")
			u := &gatewayv1.HTTPURLRewriteFilter{}
			switch rng.IntN(6) {
			case 0:
				u.Path = &gatewayv1.HTTPPathModifier{Type: gatewayv1.FullPathHTTPPathModifier, ReplaceFullPath: &full}
			case 1:
				if !exact {
					u.Path = &gatewayv1.HTTPPathModifier{Type: gatewayv1.PrefixMatchHTTPPathModifier, ReplacePrefixMatch: &prefix}
				}
			case 2:
				u.Hostname = &host
			}
			if u.Path != nil || u.Hostname != nil {
				rule.Filters = []gatewayv1.HTTPRouteFilter{{Type: gatewayv1.HTTPRouteFilterURLRewrite, URLRewrite: u}}
			}
			r.Spec.Rules = append(r.Spec.Rules, rule)
		}
		accepted(&r)
		list = append(list, r)
	}
	return list
}

// seenCall is a request as a waypoint sees it.
type seenCall struct {
	port               uint16
	host, method, path string
}

// seenCalls are of the classes that such routes tell apart, and of some that they do not.
func seenCalls() (list []seenCall) {
	for _, port := range []uint16{80, 81} {
		for _, host := range []string{"a.test", "a.test:8080", "b.test", "z.test", "q.test"} {
			for _, method := range []string{"GET", "POST"} {
				for _, path := range []string{"/", "/a", "/a/b", "/a/b/c", "/ab", "/b", "/c", "/d", "/d/e"} {
					list = append(list, seenCall{port, host, method, path})
				}
			}
		}
	}
	return list
}

// under says whether a path is a prefix, or has it before a slash.
func under(path, prefix string) bool {
	prefix = strings.TrimRight(prefix, "/")
	return path == prefix || strings.HasPrefix(path, prefix+"/")
}

// comesFrom says whether routes may make a request of one of their clients to this one.
func (c seenCall) comesFrom(routes []gatewayv1.HTTPRoute) bool {
	host, _, _ := strings.Cut(c.host, ":")
	for i := range routes {
		for _, rule := range routes[i].Spec.Rules {
			if *rule.BackendRefs[0].Port != gatewayv1.PortNumber(c.port) {
				continue
			}
			asked := len(routes[i].Spec.Hostnames) == 0 || slices.Contains(routes[i].Spec.Hostnames, gatewayv1.Hostname(host))
			var path *gatewayv1.HTTPPathModifier
			if len(rule.Filters) > 0 {
				if path = rule.Filters[0].URLRewrite.Path; rule.Filters[0].URLRewrite.Hostname != nil {
					asked = host == "z.test"
				}
			}
			slash := "/"
			matches := rule.Matches
			if len(matches) == 0 {
				matches = []gatewayv1.HTTPRouteMatch{{Path: &gatewayv1.HTTPPathMatch{Value: &slash}}}
			}
			for _, m := range matches {
				at := under(c.path, *m.Path.Value)
				if m.Path.Type != nil {
					at = c.path == *m.Path.Value
				}
				switch {
				case path != nil && path.ReplaceFullPath != nil:
					at = c.path == *path.ReplaceFullPath
				case path != nil:
					at = under(c.path, *path.ReplacePrefixMatch)
				}
				if asked && at && (m.Method == nil || string(*m.Method) == c.method) {
					return true
				}
			}
		}
	}
	return false
}

// gets is what the gateway gets for a request, by a waypoint or past it.
func (c seenCall) gets(e *enforced, waypoint *policy.Point, pod int) policy.Verdict {
	r := &policy.Request{
		Source: policy.Of(spiffeid.RequireFromString("spiffe://" + gatewayPrincipal)), ServicePort: policy.Of(c.port), WorkloadPort: policy.Of(c.port + 8000),
		Protocol: policy.Of(policy.HTTP), Host: policy.Of(c.host), Method: policy.Of(c.method), Path: policy.Of(c.path),
	}
	path := policy.Path{Waypoint: waypoint, Workload: e.pods[pod], WaypointSource: policy.Of(spiffeid.RequireFromString("spiffe://cluster.local/ns/shop/sa/waypoint"))}
	return path.Decide(r).Verdict
}

// TestScopeRouteTakesWhatRoutesDoNotCall walks to the end of a pairing by routes, changes these, and walks back, in random worlds. Nobody else gets another
// answer at any moment; the gateway gets what its routes call of what it got, all the while, and nothing that it did not get; and at the end exactly that.
func TestScopeRouteTakesWhatRoutesDoNotCall(t *testing.T) {
	rounds, narrow, taken, moved := *worlds/6, 0, 0, 0
	grid := seenCalls()
	for seed := range rounds {
		rng := rand.New(rand.NewPCG(uint64(seed), 11))
		s := scopedSnapshot(t, rng)
		s.Policies, s.HTTPRoutes = randomPolicies(rng), randomRoutes(rng, 1)
		theirs := slices.Clone(s.Policies)
		start := s.Services[0].DeepCopy()
		d := newDataPlane(t, rng, s)
		d.apart = gatewayPrincipal
		others := sameAnswers(t, d, theirs, seed)
		then, begins := enforcing(theirs, s), enforcing(atWaypointOnly(theirs), s)
		got := func(c seenCall, pod int) bool { // with what others have at the waypoint, which begins with the wiring
			return c.gets(then, nil, pod) == policy.Allow && (!d.led || c.gets(begins, begins.behind(orders, true), pod) == policy.Allow)
		}
		routes := s.HTTPRoutes // those that the gateway may go by
		d.check = func(after string) {
			others(after)
			now := d.now()
			at := now.behind(orders, d.led)
			for i, c := range grid {
				pod := i % 2
				is := c.gets(now, at, pod)
				if is == policy.Allow && c.gets(then, nil, pod) != policy.Allow && d.led {
					t.Fatalf("seed %d: after %s: the gateway gets %+v, and did not", seed, after, c)
				}
				if d.led && got(c, pod) && c.comesFrom(routes) && is != policy.Allow {
					t.Fatalf("seed %d: after %s: the gateway is refused %+v, which its routes call and it got\n%s\n%s\n%v", seed, after, c, describe(plan.Make(d.s), d.s.Edge), asYAML(t, routes), policyNamed(s.Policies, allowTwin))
				}
			}
		}
		exact := func(when string, p *plan.Plan) bool {
			list := policyNamed(s.Policies, allowTwin)
			if !d.led || list == nil {
				return false
			}
			if i := slices.IndexFunc(p.Steps, func(s plan.Step) bool { return s.State != v1alpha1.StepDone && s.Verb != plan.VerbLock }); i >= 0 {
				t.Fatalf("seed %d, %s: %s is not done: %s", seed, when, p.Steps[i].ID, describe(p, s.Edge))
			}
			now := d.now()
			for i, c := range grid {
				pod := i % 2
				want := got(c, pod) && c.comesFrom(s.HTTPRoutes)
				if is := c.gets(now, now.behind(orders, true), pod); (is == policy.Allow) != want {
					t.Fatalf("seed %d, %s: of the gateway %+v gets %v, and it is to be let in: %t\n%s", seed, when, c, is, want, describe(p, s.Edge))
				}
				if got(c, pod) && !want {
					taken++
				}
			}
			return true
		}
		p := d.walk()
		if exact("narrowed", p) {
			narrow++
		} else if d.led && len(said(p, v1alpha1.FindingUnscoped)) == 0 {
			t.Fatalf("seed %d: it is wired, not narrowed, and nothing says so: %s", seed, describe(p, s.Edge))
		}

		next := randomRoutes(rng, 2)
		for i := range next { // the gateway's controller has not read it yet: it goes by the old one
			next[i].Status = gatewayv1.HTTPRouteStatus{}
			if i < len(routes) {
				next[i].Status = routes[i].Status
			}
		}
		s.HTTPRoutes, routes = next, routes[:min(len(routes), len(next))]
		if d.led {
			d.walk()
			d.check("routes that the gateway has not read")
		}
		routes = nil // it goes by the new ones when it has them, and they are let in a moment later
		for i := range next {
			accepted(&next[i])
		}
		s.HTTPRoutes = slices.Clone(next)
		p = d.walk()
		routes = next
		d.check("routes that it has read")
		if exact("after its routes have changed", p) {
			moved++
		}

		now := metav1.Now()
		s.Edge.DeletionTimestamp = &now
		s.Edge.Annotations = map[string]string{v1alpha1.AnnotationUndo: s.Edge.UndoConfirmation()}
		routes = nil
		d.walk()
		if diff := cmp.Diff(names(theirs), names(s.Policies)); diff != "" || d.led || len(s.Services) != 2 {
			t.Fatalf("seed %d: something is left, or gone:\n%s", seed, diff)
		}
		if diff := cmp.Diff(labelsOf(start.Labels), labelsOf(s.Services[0].Labels)); diff != "" {
			t.Fatalf("seed %d: labels are left, or gone:\n%s", seed, diff)
		}
	}
	t.Logf("of %d worlds %d were narrowed, %d of these again for other routes; %d classes of requests were taken away", rounds, narrow, moved, taken)
	if narrow < rounds/10 || moved < rounds/20 || taken == 0 {
		t.Error("these worlds are about too little")
	}
}

func asYAML(t *testing.T, o any) string {
	t.Helper()
	text, err := yaml.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func policyNamed(list []*securityv1.AuthorizationPolicy, name string) *securityv1.AuthorizationPolicy {
	i := slices.IndexFunc(list, func(p *securityv1.AuthorizationPolicy) bool { return p.Name == name })
	if i < 0 {
		return nil
	}
	return list[i]
}

// TestDefaultDenySetClosesAServiceAndCutsNobodyElse walks to the end of a pairing that closes Services, and back, in random worlds. The gateway gets what it
// got at every moment; nobody gets more than before; at the end nobody else is let in on the Service's ports where the pods have no list, and on other ports
// everybody gets what he got.
func TestDefaultDenySetClosesAServiceAndCutsNobodyElse(t *testing.T) {
	rounds, closed, listed := *worlds/3, 0, 0
	for seed := range rounds {
		rng := rand.New(rand.NewPCG(uint64(seed), 13))
		s := snapshot(t, strings.NewReplacer("authorization: {mode: Pair}", "authorization: {mode: Pair, pair: {defaultDeny: Set}}", "STOCK", "9090").Replace(pairedWorld))
		if rng.IntN(3) == 0 {
			s.Policies = randomPolicies(rng)
		} else if s.Policies = randomPolicies(rng); true {
			s.Policies = slices.DeleteFunc(s.Policies, func(p *securityv1.AuthorizationPolicy) bool {
				return len(p.Spec.TargetRefs) == 0 && p.Spec.Action.String() == "ALLOW"
			})
		}
		theirs := slices.Clone(s.Policies)
		d := newDataPlane(t, rng, s)
		then, begins := enforcing(theirs, s), enforcing(atWaypointOnly(theirs), s)
		var calls []call
		for _, id := range pairCallers() {
			for pod := range 2 {
				calls = append(calls, call{id, 80, 8080, pod}, call{id, 81, 8081, pod}, call{id, 80, 9090, pod})
			}
		}
		d.check = func(after string) {
			now := d.now()
			at := now.behind(orders, d.led)
			for _, c := range calls {
				was, is, direct := then.way(c, nil), now.way(c, at), now.way(c, nil)
				gateway := c.id.String() == "spiffe://"+gatewayPrincipal
				switch {
				case c.port == 9090 && direct != was:
					t.Fatalf("seed %d: after %s: %s to another port of the pods got %v, and gets %v", seed, after, c.id, was, direct)
				case was != policy.Allow && (is == policy.Allow && c.port != 9090 || direct == policy.Allow):
					t.Fatalf("seed %d: after %s: %s got %v, and gets %v, and %v past the waypoint\n%s\n%v", seed, after, c.id, was, is, direct, describe(plan.Make(s), s.Edge), theirs)
				case gateway && c.port != 9090 && !stays(was, is, begins.way(c, begins.behind(orders, true)), d.led):
					t.Fatalf("seed %d: after %s, led %t: the gateway to port %d got %v, and gets %v\n%s", seed, after, d.led, c.service, was, is, describe(plan.Make(s), s.Edge))
				}
			}
		}
		p := d.walk()
		open := !then.pods[0].DefaultDeny() && !then.pods[1].DefaultDeny()
		if d.led && open {
			if closed++; !p.Done() || len(said(p, v1alpha1.FindingCloses)) == 0 {
				t.Fatalf("seed %d: it is not done, or does not say whom it closes: %s", seed, describe(p, s.Edge))
			}
			now := d.now()
			for _, c := range calls {
				if c.port != 9090 && c.id.String() != "spiffe://"+gatewayPrincipal && c.id.String() != "spiffe://cluster.local/ns/shop/sa/waypoint" &&
					(now.way(c, nil) != policy.Deny || len(atWaypointOnly(theirs)) == 0 && now.way(c, now.behind(orders, true)) != policy.Deny) {
					t.Fatalf("seed %d: %s gets %v by the waypoint, and %v past it", seed, c.id, now.way(c, now.behind(orders, true)), now.way(c, nil))
				}
			}
		} else if d.led {
			listed++
		}
		now := metav1.Now()
		s.Edge.DeletionTimestamp = &now
		s.Edge.Annotations = map[string]string{v1alpha1.AnnotationUndo: s.Edge.UndoConfirmation()}
		d.walk()
		if diff := cmp.Diff(names(theirs), names(s.Policies)); diff != "" || d.led || len(s.Services) != 2 {
			t.Fatalf("seed %d: something is left, or gone:\n%s", seed, diff)
		}
	}
	t.Logf("of %d worlds %d Services were closed, and %d had lists", rounds, closed, listed)
	if closed < rounds/5 || listed == 0 {
		t.Error("these worlds are about too little")
	}
}
