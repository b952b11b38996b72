package check

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// object reads YAML.
func object(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &u.Object); err != nil {
		t.Fatal(err)
	}
	return u
}

func TestApplied(t *testing.T) {
	const live = `{apiVersion: v1, kind: Service, metadata: {name: a, uid: u, labels: {team: x, old: y}, annotations: {kubectl.kubernetes.io/last-applied-configuration: '{"metadata":{"labels":{"old":"y"}},"spec":{"sessionAffinity":"ClientIP"}}'}},
	  spec: {clusterIP: 10.0.0.1, sessionAffinity: ClientIP, ports: [{port: 80, nodePort: 30000}, {port: 81}]}, status: {loadBalancer: {}}}`
	for name, c := range map[string]struct{ live, file, want string }{
		"what the file says, what only the cluster has, and not what was taken out of the file": {live,
			`{apiVersion: v1, kind: Service, metadata: {name: a, labels: {new: z}}, spec: {ports: [{port: 80}]}}`,
			`{apiVersion: v1, kind: Service, metadata: {name: a, uid: u, labels: {team: x, new: z}}, spec: {clusterIP: 10.0.0.1, ports: [{port: 80}]}, status: {loadBalancer: {}}}`},
		"a status of a file does not count, and another version does": {`{apiVersion: a/v1beta1, kind: B, metadata: {name: a}, status: {x: 1}}`,
			`{apiVersion: a/v1, kind: B, metadata: {name: a}, spec: {y: 2}, status: {x: 3}}`, `{apiVersion: a/v1, kind: B, metadata: {name: a}, spec: {y: 2}, status: {x: 1}}`},
	} {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(object(t, c.want).Object, Applied(object(t, c.live), object(t, c.file)).Object); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
		})
	}
}

// shop is a cluster with a Service and its pod outside the mesh, an edge with a route, and a waypoint that nothing leads to.
const shop = `# cluster
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: edge}}
---
{apiVersion: v1, kind: Service, metadata: {name: orders, namespace: shop}, spec: {clusterIP: 10.0.0.1, selector: {app: orders}, ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: orders-1, namespace: shop, labels: {app: orders}}, status: {phase: Running}}
---
{apiVersion: v1, kind: Pod, metadata: {name: old, namespace: shop, labels: {app: old, istio.io/dataplane-mode: none}}, status: {phase: Running}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: istio}, spec: {controllerName: istio.io/gateway-controller}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: istio-waypoint}, spec: {controllerName: istio.io/mesh-controller}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: http, namespace: edge}, spec: {gatewayClassName: istio, listeners: [{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]}}
`

func over(t *testing.T, files string) *World {
	t.Helper()
	var placed []Placed
	for doc := range strings.SplitSeq(files, "---\n") {
		o := object(t, doc)
		placed = append(placed, Placed{o, "new.yaml:1", Faults(o)})
	}
	return worldOf(t, shop).Over(placed)
}

// TestWhatEverybodyDoesAboutWhatIsApplied: labels capture, pods are rolled, waypoints serve, routes are accepted.
func TestWhatEverybodyDoesAboutWhatIsApplied(t *testing.T) {
	w := over(t, `{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient, istio.io/use-waypoint: waypoint}}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: waypoint, namespace: shop, labels: {istio.io/waypoint-for: service}}, spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: orders, namespace: shop}, spec: {parentRefs: [{name: http, namespace: edge}], rules: [{backendRefs: [{name: orders, port: 80}]}]}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: orders, namespace: shop}, spec: {selector: {matchLabels: {app: orders}}, template: {metadata: {labels: {app: orders, tier: web}}, spec: {serviceAccountName: orders}}}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: stock, namespace: shop}, spec: {selector: {matchLabels: {app: stock}}, template: {metadata: {labels: {app: stock}}, spec: {serviceAccountName: stock}}}}
`)
	if len(w.Namespaces) != 2 || len(w.Pods) != 4 {
		t.Fatalf("there are %d namespaces and %d pods", len(w.Namespaces), len(w.Pods))
	}
	for _, p := range w.PodsIn("shop") {
		if p.Spec.ServiceAccountName == "waypoint" {
			if p.Labels["gateway.networking.k8s.io/gateway-name"] != "waypoint" || w.InMesh(p) || len(p.Status.Conditions) != 1 {
				t.Errorf("the waypoint's pod is %+v", p)
			}
			continue
		}
		if want := p.Labels["app"] != "old"; w.InMesh(p) != want {
			t.Errorf("pod %s is in the mesh: %v", p.Name, w.InMesh(p))
		}
		if app := p.Labels["app"]; app != "old" && p.Spec.ServiceAccountName != app {
			t.Errorf("pod %s runs as %s", p.Name, p.Spec.ServiceAccountName)
		}
		if app := p.Labels["app"]; app == "orders" && p.Labels["tier"] != "web" {
			t.Errorf("pod %s has labels %v", p.Name, p.Labels)
		}
	}
	s := w.Service(types.NamespacedName{Namespace: "shop", Name: "orders"})
	if !meta.IsStatusConditionTrue(s.Status.Conditions, plan.ConditionWaypointBound) {
		t.Error("nobody has bound Service orders to the waypoint")
	}
	views := w.Views()
	if len(views) != 1 || len(views[0].Routes) != 1 || views[0].Routes[0].Why != "" || len(views[0].Backends) != 1 || !views[0].Backends[0].Bound {
		t.Errorf("the gateways are %+v", views)
	}
}

