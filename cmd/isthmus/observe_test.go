package main

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// observed is a cluster with a Gateway of kgateway that has an AmbientEdge, one of Contour, ingress-nginx, and a waypoint.
func observed() *plan.Snapshot {
	gateway := func(ns, name, class string) gatewayv1.Gateway {
		return gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Spec: gatewayv1.GatewaySpec{GatewayClassName: gatewayv1.ObjectName(class)}}
	}
	class := func(name, controller string) gatewayv1.GatewayClass {
		return gatewayv1.GatewayClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: gatewayv1.GatewayClassSpec{ControllerName: gatewayv1.GatewayController(controller)}}
	}
	nginx := appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "ingress", Name: "nginx"}, Spec: appsv1.DeploymentSpec{
		Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "nginx"}},
		Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Image: "registry.k8s.io/ingress-nginx/controller:v1.15.1"}}}},
	}}
	return &plan.Snapshot{
		Hearsay:        true,
		Edges:          []v1alpha1.AmbientEdge{{ObjectMeta: metav1.ObjectMeta{Namespace: "edge", Name: "public"}, Spec: v1alpha1.AmbientEdgeSpec{TargetRefs: []v1alpha1.TargetRef{{Name: "http"}}}}},
		Namespaces:     []corev1.Namespace{{ObjectMeta: metav1.ObjectMeta{Name: "edge"}}, {ObjectMeta: metav1.ObjectMeta{Name: "ingress"}}},
		Gateways:       []gatewayv1.Gateway{gateway("shop", "waypoint", "istio-waypoint"), gateway("edge", "http", "kgateway"), gateway("edge", "contour", "contour")},
		Classes:        []gatewayv1.GatewayClass{class("kgateway", "kgateway.dev/kgateway"), class("contour", "projectcontour.io/gateway-controller"), class("istio-waypoint", plan.WaypointController)},
		Deployments:    []appsv1.Deployment{nginx},
		IngressClasses: []networkingv1.IngressClass{{ObjectMeta: metav1.ObjectMeta{Name: "nginx"}, Spec: networkingv1.IngressClassSpec{Controller: "k8s.io/ingress-nginx"}}},
		Pods:           []plan.Pod{{ObjectMeta: metav1.ObjectMeta{Namespace: "edge", Name: "http-1", Labels: map[string]string{"gateway.networking.k8s.io/gateway-name": "http"}}}},
	}
}

func TestObservationFitsATerminal(t *testing.T) {
	doc := newObserveDocument(observed(), func(*plan.Candidate) bool { return true })
	for _, width := range []int{0, 60, 80, 100, 120} {
		var out bytes.Buffer
		if err := doc.print(&page{w: &out, width: width}); err != nil {
			t.Fatal(err)
		}
		t.Log("\n" + out.String())
		for _, part := range []string{"edge/contour", "edge/http", "public (Observe)", "Deployment ingress/nginx", "ingress-nginx", "0/1", "Enrol"} {
			if !strings.Contains(out.String(), part) {
				t.Errorf("width %d: %q is not said", width, part)
			}
		}
		if strings.Contains(out.String(), "shop/waypoint") {
			t.Error("a waypoint is no gateway")
		}
		for _, line := range strings.Split(out.String(), "\n") {
			if width > 0 && utf8.RuneCountInString(line) > width || strings.HasSuffix(line, " ") {
				t.Errorf("width %d: %q", width, line)
			}
		}
	}
}

func TestObservationOfOneGateway(t *testing.T) {
	for name, want := range map[string][]string{
		"contour": {"Gateway edge/contour, contour, 0 of 0 pods captured", "contour cli", "Plan of AmbientEdge edge/contour, mode Manage", "kubectl annotate namespace NAMESPACE isthmus.dev/edges=edge/contour", "isthmus observe edge/contour -o yaml | kubectl apply -f -", "# The AmbientEdge that would do this:", "kind: AmbientEdge", "name: contour", "policy: Create"},
		"http":    {"Gateway edge/http, kgateway, 0 of 1 pods captured", "It needs before: helm upgrade kgateway with waypoint.enabled=true", "Plan of AmbientEdge edge/public, mode Observe"},
		"nginx":   {"Deployment ingress/nginx, ingress-nginx", "ISM324", "from: Ingresses", "workloadRefs:"},
	} {
		doc := newObserveDocument(observed(), func(c *plan.Candidate) bool { return c.Key.Name == name })
		if len(doc.Gateways) != 1 {
			t.Fatalf("%s: %d gateways", name, len(doc.Gateways))
		}
		var out bytes.Buffer
		if err := doc.Gateways[0].printAll(&page{w: &out, width: 100}); err != nil {
			t.Fatal(err)
		}
		result{code: exitOK}.want(t, exitOK, out.String(), want...)
		if has := strings.Contains(out.String(), "kind: AmbientEdge"); has == doc.Gateways[0].HasEdge {
			t.Errorf("%s: an AmbientEdge is shown: %v", name, has)
		}
	}
}

