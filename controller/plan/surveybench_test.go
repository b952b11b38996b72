package plan_test

import (
	"fmt"
	"testing"

	apisecurity "istio.io/api/security/v1"
	apitype "istio.io/api/type/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// BenchmarkSurvey looks at gateways of Istio that send to five Services in each of a hundred namespaces: twice as much is to take twice as long.
func BenchmarkSurvey(b *testing.B) {
	for _, gateways := range []int{1, 2, 4, 8} {
		b.Run(fmt.Sprint(gateways), func(b *testing.B) {
			s := surveyed(gateways)
			for b.Loop() {
				if n := len(plan.Survey(s)); n != gateways {
					b.Fatalf("there are %d gateways, and %d were seen", gateways, n)
				}
			}
		})
	}
}

// surveyed is a cluster of gateways, each with its hundred namespaces.
func surveyed(gateways int) *plan.Snapshot {
	s := &plan.Snapshot{Classes: []gatewayv1.GatewayClass{
		{ObjectMeta: metav1.ObjectMeta{Name: "istio"}, Spec: gatewayv1.GatewayClassSpec{ControllerName: "istio.io/gateway-controller"}},
		{ObjectMeta: metav1.ObjectMeta{Name: "istio-waypoint"}, Spec: gatewayv1.GatewayClassSpec{ControllerName: plan.WaypointController}},
	}}
	all := gatewayv1.NamespacesFromAll
	for g := range gateways {
		edge := fmt.Sprintf("edge-%d", g)
		s.Gateways = append(s.Gateways, gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: "edge", Name: edge}, Spec: gatewayv1.GatewaySpec{
			GatewayClassName: "istio",
			Listeners:        []gatewayv1.Listener{{Name: "http", Port: 80, AllowedRoutes: &gatewayv1.AllowedRoutes{Namespaces: &gatewayv1.RouteNamespaces{From: &all}}}},
		}})
		s.Pods = append(s.Pods, plan.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "edge", Name: edge + "-1", Labels: map[string]string{"gateway.networking.k8s.io/gateway-name": edge}},
			Spec:       plan.PodSpec{ServiceAccountName: edge + "-istio"},
		})
		for n := range 100 {
			s.Namespaces = append(s.Namespaces, namespaceOfSurvey(s, edge, fmt.Sprintf("team-%d-%d", g, n)))
		}
	}
	return s
}

// namespaceOfSurvey adds what is in a namespace, which an edge sends to.
func namespaceOfSurvey(s *plan.Snapshot, edge, ns string) corev1.Namespace {
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: ns, Name: name} }
	s.Gateways = append(s.Gateways, gatewayv1.Gateway{ObjectMeta: meta("waypoint"), Spec: gatewayv1.GatewaySpec{GatewayClassName: "istio-waypoint"}})
	home, port := gatewayv1.Namespace("edge"), gatewayv1.PortNumber(80)
	ref := gatewayv1.ParentReference{Namespace: &home, Name: gatewayv1.ObjectName(edge)}
	for i := range 20 {
		name := fmt.Sprintf("app-%d", i)
		labels := map[string]string{"app": name}
		s.Services = append(s.Services, corev1.Service{ObjectMeta: meta(name), Spec: corev1.ServiceSpec{
			ClusterIP: "10.96.0.1", Selector: labels, Ports: []corev1.ServicePort{{Port: 80}},
		}})
		for j := range 2 {
			p := plan.Pod{ObjectMeta: meta(fmt.Sprintf("%s-%d", name, j)), Spec: plan.PodSpec{ServiceAccountName: name}}
			p.Labels, p.Annotations = labels, map[string]string{plan.AnnotationRedirection: "enabled"}
			s.Pods = append(s.Pods, p)
		}
		if i < 2 {
			s.Deployments = append(s.Deployments, appsv1.Deployment{ObjectMeta: meta(name), Spec: appsv1.DeploymentSpec{
				Selector: &metav1.LabelSelector{MatchLabels: labels},
				Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{
					Containers: []corev1.Container{{Image: "registry.invalid/app:1"}},
				}},
			}})
		}
		if i >= 5 {
			continue
		}
		to := gatewayv1.BackendObjectReference{Name: gatewayv1.ObjectName(name), Port: &port}
		route := gatewayv1.HTTPRoute{ObjectMeta: meta(name), Spec: gatewayv1.HTTPRouteSpec{
			CommonRouteSpec: gatewayv1.CommonRouteSpec{ParentRefs: []gatewayv1.ParentReference{ref}},
			Rules:           []gatewayv1.HTTPRouteRule{{BackendRefs: []gatewayv1.HTTPBackendRef{{BackendRef: gatewayv1.BackendRef{BackendObjectReference: to}}}}},
		}}
		route.Status.Parents = []gatewayv1.RouteParentStatus{{ParentRef: ref, ControllerName: "istio.io/gateway-controller", Conditions: []metav1.Condition{
			{Type: "Accepted", Status: "True"}, {Type: "ResolvedRefs", Status: "True"},
		}}}
		s.HTTPRoutes = append(s.HTTPRoutes, route)
		policy := &securityv1.AuthorizationPolicy{ObjectMeta: meta(name)}
		account := "cluster.local/ns/edge/sa/" + edge + "-istio"
		if policy.Spec.TargetRefs = []*apitype.PolicyTargetReference{{Kind: "Service", Name: name}}; i%2 == 1 {
			policy.Spec.TargetRefs, policy.Spec.Selector, account = nil, &apitype.WorkloadSelector{MatchLabels: labels}, "cluster.local/ns/"+ns+"/sa/waypoint"
		}
		policy.Spec.Rules = []*apisecurity.Rule{{From: []*apisecurity.Rule_From{{Source: &apisecurity.Source{Principals: []string{account}}}}}}
		s.Policies = append(s.Policies, policy)
	}
	strict := &securityv1.PeerAuthentication{ObjectMeta: meta("default")}
	strict.Spec.Mtls = &apisecurity.PeerAuthentication_MutualTLS{Mode: apisecurity.PeerAuthentication_MutualTLS_STRICT}
	s.Strictness = append(s.Strictness, strict)
	return corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns, Labels: map[string]string{
		plan.LabelUseWaypoint: "waypoint", "istio.io/ingress-use-waypoint": "true",
	}}}
}
