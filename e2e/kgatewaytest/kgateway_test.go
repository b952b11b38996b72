package kgatewaytest

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/e2e/checktest"
	"github.com/isthmus-mesh/isthmus/e2e/command"
	"github.com/isthmus-mesh/isthmus/e2e/node"
	"github.com/isthmus-mesh/isthmus/e2e/story/apps"
)

// shop is a backend in the mesh, a waypoint, and a policy of what the gateway may ask there, which nobody enforces until it goes through the
// waypoint.
var shop = `
{apiVersion: v1, kind: Namespace, metadata: {name: EDGE}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: SHOP, labels: {istio.io/dataplane-mode: ambient}, annotations: {isthmus.dev/edges: "EDGE/public,EDGE/late"}}}
---` + apps.OrdersObjects("SHOP", "") + `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: shared, namespace: SHOP, labels: {istio.io/waypoint-for: service}}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: callers, namespace: SHOP}
spec:
  targetRefs: [{kind: Service, group: "", name: orders}]
  action: ALLOW
  rules:
  - from: [{source: {principals: [cluster.local/ns/EDGE/sa/http, cluster.local/ns/EDGE/sa/late]}}]
    to: [{operation: {methods: [GET], paths: [/ok*]}}]
---
{apiVersion: gateway.networking.k8s.io/v1beta1, kind: ReferenceGrant, metadata: {name: routes, namespace: SHOP}, spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: EDGE}], to: [{group: "", kind: Service}]}}
---
`

// gateway is kgateway's, before the shop, and not of the mesh.
const gateway = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: http, namespace: EDGE}
spec: {gatewayClassName: kgateway, listeners: [{name: http, port: 8080, protocol: HTTP}]}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: orders, namespace: EDGE}, spec: {parentRefs: [{name: http}], rules: [{backendRefs: [{name: orders, namespace: SHOP, port: 80}]}]}}
`

// byHand are two gateways that people have brought into the mesh themselves, one of them not yet, and Services that they have labelled as the
// manuals say: orders rightly, another though it is headless, a third in letters that Istio reads and kgateway does not.
const byHand = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: http, namespace: EDGE}
spec: {gatewayClassName: kgateway, infrastructure: {labels: {istio.io/dataplane-mode: ambient}}, listeners: [{name: http, port: 8080, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: late, namespace: EDGE}
spec: {gatewayClassName: kgateway, listeners: [{name: http, port: 8080, protocol: HTTP}]}
---
{apiVersion: v1, kind: Service, metadata: {name: headless, namespace: SHOP, labels: {istio.io/use-waypoint: shared, istio.io/ingress-use-waypoint: "true"}}, spec: {clusterIP: None, selector: {app: orders}, ports: [{name: http, port: 8080}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: spelled, namespace: SHOP, labels: {istio.io/use-waypoint: shared, istio.io/ingress-use-waypoint: "True"}}, spec: {selector: {app: orders}, ports: [{name: http, port: 80, targetPort: 8080}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: orders, namespace: EDGE}, spec: {parentRefs: [{name: http}, {name: late}], rules: [{backendRefs: [{name: orders, namespace: SHOP, port: 80}]}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: trapped, namespace: EDGE}
spec:
  parentRefs: [{name: http}]
  rules:
  - {matches: [{path: {value: /headless}}], backendRefs: [{name: headless, namespace: SHOP, port: 8080}]}
  - {matches: [{path: {value: /spelled}}], backendRefs: [{name: spelled, namespace: SHOP, port: 80}]}
`

const wired = `{"metadata":{"labels":{"istio.io/use-waypoint":"shared","istio.io/ingress-use-waypoint":"true"}}}`

func ambientEdge(name, gateway string, mode v1alpha1.Mode) string {
	return strings.NewReplacer("NAME", name, "GATEWAY", gateway, "MODE", string(mode)).Replace(`
apiVersion: isthmus.dev/v1alpha1
kind: AmbientEdge
metadata: {name: NAME, namespace: EDGE}
spec:
  targetRefs: [{name: GATEWAY}]
  mode: MODE
  waypoint: {policy: Use, name: shared}
`)
}