// TestWhatAVendorNeeds: kgateway's setting is asked for without a route too, until it is seen to be there.
func TestWhatAVendorNeeds(t *testing.T) {
	for _, c := range []struct {
		value string // of KGW_ENABLE_WAYPOINT; "-": there is no controller
		want  v1alpha1.Severity
	}{{"-", v1alpha1.SeverityInfo}, {"", v1alpha1.SeverityError}, {"false", v1alpha1.SeverityError}, {"true", ""}} {
		s := observed()
		if c.value != "-" {
			container := corev1.Container{Image: "cr.kgateway.dev/kgateway-dev/kgateway:v2.4.0"}
			if c.value != "" {
				container.Env = []corev1.EnvVar{{Name: "KGW_ENABLE_WAYPOINT", Value: c.value}}
			}
			d := appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "kgateway-system", Name: "kgateway"}}
			d.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"kgateway": "kgateway"}}
			d.Spec.Template.Labels, d.Spec.Template.Spec.Containers = d.Spec.Selector.MatchLabels, []corev1.Container{container}
			s.Deployments = append(s.Deployments, d)
		}
		doc := newObserveDocument(s, func(c *plan.Candidate) bool { return c.Key.Name == "http" })
		switch needs := doc.Gateways[0].Needs; {
		case c.want == "" && len(needs) > 0, c.want != "" && (len(needs) != 1 || needs[0].Severity != c.want || !strings.Contains(needs[0].Fix, "waypoint.enabled=true")):
			t.Errorf("KGW_ENABLE_WAYPOINT=%q: it needs %+v", c.value, needs)
		}
	}
}

// denied reads nothing of some kinds.
type denied struct {
	client.Reader
	deny map[string]error
}

func (d denied) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	switch list.(type) {
	case *corev1.PodList:
		return d.deny["pods"]
	case *gatewayv1.GatewayList:
		return d.deny["gateways"]
	case *corev1.ServiceList:
		return d.deny["services"]
	}
	return nil
}

func TestMissingRightsAreNamedTogether(t *testing.T) {
	forbidden := func(group, resource string) error {
		return apierrors.NewForbidden(schema.GroupResource{Group: group, Resource: resource}, "", errors.New("no"))
	}
	f := &observeFlags{}
	_, err := f.from(t.Context(), denied{deny: map[string]error{"pods": forbidden("", "pods"), "gateways": forbidden("gateway.networking.k8s.io", "gateways")}}, "")
	if err == nil || !strings.Contains(err.Error(), "the rights to list gateways.gateway.networking.k8s.io, pods are missing") || !strings.Contains(detail(err).Next, "isthmus-view") {
		t.Errorf("got %v, next %q", err, detail(err).Next)
	}
	if _, err := f.from(t.Context(), denied{deny: map[string]error{"services": errors.New("broken")}}, ""); err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("another error: got %v", err)
	}
	doc, err := f.from(t.Context(), denied{}, "")
	if err != nil || len(doc.Gateways) != 0 || !strings.Contains(doc.nothing(""), "in this cluster") {
		t.Errorf("an empty cluster: got %+v, %v", doc, err)
	}
}

func TestObserveUsage(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"observe", "a/b/c"}, "is not NAMESPACE/NAME of a gateway"},
		{[]string{"observe", "-o", "yaml"}, "-o yaml is the AmbientEdge for one gateway"},
		{[]string{"observe", "--watch", "edge/http"}, "--watch is for all gateways"},
		{[]string{"observe", "-n", "x", "edge/http"}, "leave one of them out"},
		{[]string{"observe", "a", "b"}, "1 arg"},
	} {
		r := isthmus(t, c.args...)
		r.want(t, exitUsage, r.stderr, c.want, "see isthmus observe --help")
	}
}

// TestConsentKeepsThoseBefore: the command that observe prints is one that works, and takes nobody's consent away.
func TestConsentKeepsThoseBefore(t *testing.T) {
	s := observed()
	s.Edge = &v1alpha1.AmbientEdge{ObjectMeta: metav1.ObjectMeta{Namespace: "edge", Name: "ingress"}}
	for name, consent := range map[string]string{"fresh": "", "shop": "edge/public", "done": "edge/public,edge/ingress"} {
		ns := corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if consent != "" {
			ns.Annotations = map[string]string{v1alpha1.AnnotationEdges: consent}
		}
		s.Namespaces = append(s.Namespaces, ns)
	}
	doc := &planDocument{Namespace: "edge", Name: "ingress"}
	for _, service := range []string{"edge/own", "fresh/a", "shop/b", "shop/c", "done/d"} {
		doc.Backends = append(doc.Backends, v1alpha1.BackendStatus{Service: service})
	}
	want := []string{
		"kubectl annotate namespace fresh isthmus.dev/edges=edge/ingress",
		`kubectl annotate --overwrite namespace shop "isthmus.dev/edges=$(kubectl get namespace shop -o jsonpath='{.metadata.annotations.isthmus\.dev/edges}'),edge/ingress"`,
	}
	if got := doc.consents(s); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
