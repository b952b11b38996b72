package controllertest

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// kgatewayWorld is a Gateway of kgateway with its pod, and a Service that its route sends to.
const kgatewayWorld = `
{apiVersion: v1, kind: Namespace, metadata: {name: EDGE}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: SHOP, labels: {istio.io/dataplane-mode: ambient}}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: http, namespace: EDGE}, spec: {gatewayClassName: kgateway, listeners: [{name: http, port: 80, protocol: HTTP}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: http, namespace: EDGE, labels: {gateway.networking.k8s.io/gateway-name: http}}, spec: {serviceAccountName: http, containers: [{name: c, image: nothing}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: webhook, namespace: EDGE}, spec: {containers: [{name: c, image: nothing}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: orders, namespace: SHOP, labels: {team: shop}}, spec: {selector: {app: orders}, ports: [{name: http, port: 80}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: orders, namespace: SHOP, labels: {app: orders}}, spec: {containers: [{name: c, image: nothing}]}}
---
{apiVersion: gateway.networking.k8s.io/v1beta1, kind: ReferenceGrant, metadata: {name: routes, namespace: SHOP}, spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: EDGE}], to: [{group: "", kind: Service}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: orders, namespace: EDGE}, spec: {parentRefs: [{name: http}], rules: [{backendRefs: [{name: orders, namespace: SHOP, port: 80}]}]}}
`

const edgeOfKgateway = `
apiVersion: isthmus.dev/v1alpha1
kind: AmbientEdge
metadata: {name: public, namespace: EDGE}
spec:
  targetRefs: [{name: http}]
  mode: Manage
  waypoint: {policy: Create, name: waypoint}
`

const consent = `
{apiVersion: v1, kind: Namespace, metadata: {name: SHOP, labels: {istio.io/dataplane-mode: ambient}, annotations: {isthmus.dev/edges: "other/edge, EDGE/public"}}}
`

// kgatewaySite makes kgatewayWorld, with consent, and waits until it is at rest.
func kgatewaySite(t *testing.T, name string) *site {
	s := newSite(t, name)
	s.apply(kgatewayWorld)
	s.apply(consent)
	s.accept(s.edge, "orders")
	s.settled("orders")
	return s
}

// settled waits until the pods of the shop are captured.
func (s *site) settled(pods ...string) {
	s.t.Helper()
	for _, name := range pods {
		s.wait("pod "+name+" is captured", func() string {
			p := &corev1.Pod{}
			if err := s.c.Get(s.t.Context(), types.NamespacedName{Namespace: s.shop, Name: name}, p); err != nil {
				return err.Error()
			}
			if p.Annotations[plan.AnnotationRedirection] == "" {
				return "it is not"
			}
			return ""
		})
	}
}

func (s *site) service(name string) *corev1.Service {
	s.t.Helper()
	o := &corev1.Service{}
	if err := s.c.Get(s.t.Context(), types.NamespacedName{Namespace: s.shop, Name: name}, o); err != nil {
		s.t.Fatal(err)
	}
	return o
}

func TestEdgeIsManagedAndUndone(t *testing.T) {
	s := kgatewaySite(t, "life")
	before := s.state(false)
	s.apply(edgeOfKgateway)
	e, took := s.ready("public", v1alpha1.ReasonDone)
	t.Logf("ready after %v", took)
	readyInTime(t, took)
	var verbs []string
	for _, step := range e.Status.Plan.Steps {
		if step.State != v1alpha1.StepDone {
			t.Errorf("step %s is %s", step.ID, step.State)
		}
		verbs = append(verbs, step.Verb)
	}
	if got, want := strings.Join(verbs, " "), "Enrol Verify Create Await Wire Confirm Switch"; got != want {
		t.Errorf("steps are %s, want %s", got, want)
	}
	if !slices.Contains(e.Finalizers, v1alpha1.Finalizer) {
		t.Error("there is no finalizer")
	}
	if g := e.Status.Gateways; len(g) != 1 || g[0].Vendor != "kgateway" || g[0].Captured != 1 || g[0].Identity != "spiffe://cluster.local/ns/"+s.edge+"/sa/http" {
		t.Errorf("gateways are %+v", g)
	}
	if b := e.Status.Backends; len(b) != 1 || b[0].Waypoint != s.shop+"/waypoint" {
		t.Errorf("backends are %+v", b)
	}
	labels := s.service("orders").Labels
	if labels[plan.LabelUseWaypoint] != "waypoint" || labels[edge.LabelIngressUseWaypoint] != "true" || labels["team"] != "shop" {
		t.Errorf("the Service's labels are %v", labels)
	}
	var ns corev1.Namespace
	if err := s.c.Get(t.Context(), types.NamespacedName{Name: s.edge}, &ns); err != nil || ns.Labels[plan.LabelDataplaneMode] != "" {
		t.Errorf("the namespace's labels are %v, %v: the webhook must stay outside", ns.Labels, err)
	}

	t.Run("at rest nothing is written", func(t *testing.T) {
		version := s.get("public").ResourceVersion
		time.Sleep(600 * time.Millisecond) // three rounds of a controller that would not rest
		if now := s.get("public").ResourceVersion; now != version {
			t.Errorf("version %s became %s", version, now)
		}
	})
	t.Run("what is taken away comes back", func(*testing.T) {
		s.mends()
	})
	t.Run("undo", func(t *testing.T) {
		s.delete(s.theEdge("public"))
		t.Logf("undone after %v", s.gone(s.theEdge("public")))
		s.same(before, false)
	})
}