// TestCIRunsIt: TestKgateway runs where it is asked for, and CI asks for it.
func TestCIRunsIt(t *testing.T) {
	for file, line := range map[string]string{"../../.ci/run": "\nmake kgateway\n", "../../Makefile": "go test ./kgatewaytest -v -count 1 -timeout 60m -args -kgateway\n"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), line) {
			t.Errorf("%s has no line %q", file, strings.TrimSpace(line))
		}
	}
}

func TestKgateway(t *testing.T) {
	if !*kgateway {
		t.Skip("kgateway would be built first, which takes a quarter of an hour: ask for it by -args -kgateway")
	}
	if err := node.CheckNFTables(); errors.Is(err, node.ErrNoNFTables) && os.Getenv("CI") != "true" {
		t.Skip(err) // what captures pods without it is not enough for this gateway
	} else if err != nil {
		t.Fatal(err)
	}
	binary := command.Build(t)
	m := start(t)
	began := time.Now()
	one, traps, shared := newSite(t, m, "one"), newSite(t, m, "trap"), newSite(t, m, "tenants")
	one.binary, traps.binary = binary, binary
	one.rolled(system, "kgateway")
	one.apply(shop + gateway)
	traps.apply(shop + byHand)
	traps.patch(&corev1.Service{}, traps.shop, "orders", wired)
	shared.apply(tenants)
	for _, service := range []string{"orders", "office"} {
		shared.patch(&corev1.Service{}, shared.shop, service, wired)
	}
	one.up("http")
	traps.up("http", "late")
	shared.up("http")
	t.Logf("all is up after %v", time.Since(began).Round(time.Second))
	one.leads("orders", 80, one.pods())
	one.bypasses("/secret/before")
	one.inspects("orders", "notSwitched", 0)
	before := one.state()

	t.Run("as its chart installs it", func(t *testing.T) {
		one.of(t, "http", "public").isBlocked(before)
		traps.of(t, "http", "public").isIdle()
	})
	one.apply(installed(withWaypoints)) // what the finding says, done
	one.rolled(system, "kgateway")
	t.Run("into the mesh", func(t *testing.T) { one.of(t, "http", "public").joins() })
	t.Run("and out", func(t *testing.T) { one.of(t, "http", "public").leaves(before) })
	t.Run("labelled by hand", func(t *testing.T) { traps.of(t, "http", "public").isTrapped() })
	t.Run("captured late", func(t *testing.T) { traps.of(t, "late", "late").isLate() })

	// These are told as those of package coordination are, and have their numbers.
	check := checktest.New(m, binary)
	shared.opens()
	t.Run("11_a_client_chooses_its_address", func(t *testing.T) { shared.of(t, "http", "").clientsChooseAddresses(check) })
	t.Run("15_a_claim_becomes_a_header_that_the_mesh_trusts", func(t *testing.T) { shared.of(t, "http", "").claimsBecomeHeaders(check) })
}

// up waits until gateways, the waypoint and the backend of a site run.
func (s *site) up(gateways ...string) {
	s.t.Helper()
	for _, g := range gateways {
		s.of(s.t, g, "").accepted()
		s.rolled(s.edge, g)
	}
	s.rolled(s.shop, "shared")
	if err := s.mesh.Node.WaitCaptured(s.t.Context(), s.shop, "orders", true); err != nil {
		s.t.Fatal(err)
	}
}

// bypasses says that a request which the policy forbids is answered by the backend, and that the waypoint has not seen it.
func (s *site) bypasses(path string) {
	s.t.Helper()
	s.answers(path, 200)
	if seen := s.logged(path, false); len(seen) > 0 {
		s.t.Errorf("the waypoint has seen %s: %+v", path, seen)
	}
}

