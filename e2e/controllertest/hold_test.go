package controllertest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

func (s *site) merge(o client.Object, patch string) {
	s.t.Helper()
	if err := s.c.Patch(s.t.Context(), o, client.RawPatch(types.MergePatchType, []byte(s.text(patch)))); err != nil {
		s.t.Fatal(err)
	}
}

// A route that its gateway has not accepted again yet may still be served as it was: what was wired for it stays, its policies with it.
func TestAnEditedRouteKeepsWhatIsWired(t *testing.T) {
	t.Parallel()
	s := kgatewaySite(t, "edited")
	s.apply(edgeOfKgateway)
	s.ready("public", v1alpha1.ReasonDone)
	route := object("gateway.networking.k8s.io/v1", "HTTPRoute", s.edge, "orders")
	held := func() map[string]string {
		all := s.state(true)
		delete(all, "HTTPRoute "+s.edge+"/orders")
		return all
	}
	before := held()
	look := func(what string) {
		s.ready("public", v1alpha1.ReasonInProgress)
		time.Sleep(500 * time.Millisecond) // two rounds of a controller that would take something back
		s.ready("public", v1alpha1.ReasonInProgress)
		if after := held(); fmt.Sprint(after) != fmt.Sprint(before) {
			t.Errorf("%s: from %v to %v", what, before, after)
		}
	}
	s.merge(route, `{"spec":{"hostnames":["x.example.com"]}}`)
	look("the route is edited")
	s.acceptAt(s.edge, "orders", 2)
	s.ready("public", v1alpha1.ReasonDone)
	if err := s.c.Status().Patch(t.Context(), route, client.RawPatch(types.MergePatchType, []byte(`{"status":{"parents":[]}}`))); err != nil {
		t.Fatal(err)
	}
	look("the gateway's controller begins anew")
	s.delete(route)
	s.wait("a route that is gone needs no waypoint", func() string {
		if labels := s.service("orders").Labels; len(labels) > 1 {
			return fmt.Sprintf("labels are %v", labels)
		}
		return ""
	})
}

// Who copies an object copies its owner label too. Only what the controller made is deleted.
func TestWhatHasACopiedLabelIsLeftAlone(t *testing.T) {
	t.Parallel()
	s := kgatewaySite(t, "copied")
	s.apply(edgeOfKgateway)
	s.ready("public", v1alpha1.ReasonDone)
	s.apply(`{apiVersion: v1, kind: Namespace, metadata: {name: SHOP-other, annotations: {isthmus.dev/edges: EDGE/public}}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: entry, namespace: SHOP-other, labels: {isthmus.dev/owner: EDGE.public}}, spec: {gatewayClassName: kgateway, listeners: [{name: http, port: 80, protocol: HTTP}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: waypoint, namespace: SHOP-other, labels: {isthmus.dev/owner: EDGE.public}}, spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}}`)
	there := func() {
		for _, name := range []string{"entry", "waypoint"} {
			g := &gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: s.shop + "-other", Name: name}}
			if !s.exists(g) || g.DeletionTimestamp != nil {
				t.Fatalf("Gateway %s of somebody else was deleted", name)
			}
		}
	}
	time.Sleep(500 * time.Millisecond) // two rounds of a controller that would delete them
	there()
	s.ready("public", v1alpha1.ReasonDone)
	s.delete(s.theEdge("public"))
	s.gone(s.theEdge("public"))
	there()
	if s.exists(s.wayPoint()) {
		t.Error("the waypoint that was made is still there")
	}
}

// A waypoint that others lead to is not deleted, whatever they lead there by.
func TestUndoHaltsForAWaypointsUsers(t *testing.T) {
	t.Parallel()
	for name, user := range map[string]string{
		"a-namespace": `{apiVersion: v1, kind: Namespace, metadata: {name: SHOP, labels: {istio.io/dataplane-mode: ambient, istio.io/use-waypoint: waypoint}, annotations: {isthmus.dev/edges: "other/edge, EDGE/public"}}}`,
		"a-pod":       `{apiVersion: v1, kind: Pod, metadata: {name: other, namespace: SHOP, labels: {istio.io/use-waypoint: waypoint}}, spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: nothing}]}}`,
	} {
		t.Run(name, func(t *testing.T) {
			s := kgatewaySite(t, "used-by-"+name)
			s.apply(edgeOfKgateway)
			s.ready("public", v1alpha1.ReasonDone)
			s.apply(user)
			s.delete(s.theEdge("public"))
			e, _ := s.ready("public", v1alpha1.ReasonUndoHalted)
			if f := finding(e, v1alpha1.FindingUndoHalted); f == nil || f.Object != "Gateway "+s.shop+"/waypoint" {
				t.Errorf("findings are %+v", e.Status.Findings)
			}
			if g := s.wayPoint(); !s.exists(g) || g.DeletionTimestamp != nil {
				t.Fatal("the waypoint was deleted")
			}
			s.confirm("public")
			s.gone(s.theEdge("public"))
		})
	}
}

// A gateway is not restarted because other pods come into its namespace, or go.
func TestPassingPodsDoNotRollTheGateway(t *testing.T) {
	t.Parallel()
	s := newSite(t, "passing")
	s.apply(strings.Replace(plainWorld, "spec: {workloadRefs", "spec: {mode: Manage, workloadRefs", 1))
	s.ready("public", v1alpha1.ReasonDone)
	template := func() string {
		d := &appsv1.Deployment{}
		if err := s.c.Get(t.Context(), types.NamespacedName{Namespace: s.edge, Name: "gateway"}, d); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(d.Generation, d.Spec.Template.Labels)
	}
	before := template()
	look := func(found bool) {
		s.wait(fmt.Sprintf("finding %s: %t", v1alpha1.FindingBroughtIn, found), func() string {
			if e := s.get("public"); (finding(e, v1alpha1.FindingBroughtIn) != nil) != found {
				return fmt.Sprintf("findings are %+v", e.Status.Findings)
			}
			return ""
		})
		e, _ := s.ready("public", v1alpha1.ReasonDone)
		if got, want := e.Status.Plan.Steps[0].ID, "Enrol Namespace "+s.edge; got != want {
			t.Errorf("the first step is %s, want %s", got, want)
		}
		if now := template(); now != before {
			t.Errorf("the gateway's Deployment was %s and is %s", before, now)
		}
	}
	s.apply(`{apiVersion: v1, kind: Pod, metadata: {name: cron, namespace: EDGE}, spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: nothing}]}}`)
	look(true)
	s.delete(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: s.edge, Name: "cron"}})
	look(false)
}
