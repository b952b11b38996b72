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

const namespaces = `
{apiVersion: v1, kind: Namespace, metadata: {name: edge-N}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: shop-N, labels: {istio.io/dataplane-mode: ambient}, annotations: {isthmus.dev/edges: edge-N/public}}}
`

// site is a gateway that is captured, and a waypoint that is there.
const site = `
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: http, namespace: edge-N}, spec: {gatewayClassName: kgateway, infrastructure: {labels: {istio.io/dataplane-mode: ambient}}, listeners: [{name: http, port: 80, protocol: HTTP}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: http, namespace: edge-N, labels: {gateway.networking.k8s.io/gateway-name: http, istio.io/dataplane-mode: ambient}, annotations: {ambient.istio.io/redirection: enabled}}, spec: {serviceAccountName: http, containers: [{name: c, image: nothing}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: waypoint, namespace: shop-N, labels: {istio.io/waypoint-for: service}}, spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: waypoint, namespace: shop-N, labels: {gateway.networking.k8s.io/gateway-name: waypoint}}, spec: {selector: {gateway.networking.k8s.io/gateway-name: waypoint}, ports: [{name: hbone, port: 15008}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: waypoint, namespace: shop-N, labels: {gateway.networking.k8s.io/gateway-name: waypoint}}, spec: {serviceAccountName: waypoint, containers: [{name: c, image: nothing}]}}
`

const service = `
{apiVersion: v1, kind: Service, metadata: {name: NAME, namespace: shop-N}, spec: {selector: {app: NAME}, ports: [{name: http, port: 80}]}}
`

const ambientEdge = `
apiVersion: isthmus.dev/v1alpha1
kind: AmbientEdge
metadata: {name: public, namespace: edge-N}
spec:
  targetRefs: [{name: http}]
  mode: Manage
  waypoint: {policy: Use, name: waypoint}
  backends: {services: [LIST]}
`

const classes = `
{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: istio-waypoint}, spec: {controllerName: istio.io/mesh-controller}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: kgateway}, spec: {controllerName: kgateway.dev/kgateway}}
`

// populate makes all objects.
func populate(t *testing.T, m *mesh.Mesh) {
	t.Helper()
	ctx := t.Context()
	all, err := manifests.Install()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Apply(ctx, string(all)+"---\n"+classes); err != nil {
		t.Fatal(err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for n := range *edges {
		g.Go(func() error {
			number := strings.NewReplacer("-N", fmt.Sprintf("-%d", n))
			if err := m.Apply(ctx, number.Replace(namespaces+"---"+site)); err != nil {
				return err
			}
			if err := program(ctx, m.Client(), n); err != nil {
				return err
			}
			var list []string
			for i := n; i < *services; i += *edges {
				name := fmt.Sprintf("service-%d", i)
				if err := m.Apply(ctx, strings.ReplaceAll(number.Replace(service), "NAME", name)); err != nil {
					return err
				}
				list = append(list, fmt.Sprintf("{namespace: shop-%d, name: %s}", n, name))
			}
			return m.Apply(ctx, strings.ReplaceAll(number.Replace(ambientEdge), "LIST", strings.Join(list, ", ")))
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
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
func bind(ctx context.Context, c client.WithWatch) error {
	w, err := c.Watch(ctx, &corev1.ServiceList{})
	if err != nil {
		return err
	}
	defer w.Stop()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for {
		select {
		case <-ctx.Done():
			_ = g.Wait() // those under way have ended with ctx
			return nil
		case e, ok := <-w.ResultChan():
			if !ok {
				return errors.New("the watch of Services has ended")
			}
			s, ok := e.Object.(*corev1.Service)
			if !ok {
				return fmt.Errorf("the watch of Services says %v", e.Object)
			}
			if s.Labels[plan.LabelUseWaypoint] == "" || meta.IsStatusConditionTrue(s.Status.Conditions, plan.ConditionWaypointBound) {
				continue
			}
			g.Go(func() error {
				patch := fmt.Sprintf(`{"status":{"conditions":[{"type":%q,"status":"True","reason":"WaypointAccepted","message":"","lastTransitionTime":%q}]}}`,
					plan.ConditionWaypointBound, time.Now().UTC().Format(time.RFC3339))
				return client.IgnoreNotFound(c.Status().Patch(gctx, s, client.RawPatch(types.MergePatchType, []byte(patch))))
			})
		}
	}
}
