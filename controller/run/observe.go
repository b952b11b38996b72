package run

import (
	"context"
	"fmt"
	"slices"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
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

// pageSize is how many objects the controller asks for at once where it does not ask its cache: what is not kept of them is dropped page by page.
const pageSize = 500

// Observe reads what a plan for e depends on, without facts about waypoints. It needs rights to read only, and blocks for two
// dozen requests, several at a time, where r has no cache. An error names the kind that could not be read.
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

// observe is Observe, with what is known of kinds that are missing, and options for every list.
func observe(ctx context.Context, r client.Reader, e *v1alpha1.AmbientEdge, v *vendors, opts ...client.ListOption) (*plan.Snapshot, error) {
	s := &plan.Snapshot{Edge: e}
	reads := append([]read{
		pages("AmbientEdges", &s.Edges, func(l *v1alpha1.AmbientEdgeList) []v1alpha1.AmbientEdge { return l.Items }),
		pages("Namespaces", &s.Namespaces, func(l *corev1.NamespaceList) []corev1.Namespace { return l.Items }),
		pages("Pods", &s.Pods, podsOf),
		pages("Services", &s.Services, func(l *corev1.ServiceList) []corev1.Service { return l.Items }),
		pages("Deployments", &s.Deployments, func(l *appsv1.DeploymentList) []appsv1.Deployment { return l.Items }),
		pages("DaemonSets", &s.DaemonSets, func(l *appsv1.DaemonSetList) []appsv1.DaemonSet { return l.Items }),
		pages("Gateways", &s.Gateways, func(l *gatewayv1.GatewayList) []gatewayv1.Gateway { return l.Items }),
		pages("HTTPRoutes", &s.HTTPRoutes, func(l *gatewayv1.HTTPRouteList) []gatewayv1.HTTPRoute { return l.Items }),
		pages("ReferenceGrants", &s.ReferenceGrants, func(l *gatewayv1beta1.ReferenceGrantList) []gatewayv1beta1.ReferenceGrant { return l.Items }),
		pages("AuthorizationPolicies", &s.Policies, func(l *securityv1.AuthorizationPolicyList) []*securityv1.AuthorizationPolicy { return l.Items }),
		func(ctx context.Context, r client.Reader, _ ...client.ListOption) error { return v.observe(ctx, r, s) },
	}, whole(s)...)
	err := each(len(reads), atOnce, func(i int) error { return reads[i](ctx, r, opts...) })
	if err != nil {
		return nil, err
	}
	return s, nil
}

// podsOf are the pods of a list, without what no plan depends on.
func podsOf(l *corev1.PodList) []plan.Pod {
	for i := range l.Items {
		stripPod(&l.Items[i])
	}
	return plan.PodsOf(l.Items)
}

// read adds all objects of a kind to a snapshot.
type read func(ctx context.Context, r client.Reader, opts ...client.ListOption) error

// whole reads the kinds of which every edge gets all: there are few of them, and they may concern any.
func whole(s *plan.Snapshot) []read {
	return []read{
		pages("GatewayClasses", &s.Classes, func(l *gatewayv1.GatewayClassList) []gatewayv1.GatewayClass { return l.Items }),
		pages("PeerAuthentications", &s.Strictness, func(l *securityv1.PeerAuthenticationList) []*securityv1.PeerAuthentication { return l.Items }),
		pages("RequestAuthentications", &s.RequestAuthentications, func(l *securityv1.RequestAuthenticationList) []*securityv1.RequestAuthentication { return l.Items }),
		pages("Ingresses", &s.Ingresses, func(l *networkingv1.IngressList) []networkingv1.Ingress { return l.Items }),
		pages("IngressClasses", &s.IngressClasses, func(l *networkingv1.IngressClassList) []networkingv1.IngressClass { return l.Items }),
	}
}

// pages reads all objects of a kind, without what no plan depends on. items are those of one list.
func pages[T any, L any, P interface {
	*L
	client.ObjectList
}](what string, to *[]T, items func(P) []T) read {
	return func(ctx context.Context, r client.Reader, opts ...client.ListOption) error {
		for page := opts; ; {
			list := P(new(L))
			if err := r.List(ctx, list, page...); err != nil {
				return fmt.Errorf("list %s: %w", what, err)
			}
			for _, o := range items(list) {
				if _, err := strip(any(&o)); err != nil {
					return err
				}
				if _, err := strip(any(o)); err != nil { // where lists are of pointers
					return err
				}
				*to = append(*to, o)
			}
			token := list.GetContinue()
			if token == "" || len(opts) == 0 { // a cache gives all at once, and a token that leads nowhere
				return nil
			}
			page = append(slices.Clone(opts), client.Continue(token))
		}
	}
}