// enforces says that requests go through the waypoint, with the gateway's identity, and that the policy decides there.
func (s *site) enforces(id string) {
	s.t.Helper()
	s.answers("/secret/now", 403)
	s.answers("/ok/now", 200)
	for _, r := range s.logged("/ok/now", true) {
		if r.Peer != id || r.Policy != s.shop+"/callers" || !r.Allowed {
			s.t.Errorf("the waypoint logged %+v; want caller %s, let in by the policy", r, id)
		}
	}
	for _, r := range s.logged("/secret/now", true) {
		if r.Peer != id || r.Allowed {
			s.t.Errorf("the waypoint logged %+v; want caller %s, denied", r, id)
		}
	}
}

func (s *site) labels(service string) map[string]string {
	s.t.Helper()
	o := &corev1.Service{}
	if err := s.c.Get(s.t.Context(), types.NamespacedName{Namespace: s.shop, Name: service}, o); err != nil {
		s.t.Fatal(err)
	}
	return o.Labels
}

// isBlocked has the controller find that kgateway would not follow its switch, and leave everything as it is.
func (s *site) isBlocked(before map[string]string) {
	s.apply(ambientEdge(s.name, s.gateway, v1alpha1.ModeManage))
	e, _ := s.ready(v1alpha1.ReasonBlocked)
	f := finding(e, v1alpha1.FindingSwitchIdle, "Deployment "+system+"/kgateway")
	if f == nil || f.Severity != v1alpha1.SeverityError || f.Field != "env KGW_ENABLE_WAYPOINT" || !strings.Contains(f.Fix, "waypoint.enabled=true") {
		s.t.Errorf("findings are %+v; want that KGW_ENABLE_WAYPOINT is not set", e.Status.Findings)
	}
	if d := cmp.Diff(before, s.state()); d != "" {
		s.t.Errorf("something was written (-before +after):\n%s", d)
	}
}

// isIdle shows that what is found there is so: all is labelled, and the gateway captured, and its requests go past the waypoint.
func (s *site) isIdle() {
	if err := s.mesh.Node.WaitCaptured(s.t.Context(), s.edge, s.proxy().Name, true); err != nil {
		s.t.Fatal(err)
	}
	s.still("orders", 80, s.pods())
	s.bypasses("/secret/idle")
	s.inspects("orders", "notSwitched", 0) // though it is labelled: it is known that kgateway does not heed that
}

// joins waits until the edge is of the mesh: captured, rolled out, switched, with the policy enforced.
func (s *site) joins() {
	id := "spiffe://cluster.local/ns/" + s.edge + "/sa/" + s.gateway
	e, took := s.ready(v1alpha1.ReasonDone)
	s.t.Logf("ready %v after kgateway was set right", took)
	if g := e.Status.Gateways; len(g) != 1 || g[0].Vendor != "kgateway" || g[0].Pods != 1 || g[0].Captured != 1 || g[0].Identity != id || g[0].Switch != edge.LabelIngressUseWaypoint+"=true" {
		s.t.Errorf("gateways are %+v", g)
	}
	if b := e.Status.Backends; len(b) != 1 || b[0].Waypoint != s.shop+"/shared" || !slices.Contains(b[0].Policies, s.shop+"/callers") {
		s.t.Errorf("backends are %+v", b)
	}
	if labels := s.labels("orders"); labels[plan.LabelUseWaypoint] != "shared" || labels[edge.LabelIngressUseWaypoint] != "true" {
		s.t.Errorf("the Service's labels are %v", labels)
	}
	if err := s.mesh.Node.WaitCaptured(s.t.Context(), s.edge, s.proxy().Name, true); err != nil {
		s.t.Error(err)
	}
	s.t.Logf("the gateway sends to the Service's address %v after Ready", s.leads("orders", 80, s.vip("orders")))
	s.enforces(id)
	s.inspects("orders", "inForce", 0)
}

