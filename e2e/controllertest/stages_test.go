package controllertest

import (
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// stagesWorld is what nobody but the test moves: the gateway's pod is alone in its namespace.
const stagesWorld = `
{apiVersion: v1, kind: Namespace, metadata: {name: EDGE, annotations: {test/idle: "yes"}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: SHOP, annotations: {test/idle: "yes", isthmus.dev/edges: EDGE/public}}}
---
{apiVersion: v1, kind: Service, metadata: {name: orders, namespace: SHOP}, spec: {selector: {app: orders}, ports: [{port: 80}]}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: gateway, namespace: EDGE}, spec: {selector: {matchLabels: {app: gateway}}, template: {metadata: {labels: {app: gateway}}, spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: nothing}]}}}}
`

const stagesEdge = `
{apiVersion: isthmus.dev/v1alpha1, kind: AmbientEdge, metadata: {name: public, namespace: EDGE},
 spec: {mode: Manage, workloadRefs: [{kind: Deployment, name: gateway}], backends: {services: [{namespace: SHOP, name: orders}]}, waypoint: {policy: Create, name: waypoint}}}
`

// errRefused is what a silent waypoint says.
var errRefused = errors.New("connection refused")

// stays says that the controller waits for a reason, and has written nothing more after a while.
func (s *site) stays(verb, reason string) {
	s.t.Helper()
	s.step(verb, reason)
	before := s.state(true)
	time.Sleep(700 * time.Millisecond) // three rounds of a controller that would hurry
	s.same(before, true)
	s.step(verb, reason)
}

// step waits until the first step that is left has a verb, and a reason that contains a text.
func (s *site) step(verb, reason string) {
	s.t.Helper()
	s.wait(verb+" is next, as "+reason, func() string {
		for _, step := range s.get("public").Status.Plan.Steps {
			if step.State == v1alpha1.StepDone {
				continue
			}
			if step.Verb == verb && strings.Contains(step.Reason, reason) {
				return ""
			}
			return step.ID + ": " + step.Reason
		}
		return "no step is left"
	})
}

func (s *site) exists(o client.Object) bool {
	s.t.Helper()
	err := s.c.Get(s.t.Context(), client.ObjectKeyFromObject(o), o)
	if client.IgnoreNotFound(err) != nil {
		s.t.Fatal(err)
	}
	return !apierrors.IsNotFound(err)
}

func (s *site) redirect(namespace, value string) {
	s.t.Helper()
	var pods corev1.PodList
	if err := s.c.List(s.t.Context(), &pods, client.InNamespace(namespace)); err != nil {
		s.t.Fatal(err)
	}
	for i := range pods.Items {
		patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"annotations":{"ambient.istio.io/redirection":`+value+`}}}`))
		if err := s.c.Patch(s.t.Context(), &pods.Items[i], patch); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *site) wayPoint() *gatewayv1.Gateway {
	return &gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: s.shop, Name: "waypoint"}}
}

func TestEveryStepWaitsForTheOneBefore(t *testing.T) {
	t.Parallel()
	s := newSite(t, "stages")
	s.apply(stagesWorld)
	s.wait("the gateway has a pod", func() string {
		var pods corev1.PodList
		if err := s.c.List(t.Context(), &pods, client.InNamespace(s.edge)); err != nil || len(pods.Items) == 0 {
			return "it has none"
		}
		return ""
	})
	p := &player{client: s.mesh.Client()}
	before := s.state(false)
	s.apply(stagesEdge)
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.edge}}

	s.stays(plan.VerbVerify, "0 of 1 pods are captured")
	if s.exists(ns); ns.Labels[plan.LabelDataplaneMode] != "ambient" {
		t.Errorf("the namespace's labels are %v", ns.Labels)
	}
	wired := func() bool { return s.service("orders").Labels[plan.LabelUseWaypoint] != "" }
	if wired() {
		t.Fatal("a Service leads to a waypoint before the gateway is captured")
	}
	s.redirect(s.edge, `"enabled"`)
	s.stays(plan.VerbAwait, "istiod has not programmed it yet")
	g := s.wayPoint()
	if !s.exists(g) || g.Labels[v1alpha1.LabelOwner] != s.edge+".public" || wired() {
		t.Fatalf("waypoint has labels %v, and the Service is wired: %v", g.Labels, wired())
	}

	shared.ask.silence(s.shop, errRefused)
	defer shared.ask.silence(s.shop, nil)
	if !p.waypoint(t.Context(), g, nil) {
		t.Fatal("the waypoint could not be programmed")
	}
	s.stays(plan.VerbAwait, "it does not answer: connection refused")
	if wired() {
		t.Fatal("a Service leads to a silent waypoint")
	}

	shared.ask.silence(s.shop, nil)
	s.stays(plan.VerbConfirm, "istiod has not bound it")
	if labels := s.service("orders").Labels; labels[plan.LabelUseWaypoint] != "waypoint" || labels[edge.LabelIngressUseWaypoint] != "" {
		t.Errorf("the Service's labels are %v", labels)
	}
	if c := meta.FindStatusCondition(s.get("public").Status.Conditions, v1alpha1.ConditionReady); c == nil || c.Status == metav1.ConditionTrue {
		t.Errorf("Ready is %+v", c)
	}
	p.bind(t.Context(), s.service("orders"), map[string]bool{s.shop + "/waypoint": true})
	s.ready("public", v1alpha1.ReasonDone)

	s.delete(s.theEdge("public"))
	s.wait("the waypoint is gone", func() string {
		if s.exists(s.wayPoint()) {
			return "it is there"
		}
		return ""
	})
	if wired() {
		t.Error("the waypoint went before its Service was unwired")
	}
	s.wait("the namespace is let go", func() string {
		if s.exists(ns); ns.Labels[plan.LabelDataplaneMode] != "" {
			return "it is labelled"
		}
		return ""
	})
	if !s.exists(s.theEdge("public")) {
		t.Error("the edge went while its gateway's pod was captured")
	}
	s.redirect(s.edge, "null")
	s.gone(s.theEdge("public"))
	s.same(before, false)
}
