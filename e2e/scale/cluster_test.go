package scale

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/manifests"
)

// home is an edge's namespace, with a gateway that is captured.
const home = `
{apiVersion: v1, kind: Namespace, metadata: {name: edge-E}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: http, namespace: edge-E}, spec: {gatewayClassName: kgateway, infrastructure: {labels: {istio.io/dataplane-mode: ambient}}, listeners: [{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: http, namespace: edge-E, labels: {gateway.networking.k8s.io/gateway-name: http, istio.io/dataplane-mode: ambient}, annotations: {ambient.istio.io/redirection: enabled}}, spec: {serviceAccountName: http, containers: [{name: c, image: nothing}]}}
`

// shop is a namespace of backends, with a waypoint that is there.
const shop = `
{apiVersion: v1, kind: Namespace, metadata: {name: shop-N, labels: {istio.io/dataplane-mode: ambient}, annotations: {isthmus.dev/edges: edge-E/public}}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: waypoint, namespace: shop-N, labels: {istio.io/waypoint-for: service}}, spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: waypoint, namespace: shop-N, labels: {gateway.networking.k8s.io/gateway-name: waypoint}}, spec: {selector: {gateway.networking.k8s.io/gateway-name: waypoint}, ports: [{name: hbone, port: 15008}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: waypoint, namespace: shop-N, labels: {gateway.networking.k8s.io/gateway-name: waypoint}}, spec: {serviceAccountName: waypoint, containers: [{name: c, image: nothing}]}}
`

// service is a backend with one pod, and a route of the edge's gateway.
const service = `
{apiVersion: v1, kind: Service, metadata: {name: service-S, namespace: shop-N}, spec: {selector: {app: service-S}, ports: [{name: http, port: 80}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: service-S, namespace: shop-N, labels: {app: service-S}, annotations: {ambient.istio.io/redirection: enabled}}, spec: {containers: [{name: c, image: nothing}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: service-S, namespace: shop-N}, spec: {parentRefs: [{name: http, namespace: edge-E}], hostnames: [service-S.example.com], rules: [{matches: [{path: {type: PathPrefix, value: /}}], backendRefs: [{name: service-S, port: 80}]}]}}
`

const ambientEdge = `
apiVersion: isthmus.dev/v1alpha1
kind: AmbientEdge
metadata: {name: public, namespace: edge-E}
spec:
  targetRefs: [{name: http}]
  mode: Manage
  waypoint: {policy: Use, name: waypoint}
`

const classes = `
{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: istio-waypoint}, spec: {controllerName: istio.io/mesh-controller}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: kgateway}, spec: {controllerName: kgateway.dev/kgateway}}
`

// shopOf is the namespace of a Service, and edgeOf the number of the edge that sends to a namespace.
func shopOf(service int) int { return service % *namespaces }
func edgeOf(shop int) int    { return shop % *edges }

// populate makes all objects.
func populate(t *testing.T, m *mesh.Mesh) {
	t.Helper()
	all, err := manifests.Install()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Apply(t.Context(), string(all)+"---\n"+classes); err != nil {
		t.Fatal(err)
	}
	replace := func(text string, shop, service int) string {
		return strings.NewReplacer("edge-E", fmt.Sprintf("edge-%d", edgeOf(shop)), "shop-N", fmt.Sprintf("shop-%d", shop), "service-S", fmt.Sprintf("service-%d", service)).Replace(text)
	}
	inParallel(t, *edges, func(ctx context.Context, n int) error { return m.Apply(ctx, replace(home, n, 0)) })
	inParallel(t, *namespaces, func(ctx context.Context, n int) error {
		if err := m.Apply(ctx, replace(shop, n, 0)); err != nil {
			return err
		}
		return program(ctx, m.Client(), n)
	})
	inParallel(t, *services, func(ctx context.Context, n int) error {
		if err := m.Apply(ctx, replace(service, shopOf(n), n)); err != nil {
			return err
		}
		return accept(ctx, m.Client(), n)
	})
	inParallel(t, *edges, func(ctx context.Context, n int) error { return m.Apply(ctx, replace(ambientEdge, n, 0)) })
}