// leaves takes the edge out of the mesh again.
func (s *site) leaves(before map[string]string) {
	if err := s.c.Delete(s.t.Context(), s.theEdge()); err != nil {
		s.t.Fatal(err)
	}
	e, _ := s.ready(v1alpha1.ReasonUndoHalted) // for the policy
	s.patch(s.theEdge(), s.edge, s.name, fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, v1alpha1.AnnotationUndo, e.UndoConfirmation()))
	s.t.Logf("undone after %v", s.gone(s.theEdge()))
	s.rolled(s.edge, s.gateway)
	s.wait("all objects are as before", func() string { return cmp.Diff(before, s.state()) })
	if err := s.mesh.Node.WaitCaptured(s.t.Context(), s.edge, s.proxy().Name, false); err != nil {
		s.t.Error(err)
	}
	s.leads("orders", 80, s.pods())
	s.bypasses("/secret/after")
	s.inspects("orders", "notSwitched", 0)
}

// found waits for a finding that says something.
func (s *site) found(severity v1alpha1.Severity, code, object, field, text string) {
	s.t.Helper()
	s.status("finding "+code, func(e *v1alpha1.AmbientEdge) string {
		f := finding(e, code, object)
		if f == nil || f.Severity != severity || f.Field != field || !strings.Contains(f.Message, text) || f.Fix == "" {
			return "it is not there as it should be"
		}
		return ""
	})
}

// isTrapped has the controller find what is wrong with labels that people have set, and shows that it is so. What they have set rightly works, now
// that kgateway is set right.
func (s *site) isTrapped() {
	s.leads("orders", 80, s.vip("orders"))
	s.enforces("spiffe://cluster.local/ns/" + s.edge + "/sa/" + s.gateway)

	s.apply(ambientEdge(s.name, s.gateway, v1alpha1.ModeManage))
	s.found(v1alpha1.SeverityError, v1alpha1.FindingHeadless, "Service "+s.shop+"/headless", "spec.clusterIP", "answers 503")
	s.found(v1alpha1.SeverityError, v1alpha1.FindingForeignValue, "Service "+s.shop+"/spelled", "metadata.labels["+edge.LabelIngressUseWaypoint+"]", `this is "True"`)
	s.ready(v1alpha1.ReasonHeld)

	s.leads("headless", 8080, upstream{Static: true})
	s.answers("/headless/ok", 503)
	s.still("spelled", 80, s.pods())
	s.bypasses("/spelled/secret")
	s.inspects("headless", "notThere", 0)
	s.inspects("spelled", "notSwitched", 0)
}

// isLate labels the namespace of a gateway that runs. The controller finds that kgateway has not noticed, and, when it may, has it start anew.
func (s *site) isLate() {
	old := s.proxy()
	s.patch(&corev1.Namespace{}, "", s.edge, `{"metadata":{"labels":{"istio.io/dataplane-mode":"ambient"}}}`)
	if err := s.mesh.Node.WaitCaptured(s.t.Context(), s.edge, old.Name, true); err != nil {
		s.t.Fatal(err)
	}
	s.apply(ambientEdge(s.name, s.gateway, v1alpha1.ModeObserve))
	s.found(v1alpha1.SeverityWarning, v1alpha1.FindingLate, "Pod "+s.edge+"/"+old.Name, "metadata.annotations["+plan.AnnotationRedirection+"]", "captured after it had connected")
	s.still("orders", 80, s.pods())
	s.bypasses("/secret/late")
	s.inspects("orders", "notInForce", 1)
	if s.proxy().UID != old.UID {
		s.t.Error("mode Observe has started the gateway anew")
	}
	s.apply(ambientEdge(s.name, s.gateway, v1alpha1.ModeManage))
	e, took := s.ready(v1alpha1.ReasonDone)
	s.t.Logf("ready after %v", took)
	if s.proxy().UID == old.UID || slices.ContainsFunc(e.Status.Findings, func(f v1alpha1.Finding) bool { return f.Code == v1alpha1.FindingLate }) {
		s.t.Errorf("it is pod %s, findings are %+v; want a new pod that has noticed", s.proxy().Name, e.Status.Findings)
	}
	s.leads("orders", 80, s.vip("orders"))
	s.answers("/secret/late/now", 403)
	s.inspects("orders", "inForce", 0)
}
