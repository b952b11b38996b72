package run

import (
	"cmp"
	"context"
	"fmt"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// Indexes of the cache.
const (
	indexOwner    = "isthmus.dev/owner"    // Services, Gateways and AuthorizationPolicies that an edge holds, by AmbientEdge.Owner
	indexWaypoint = "isthmus.dev/waypoint" // Services, Namespaces and pods that name a waypoint, by namespace/name of it
	indexGateway  = "isthmus.dev/gateway"  // Services that were made for a Gateway
	indexParent   = "isthmus.dev/parent"   // HTTPRoutes of a Gateway or a ListenerSet, by parentName
	indexClass    = "isthmus.dev/class"    // Gateways of a class
	indexVendor   = "isthmus.dev/vendor"   // Deployments and DaemonSets that are of a known vendor
	indexProxy    = "isthmus.dev/proxy"    // pods of Gateways that may be anywhere
	known         = "true"                 // value of the last two
)

// index makes the indexes. It must come before the cache starts.
func index(ctx context.Context, in client.FieldIndexer) error {
	for _, i := range []struct {
		object client.Object
		field  string
		values func(client.Object) []string
	}{
		{&corev1.Service{}, indexOwner, func(o client.Object) []string { return holdersAny(o) }},
		{&corev1.Service{}, indexWaypoint, led},
		{&corev1.Namespace{}, indexWaypoint, led},
		{&corev1.Pod{}, indexWaypoint, led},
		{&corev1.Service{}, indexGateway, func(o client.Object) []string {
			if name := o.GetLabels()[edge.LabelGatewayName]; name != "" {
				return []string{o.GetNamespace() + "/" + name}
			}
			return nil
		}},
		{&gatewayv1.Gateway{}, indexOwner, func(o client.Object) []string {
			if owner := o.GetLabels()[v1alpha1.LabelOwner]; owner != "" {
				return []string{owner}
			}
			return nil
		}},
		{&securityv1.AuthorizationPolicy{}, indexOwner, func(o client.Object) []string { return holdersAny(o) }},
		{&gatewayv1.Gateway{}, indexClass, func(o client.Object) []string { return []string{string(o.(*gatewayv1.Gateway).Spec.GatewayClassName)} }},
		{&appsv1.Deployment{}, indexVendor, func(o client.Object) []string { return when(vendorOf(&o.(*appsv1.Deployment).Spec.Template) != "") }},
		{&appsv1.DaemonSet{}, indexVendor, func(o client.Object) []string { return when(vendorOf(&o.(*appsv1.DaemonSet).Spec.Template) != "") }},
		{&corev1.Pod{}, indexProxy, func(o client.Object) []string { return when(proxy(o.(*corev1.Pod))) }},
		{&gatewayv1.HTTPRoute{}, indexParent, parents},
	} {
		if err := in.IndexField(ctx, i.object, i.field, i.values); err != nil {
			return fmt.Errorf("index %T by %s: %w", i.object, i.field, err)
		}
	}
	return nil
}

// when is the value of an index that has but one.
func when(it bool) []string {
	if it {
		return []string{known}
	}
	return nil
}

// led is the waypoint that an object names, as an index has it.
func led(o client.Object) []string {
	if key, ok := waypointOf(cmp.Or(o.GetNamespace(), o.GetName()), o.GetLabels()); ok {
		return []string{key.String()}
	}
	return nil
}

// waypointOf is the waypoint that labels of a namespace, or of a Service in it, name.
func waypointOf(namespace string, labels map[string]string) (types.NamespacedName, bool) {
	name := labels[plan.LabelUseWaypoint]
	if name == "" || name == "none" {
		return types.NamespacedName{}, false
	}
	return types.NamespacedName{Namespace: cmp.Or(labels[plan.LabelUseWaypointNamespace], namespace), Name: name}, true
}