func inParallel(t *testing.T, n int, do func(ctx context.Context, i int) error) {
	t.Helper()
	g, ctx := errgroup.WithContext(t.Context())
	g.SetLimit(16)
	for i := range n {
		g.Go(func() error { return do(ctx, i) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

// accept says for the gateway that it has accepted a Service's route.
func accept(ctx context.Context, c client.Client, service int) error {
	r := &gatewayv1.HTTPRoute{}
	r.Namespace, r.Name = fmt.Sprintf("shop-%d", shopOf(service)), fmt.Sprintf("service-%d", service)
	now := time.Now().UTC().Format(time.RFC3339)
	condition := func(name string) string {
		return fmt.Sprintf(`{"type":%q,"status":"True","reason":%q,"message":"","observedGeneration":1,"lastTransitionTime":%q}`, name, name, now)
	}
	patch := fmt.Sprintf(`{"status":{"parents":[{"parentRef":{"name":"http","namespace":"edge-%d"},"controllerName":"kgateway.dev/kgateway","conditions":[%s,%s]}]}}`,
		edgeOf(shopOf(service)), condition("Accepted"), condition("ResolvedRefs"))
	return c.Status().Patch(ctx, r, client.RawPatch(types.MergePatchType, []byte(patch)))
}

// program says of a waypoint that it is programmed.
func program(ctx context.Context, c client.Client, n int) error {
	g, s := &gatewayv1.Gateway{}, &corev1.Service{}
	key := types.NamespacedName{Namespace: fmt.Sprintf("shop-%d", n), Name: "waypoint"}
	if err := errors.Join(c.Get(ctx, key, g), c.Get(ctx, key, s)); err != nil {
		return err
	}
	address := gatewayv1.IPAddressType
	g.Status.Addresses = []gatewayv1.GatewayStatusAddress{{Type: &address, Value: s.Spec.ClusterIP}}
	meta.SetStatusCondition(&g.Status.Conditions, metav1.Condition{
		Type: "Programmed", Status: metav1.ConditionTrue, Reason: "Programmed", ObservedGeneration: g.Generation,
	})
	return c.Status().Update(ctx, g)
}

// bind says of each Service, when it is labelled, that it leads to its waypoint, until ctx ends: what istiod would.
func bind(ctx context.Context, c client.WithWatch) {
	var g errgroup.Group
	g.SetLimit(16)
	for ctx.Err() == nil {
		// Who is slow is cut off, and a watch may be refused for a moment; a new one begins with all that is there.
		if w, err := c.Watch(ctx, &corev1.ServiceList{}); err == nil {
			for e := range w.ResultChan() {
				if s, ok := e.Object.(*corev1.Service); ok {
					bindOne(ctx, &g, c, s)
				}
			}
			w.Stop()
		}
		time.Sleep(100 * time.Millisecond)
	}
	_ = g.Wait() // those under way have ended with ctx
}

func bindOne(ctx context.Context, g *errgroup.Group, c client.WithWatch, s *corev1.Service) {
	if s.Labels[plan.LabelUseWaypoint] == "" || meta.IsStatusConditionTrue(s.Status.Conditions, plan.ConditionWaypointBound) {
		return
	}
	g.Go(func() error {
		patch := fmt.Sprintf(`{"status":{"conditions":[{"type":%q,"status":"True","reason":"WaypointAccepted","message":"","lastTransitionTime":%q}]}}`,
			plan.ConditionWaypointBound, time.Now().UTC().Format(time.RFC3339))
		for ctx.Err() == nil && client.IgnoreNotFound(c.Status().Patch(ctx, s, client.RawPatch(types.MergePatchType, []byte(patch)))) != nil {
			time.Sleep(50 * time.Millisecond)
		}
		return nil
	})
}
