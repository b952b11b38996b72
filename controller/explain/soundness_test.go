package explain

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/controller/check"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

func named2(namespace, name string) metav1.Object {
	return &metav1.ObjectMeta{Namespace: namespace, Name: name}
}

// scene is a random mesh: two clients and two pods, in the mesh or not, with or without a waypoint, under random policies.
type scene struct {
	clients, servers []bool // in the mesh
	waypoint         bool
	policies         []string
}

func pick(rng *rand.Rand, list ...string) string { return list[rng.IntN(len(list))] }

func randomScene(rng *rand.Rand) scene {
	s := scene{clients: []bool{rng.IntN(3) > 0, rng.IntN(3) > 0}, servers: []bool{rng.IntN(4) > 0, rng.IntN(4) > 0}, waypoint: rng.IntN(2) == 0}
	for i := range rng.IntN(4) {
		s.policies = append(s.policies, randomPolicy(rng, i))
	}
	if rng.IntN(4) == 0 {
		s.policies = append(s.policies, "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: strict, namespace: "+pick(rng, "shop", "istio-system", "web")+"}, spec: {mtls: {mode: STRICT}}}")
	}
	return s
}

func randomPolicy(rng *rand.Rand, i int) string {
	attached := pick(rng, "", "", "selector: {matchLabels: {track: a}}, ", "selector: {matchLabels: {app: orders}}, ", "targetRefs: [{kind: Service, name: orders}], ",
		"targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: waypoint}], ", "targetRefs: [{group: gateway.networking.k8s.io, kind: GatewayClass, name: istio-waypoint}], ")
	from := pick(rng, "", "from: [{source: {principals: [cluster.local/ns/web/sa/web-0]}}]", "from: [{source: {namespaces: [web]}}]", "from: [{source: {notNamespaces: [web]}}]",
		"from: [{source: {principals: [cluster.local/ns/shop/sa/waypoint]}}]", "from: [{source: {serviceAccounts: [web/web-1]}}]", "from: [{source: {ipBlocks: [10.244.1.0/32]}}]", "from: [{source: {}}]")
	to := pick(rng, "", "", "to: [{operation: {methods: [GET]}}]", "to: [{operation: {paths: [/x]}}]", `to: [{operation: {ports: ["8080"]}}]`, `to: [{operation: {ports: ["80"]}}]`)
	rule := strings.Trim(from+", "+to, ", ")
	return fmt.Sprintf("{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: p%d, namespace: %s}, spec: {%saction: %s, rules: [{%s}]}}",
		i, pick(rng, "shop", "shop", "shop", "istio-system", "web"), attached, pick(rng, "ALLOW", "DENY"), rule)
}

// text is the scene as objects of a cluster.
func (s *scene) text() string {
	captured := func(is bool) string {
		if is {
			return "ambient.istio.io/redirection: enabled"
		}
		return ""
	}
	docs := []string{
		"# cluster", "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}", "{apiVersion: v1, kind: Namespace, metadata: {name: web}}",
		"{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: web}, spec: {selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}}}}",
		"{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: waypoint, namespace: shop}, spec: {gatewayClassName: istio-waypoint}, status: {addresses: [{value: 10.96.0.99}]}}",
		"{apiVersion: v1, kind: Pod, metadata: {name: waypoint-1, namespace: shop, labels: {gateway.networking.k8s.io/gateway-name: waypoint}}, spec: {serviceAccountName: waypoint}, status: {podIP: 10.244.2.9}}",
	}
	for i, is := range s.clients {
		docs = append(docs, fmt.Sprintf("{apiVersion: v1, kind: Pod, metadata: {name: web-%d, namespace: web, uid: w%[1]d, labels: {app: web}, annotations: {%s}}, spec: {serviceAccountName: web-%[1]d}, status: {podIP: 10.244.1.%[1]d}}", i, captured(is)))
	}
	for i, is := range s.servers {
		docs = append(docs, fmt.Sprintf("{apiVersion: v1, kind: Pod, metadata: {name: orders-%d, namespace: shop, uid: o%[1]d, labels: {app: orders, track: %s}, annotations: {%s}}, spec: {serviceAccountName: orders}, status: {podIP: 10.244.2.%[1]d}}", i, string(rune('a'+i)), captured(is)))
	}
	bound := "status: {conditions: []}"
	labels := ""
	if s.waypoint {
		labels, bound = "istio.io/use-waypoint: waypoint", `status: {conditions: [{type: istio.io/WaypointBound, status: "True"}]}`
	}
	docs = append(docs, fmt.Sprintf("{apiVersion: v1, kind: Service, metadata: {name: orders, namespace: shop, labels: {%s}}, spec: {clusterIP: 10.96.0.7, selector: {app: orders}, ports: [{port: 80, targetPort: 8080, name: http}]}, %s}", labels, bound))
	return strings.Join(append(docs, s.policies...), "\n---\n") + "\n"
}