func TestNothingLeadsToASilentWaypoint(t *testing.T) {
	t.Parallel()
	s := kgatewaySite(t, "silent")
	shared.ask.silence(s.shop, errors.New("connection refused"))
	s.apply(edgeOfKgateway)
	var e *v1alpha1.AmbientEdge
	s.wait("the waypoint was asked", func() string {
		if e = s.get("public"); shared.ask.times(s.shop) < 3 || finding(e, v1alpha1.FindingWaypointSilent) == nil {
			return "it was not, or nobody says so"
		}
		return ""
	})
	if f := finding(e, v1alpha1.FindingWaypointSilent); !strings.Contains(f.Message, "connection refused") {
		t.Errorf("the finding is %+v", f)
	}
	for _, step := range e.Status.Plan.Steps {
		if (step.Verb == plan.VerbWire || step.Verb == plan.VerbSwitch) && step.State != v1alpha1.StepLater {
			t.Errorf("step %s is %s", step.ID, step.State)
		}
	}
	if labels := s.service("orders").Labels; len(labels) != 1 {
		t.Errorf("the Service's labels are %v", labels)
	}
	shared.ask.silence(s.shop, nil)
	s.ready("public", v1alpha1.ReasonDone)
}

// TestAWaypointMadeAnewIsAskedAnew has one of the same name answer a moment before.
func TestAWaypointMadeAnewIsAskedAnew(t *testing.T) {
	t.Parallel()
	s := kgatewaySite(t, "anew")
	s.apply(edgeOfKgateway)
	s.ready("public", v1alpha1.ReasonDone)
	s.delete(s.theEdge("public"))
	s.gone(s.theEdge("public"))
	shared.ask.silence(s.shop, errors.New("connection refused"))
	s.apply(edgeOfKgateway)
	s.step(plan.VerbAwait, "it does not answer: connection refused")
	if labels := s.service("orders").Labels; len(labels) != 1 {
		t.Errorf("the Service's labels are %v", labels)
	}
	shared.ask.silence(s.shop, nil)
	s.ready("public", v1alpha1.ReasonDone)
}

func TestEdgeIsUndoneHalfWay(t *testing.T) {
	t.Parallel()
	s := kgatewaySite(t, "half")
	before := s.state(false)
	shared.ask.silence(s.shop, errors.New("connection refused"))
	defer shared.ask.silence(s.shop, nil)
	s.apply(edgeOfKgateway)
	s.wait("the waypoint is there", func() string {
		if err := s.c.Get(t.Context(), types.NamespacedName{Namespace: s.shop, Name: "waypoint"}, &gatewayv1.Gateway{}); err != nil {
			return err.Error()
		}
		return ""
	})
	s.delete(s.theEdge("public"))
	s.gone(s.theEdge("public"))
	s.same(before, false)
}

func TestUndoOfWhatWasJustWritten(t *testing.T) {
	t.Parallel()
	s := kgatewaySite(t, "hasty")
	before := s.state(false)
	for i := range 5 {
		s.apply(edgeOfKgateway)
		time.Sleep(time.Duration(i) * 70 * time.Millisecond) // any moment must do
		s.delete(s.theEdge("public"))
		s.gone(s.theEdge("public"))
		// The API server may let an edge go whose finalizer has just come: then undo comes after.
		s.wait("all is as before", func() string { return cmp.Diff(before, s.state(false)) })
	}
}

// mends takes the label of Service orders away, and says that it comes back.
func (s *site) mends() {
	s.t.Helper()
	o := s.service("orders")
	if err := s.c.Patch(s.t.Context(), o, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"istio.io/use-waypoint":null}}}`))); err != nil {
		s.t.Fatal(err)
	}
	s.wait("the label is back", func() string {
		if s.service("orders").Labels[plan.LabelUseWaypoint] == "waypoint" {
			return ""
		}
		return "it is not"
	})
	s.ready("public", v1alpha1.ReasonDone)
}
