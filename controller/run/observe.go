package run

import (
	"context"
	"fmt"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// Scheme has all types that the controller reads.
func Scheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		clientgoscheme.AddToScheme, v1alpha1.AddToScheme, gatewayv1.Install, gatewayv1beta1.Install, securityv1.AddToScheme,
	} {
		if err := add(s); err != nil {
			return nil, fmt.Errorf("register types: %w", err)
		}
	}
	return s, nil
}

// Observe reads what a plan for e depends on, without facts about waypoints. It needs rights to read only, and blocks for two
// dozen requests where r has no cache. An error names the kind that could not be read.
func Observe(ctx context.Context, r client.Reader, e *v1alpha1.AmbientEdge) (*plan.Snapshot, error) {
	return new(Observer).Observe(ctx, r, e)
}

// Observer is for who observes again and again: it remembers which kinds the API server does not know. The zero value is ready, and may be used by
// several at once.
type Observer struct{ vendors vendors }

// Observe is the function Observe.
func (o *Observer) Observe(ctx context.Context, r client.Reader, e *v1alpha1.AmbientEdge) (*plan.Snapshot, error) {
	return observe(ctx, r, e, &o.vendors)
}

// observe is Observe, with what is known of kinds that are missing.
func observe(ctx context.Context, r client.Reader, e *v1alpha1.AmbientEdge, v *vendors) (*plan.Snapshot, error) {
	var (
		edges       v1alpha1.AmbientEdgeList
		namespaces  corev1.NamespaceList
		pods        corev1.PodList
		services    corev1.ServiceList
		deployments appsv1.DeploymentList
		daemonSets  appsv1.DaemonSetList
		gateways    gatewayv1.GatewayList
		classes     gatewayv1.GatewayClassList
		routes      gatewayv1.HTTPRouteList
		grants      gatewayv1beta1.ReferenceGrantList
		policies    securityv1.AuthorizationPolicyList
	)
	for _, l := range []struct {
		what string
		list client.ObjectList
	}{
		{"AmbientEdges", &edges},
		{"Namespaces", &namespaces},
		{"Pods", &pods},
		{"Services", &services},
		{"Deployments", &deployments},
		{"DaemonSets", &daemonSets},
		{"Gateways", &gateways},
		{"GatewayClasses", &classes},
		{"HTTPRoutes", &routes},
		{"ReferenceGrants", &grants},
		{"AuthorizationPolicies", &policies},
	} {
		if err := r.List(ctx, l.list); err != nil {
			return nil, fmt.Errorf("list %s: %w", l.what, err)
		}
	}
	s := &plan.Snapshot{
		Edge: e, Edges: edges.Items, Namespaces: namespaces.Items, Pods: pods.Items, Services: services.Items,
		Deployments: deployments.Items, DaemonSets: daemonSets.Items, Gateways: gateways.Items, Classes: classes.Items,
		HTTPRoutes: routes.Items, ReferenceGrants: grants.Items, Policies: policies.Items,
	}
	return s, v.observe(ctx, r, s)
}