// TestWhatIsAppliedTakesThePlaceOfWhatWas: once, and findings know the file.
func TestWhatIsAppliedTakesThePlaceOfWhatWas(t *testing.T) {
	w := over(t, `{apiVersion: v1, kind: Service, metadata: {name: orders, namespace: shop, labels: {istio.io/use-waypoint: nowhere}}, spec: {clusterIP: 10.0.0.1, selector: {app: orders}}}`)
	if len(w.Services) != 1 || w.Services[0].Labels["istio.io/use-waypoint"] != "nowhere" {
		t.Errorf("Services are %+v", w.Services)
	}
	if meta.IsStatusConditionTrue(w.Services[0].Status.Conditions, plan.ConditionWaypointBound) {
		t.Error("a waypoint that is not there is bound")
	}
	if at := w.where[ServiceObject(&w.Services[0])]; at != "new.yaml:1" {
		t.Errorf("it stands at %q", at)
	}
}

// TestARouteThatIsMovedIsAccepted: what its new parent will say is not in the cluster's status, and what its old one said does not count any more.
func TestARouteThatIsMovedIsAccepted(t *testing.T) {
	const moved = `{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: orders, namespace: edge}, spec: {parentRefs: [PARENTS], rules: [{backendRefs: [{name: orders, namespace: shop, port: 80}]}]},
	  status: {parents: [{parentRef: {group: gateway.networking.k8s.io, kind: Gateway, name: old}, controllerName: x, conditions: []},
	    {parentRef: {group: gateway.networking.k8s.io, kind: Gateway, name: kept, namespace: edge, port: 80}, controllerName: example.com/y, conditions: [{type: Accepted, status: "False"}]},
	    {parentRef: {group: gateway.networking.k8s.io, kind: HTTPRoute, name: route}, controllerName: example.com/z, conditions: [{type: Accepted, status: "True"}]}]}}`
	u := object(t, strings.Replace(moved, "PARENTS", "{name: http}, {name: kept, port: 80}", 1))
	imply(u, map[parent]string{{"Gateway", types.NamespacedName{Namespace: "edge", Name: "http"}}: "istio.io/gateway-controller"})
	parents, _, _ := unstructured.NestedSlice(u.Object, "status", "parents")
	var got []string
	for _, p := range parents {
		p, _ := p.(map[string]any)
		name, _, _ := unstructured.NestedString(p, "parentRef", "name")
		conditions, _, _ := unstructured.NestedSlice(p, "conditions")
		status := ""
		for _, c := range conditions {
			if c, _ := c.(map[string]any); c["type"] == "Accepted" {
				status, _ = c["status"].(string)
			}
		}
		got = append(got, fmt.Sprint(name, " ", p["controllerName"], " ", status))
	}
	if d := cmp.Diff([]string{"http istio.io/gateway-controller True", "kept example.com/y False", "route example.com/z True"}, got); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	w := over(t, strings.Replace(moved, "PARENTS", "{name: http}", 1))
	views := w.Views()
	if len(views) != 1 || len(views[0].Routes) != 1 || views[0].Routes[0].Why != "" {
		t.Errorf("the gateways are %+v", views)
	}
}