// truth is what becomes of one request from one pod to another, by the evaluator alone with all policies.
func (s *scene) truth(w *check.World, client, server int, method, path string) policy.Verdict {
	set := w.Evaluator()
	r := policy.Request{
		Source: policy.Absent[spiffeid.ID](), SourceIP: policy.Of(netip.AddrFrom4([4]byte{10, 244, 1, byte(client)})), ServiceIP: policy.Of(netip.MustParseAddr("10.96.0.7")),
		ServicePort: policy.Of(uint16(80)), WorkloadPort: policy.Of(uint16(8080)), WorkloadIP: policy.Of(netip.AddrFrom4([4]byte{10, 244, 2, byte(server)})),
		Protocol: policy.Of(policy.HTTP), Method: policy.Of(method), Path: policy.Of(path), NoOtherHeaders: true, Token: policy.Absent[policy.Token](),
	}
	p := policy.Path{}
	if s.clients[client] {
		r.Source = policy.Of(spiffeid.RequireFromString("spiffe://cluster.local/ns/web/sa/web-" + strconv.Itoa(client)))
		if s.waypoint {
			p.Waypoint = set.Waypoint(policy.Target{Kind: policy.KindGateway, Namespace: "shop", Name: "waypoint"}, policy.Target{Kind: policy.KindService, Namespace: "shop", Name: "orders"})
			p.WaypointSource, p.WaypointIP = policy.Of(spiffeid.RequireFromString("spiffe://cluster.local/ns/shop/sa/waypoint")), policy.Of(netip.MustParseAddr("10.244.2.9"))
		}
	}
	if s.servers[server] {
		p.Workload = set.Ztunnel(policy.Workload{Namespace: "shop", Labels: map[string]string{"app": "orders", "track": string(rune('a' + server))}})
	}
	a := p.Decide(&r)
	return a.Verdict
}

// TestAnswersAreSound: an answer is what the evaluator says of each pair of pods and each request that the question leaves open. What is asked of one
// request is Depends only where pods differ.
func TestAnswersAreSound(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	seen := map[policy.Verdict]int{}
	for range 1_500 {
		s := randomScene(rng)
		w := worldOf(t, s.text())
		x := New(w)
		q := Question{From: Source{Kind: "Deployment", Key: keyOf(named2("web", "web"))}, To: Target{Key: keyOf(named2("shop", "orders"))}}
		open, err := x.Answer(q)
		if err != nil {
			t.Fatal(err)
		}
		for _, request := range [][2]string{{"GET", "/x"}, {"POST", "/y"}} {
			q.Request.Method, q.Request.Path = policy.Of(request[0]), policy.Of(request[1])
			one, err := x.Answer(q)
			if err != nil {
				t.Fatal(err)
			}
			verdicts := map[policy.Verdict]bool{}
			for c := range s.clients {
				for o := range s.servers {
					is := s.truth(w, c, o, request[0], request[1])
					verdicts[is] = true
					for _, a := range []Answer{open, one} {
						if a.Verdict != policy.Depends && a.Verdict != is {
							t.Fatalf("%s, and the evaluator says %v of web-%d and orders-%d, %v\n%s", a.Title(), is, c, o, request, s.text())
						}
					}
				}
			}
			if one.Verdict == policy.Depends && len(verdicts) == 1 {
				t.Fatalf("%s, and the evaluator always says %v\n%s", one.Title(), verdicts, s.text())
			}
			seen[one.Verdict]++
		}
	}
	for _, v := range []policy.Verdict{policy.Allow, policy.Deny, policy.Depends} {
		if seen[v] < 100 {
			t.Errorf("only %d answers are %v", seen[v], v)
		}
	}
}

