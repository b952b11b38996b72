package run

import (
	"context"
	"errors"
	"fmt"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// Options of the controller. The zero value plans, and finds every waypoint silent.
type Options struct {
	// Prober asks waypoints whether they answer. Nil: nobody does, and no Service is ever wired.
	Prober Prober
	// TrustDomain is the mesh's. Empty means cluster.local.
	TrustDomain string
	// ObserveOnly: nothing is written but status, whatever the AmbientEdges say.
	ObserveOnly bool
}

// Setup adds the controller to a manager, whose scheme is Scheme. It does not block; the manager runs it.
func Setup(mgr ctrl.Manager, o Options) error {
	if mgr == nil {
		return errors.New("set up controller: no manager")
	}
	r := &reconciler{
		client: mgr.GetClient(), live: mgr.GetAPIReader(), events: mgr.GetEventRecorder("isthmus-controller"),
		trustDomain: o.TrustDomain, observeOnly: o.ObserveOnly, facts: facts{prober: o.Prober},
	}
	if err := r.vendors.watch(context.Background(), mgr.GetCache()); err != nil {
		return fmt.Errorf("set up controller: %w", err)
	}
	b := ctrl.NewControllerManagedBy(mgr).Named("ambientedge").For(&v1alpha1.AmbientEdge{})
	for _, o := range []client.Object{
		&corev1.Namespace{}, &corev1.Pod{}, &corev1.Service{}, &appsv1.Deployment{}, &appsv1.DaemonSet{}, &gatewayv1.Gateway{},
		&gatewayv1.GatewayClass{}, &gatewayv1.HTTPRoute{}, &gatewayv1beta1.ReferenceGrant{}, &securityv1.AuthorizationPolicy{}, &securityv1.PeerAuthentication{},
		&networkingv1.Ingress{}, &networkingv1.IngressClass{},
	} {
		b = b.Watches(o, handler.EnqueueRequestsFromMapFunc(r.requests))
	}
	return b.Complete(r)
}