// TestPatchesAreEnough: who makes the changes that are named is not denied any more, on any way.
func TestPatchesAreEnough(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	tried := 0
	for range 1_500 {
		s := randomScene(rng)
		s.clients = []bool{true, true}
		x := New(worldOf(t, s.text()))
		q := Question{From: Source{Kind: "Deployment", Key: keyOf(named2("web", "web"))}, To: Target{Key: keyOf(named2("shop", "orders"))}}
		q.Request.Method, q.Request.Path = policy.Of("GET"), policy.Of("/z")
		before, err := x.Answer(q)
		if err != nil {
			t.Fatal(err)
		}
		changes := x.WhyNot(&before)
		if len(changes.Patches) == 0 {
			continue
		}
		tried++
		after := s
		after.policies = nil
		for _, text := range s.policies {
			after.policies = append(after.policies, patched(t, text, changes.Patches))
		}
		a, err := New(worldOf(t, after.text())).Answer(q)
		if err != nil {
			t.Fatal(err)
		}
		for i := range a.Ways {
			if a.Ways[i].Verdict == policy.Deny {
				t.Fatalf("%s after %q\n%s\nbefore\n%s", a.Title(), changes.Texts, after.text(), s.text())
			}
		}
	}
	if tried < 200 {
		t.Errorf("only %d cases", tried)
	}
}

// patched is a policy with the patches that are about it.
func patched(t *testing.T, text string, patches []Patch) string {
	t.Helper()
	var o map[string]any
	if err := yaml.Unmarshal([]byte(text), &o); err != nil {
		t.Fatal(err)
	}
	meta, _ := o["metadata"].(map[string]any)
	for _, p := range patches {
		if o["kind"] != p.Policy.Kind || meta["namespace"] != p.Policy.Namespace || meta["name"] != p.Policy.Name {
			continue
		}
		var ops []policy.Operation
		if err := yaml.Unmarshal([]byte(p.Text), &ops); err != nil {
			t.Fatalf("%v in %s", err, p.Text)
		}
		for _, op := range ops {
			o, _ = put(t, o, strings.Split(strings.TrimPrefix(op.Path, "/"), "/"), op.Value).(map[string]any)
		}
	}
	out, err := yaml.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(string(out), "\n")
}

// put is the operation add of JSON patches: it makes no parents.
func put(t *testing.T, o any, path []string, value any) any {
	t.Helper()
	switch o := o.(type) {
	case map[string]any:
		if len(path) == 1 {
			o[path[0]] = value
			return o
		}
		if _, ok := o[path[0]]; !ok {
			t.Fatalf("there is no %s in %v", path[0], o)
		}
		o[path[0]] = put(t, o[path[0]], path[1:], value)
		return o
	case []any:
		if path[0] == "-" && len(path) == 1 {
			return append(o, value)
		}
		i, err := strconv.Atoi(path[0])
		if err != nil || i >= len(o) || len(path) == 1 {
			t.Fatalf("there is no %v in %v", path, o)
		}
		o[i] = put(t, o[i], path[1:], value)
		return o
	}
	t.Fatalf("%v has no %v", o, path)
	return nil
}
