package run

import (
	"maps"
	"slices"
	"strings"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// strip takes from an object what no plan depends on, before it is kept: a cluster has many pods and routes, and most of each is for others.
// It changes o, is a transform of caches, and never fails. AmbientEdges stay as they are.
func strip(o any) (any, error) {
	switch o := o.(type) {
	case *v1alpha1.AmbientEdge:
	case *unstructured.Unstructured:
		stripAny(o)
	case *metav1.PartialObjectMetadata: // a CRD: that it is there
		o.Labels, o.Annotations, o.ManagedFields, o.OwnerReferences, o.Finalizers = nil, nil, nil, nil, nil
	case *corev1.Namespace:
		stripMeta(o)
	case *corev1.Pod:
		stripPod(o)
	case *corev1.Service:
		stripMeta(o)
		o.Status.LoadBalancer = corev1.LoadBalancerStatus{}
	case *appsv1.Deployment:
		stripMeta(o)
		stripTemplate(&o.Spec.Template)
		o.Status.Conditions = nil
	case *appsv1.DaemonSet:
		stripMeta(o)
		stripTemplate(&o.Spec.Template)
		o.Status.Conditions = nil
	case *gatewayv1.Gateway:
		stripMeta(o)
	case *gatewayv1.GatewayClass:
		stripMeta(o)
		o.ManagedFields, o.Status = nil, gatewayv1.GatewayClassStatus{}
	case *gatewayv1.HTTPRoute:
		stripMeta(o)
		stripRoute(o)
	case *gatewayv1beta1.ReferenceGrant:
		stripMeta(o)
		o.ManagedFields = nil
	case *securityv1.PeerAuthentication:
		stripMeta(o)
		o.ManagedFields = nil
	case *securityv1.RequestAuthentication:
		stripMeta(o)
		o.ManagedFields = nil
		for _, r := range o.Spec.JwtRules {
			r.Jwks = "" // keys tell nothing of who may call, and are long
		}
	case *networkingv1.Ingress:
		stripMeta(o)
		o.Status = networkingv1.IngressStatus{}
	case *securityv1.AuthorizationPolicy:
		stripMeta(o)
		if !slices.ContainsFunc(o.ManagedFields, func(f metav1.ManagedFieldsEntry) bool { return strings.HasPrefix(f.Manager, v1alpha1.FieldOwnerPrefix) }) {
			o.ManagedFields = nil // not one of ours
			o.Status.Reset()
		}
	}
	return o, nil
}

// stripMeta keeps who holds which field, and annotations but for the copy of a whole object: switches of gateways may be among them.
func stripMeta(o metav1.Object) {
	stripAnnotations(o, func(key string) bool { return key != corev1.LastAppliedConfigAnnotation })
	o.SetManagedFields(slices.DeleteFunc(o.GetManagedFields(), func(f metav1.ManagedFieldsEntry) bool { return f.Subresource != "" }))
}

func stripAnnotations(o metav1.Object, keeps func(key string) bool) {
	a := o.GetAnnotations()
	maps.DeleteFunc(a, func(key, _ string) bool { return !keeps(key) })
	if len(a) == 0 {
		a = nil
	}
	o.SetAnnotations(a) // what an untyped object gives is a copy
}

// What managed fields tell of a pod's capture: that it is captured, or that it is labelled to stay outside.
const (
	redirection = `{"f:metadata":{"f:annotations":{"f:` + plan.AnnotationRedirection + `":{}}}}`
	optedOut    = `{"f:metadata":{"f:labels":{"f:` + plan.LabelDataplaneMode + `":{}}}}`
)

// captures are who has said that a pod is captured, or is to stay outside, and when: nothing else of them.
func captures(o *corev1.Pod) (list []metav1.ManagedFieldsEntry) {
	key, fields := plan.AnnotationRedirection, redirection
	if o.Labels[plan.LabelDataplaneMode] == "none" {
		key, fields = plan.LabelDataplaneMode, optedOut
	}
	for _, e := range o.ManagedFields {
		if f := e.FieldsV1; f != nil && strings.Contains(f.GetRawString(), `"f:`+key+`"`) {
			e.FieldsV1 = metav1.NewFieldsV1(fields)
			list = append(list, e)
		}
	}
	return list
}

// stripPod keeps what tells whether a pod is in the mesh, its address, since when its containers run, whether it is ready, what the names of its ports mean, and which
// container serves DNS.
func stripPod(o *corev1.Pod) {
	stripAnnotations(o, func(key string) bool {
		return strings.Contains(key, "istio.io/") || strings.Contains(key, "isthmus.dev/")
	})
	o.ManagedFields = captures(o)
	spec := corev1.PodSpec{ServiceAccountName: o.Spec.ServiceAccountName, HostNetwork: o.Spec.HostNetwork}
	for i := range o.Spec.Containers {
		var kept corev1.Container
		for _, p := range o.Spec.Containers[i].Ports {
			if p.ContainerPort == plan.PortDNS {
				kept.Name = o.Spec.Containers[i].Name // it is told that it serves DNS
			} else if p.Name == "" {
				continue
			}
			kept.Ports = append(kept.Ports, corev1.ContainerPort{Name: p.Name, ContainerPort: p.ContainerPort})
		}
		if len(kept.Ports) > 0 {
			spec.Containers = append(spec.Containers, kept)
		}
	}
	o.Spec = spec
	status := corev1.PodStatus{Phase: o.Status.Phase, StartTime: o.Status.StartTime, PodIP: o.Status.PodIP} // where a waypoint's is asked, and what ServiceEntries may name
	for i := range o.Status.Conditions {
		if c := &o.Status.Conditions[i]; c.Type == corev1.PodReady {
			status.Conditions = []corev1.PodCondition{{Type: c.Type, Status: c.Status}}
		}
	}
	for i := range o.Status.ContainerStatuses {
		c := &o.Status.ContainerStatuses[i]
		if c.State.Running != nil {
			status.ContainerStatuses = append(status.ContainerStatuses, corev1.ContainerStatus{Name: c.Name, State: corev1.ContainerState{Running: c.State.Running}})
		}
	}
	o.Status = status
}

// stripTemplate keeps what tells a vendor, its version and its settings, and whether it serves DNS.
func stripTemplate(t *corev1.PodTemplateSpec) {
	spec := corev1.PodSpec{ServiceAccountName: t.Spec.ServiceAccountName, HostNetwork: t.Spec.HostNetwork}
	for i := range t.Spec.Containers {
		c := &t.Spec.Containers[i]
		kept := corev1.Container{Name: c.Name, Image: c.Image, Command: c.Command, Args: c.Args, Env: c.Env, EnvFrom: c.EnvFrom}
		for _, p := range c.Ports {
			if p.ContainerPort == plan.PortDNS {
				kept.Ports = append(kept.Ports, corev1.ContainerPort{ContainerPort: p.ContainerPort})
			}
		}
		spec.Containers = append(spec.Containers, kept)
	}
	t.Spec = spec
}

func stripRoute(o *gatewayv1.HTTPRoute) {
	o.Annotations, o.ManagedFields = nil, nil
	for i := range o.Spec.Rules {
		r := &o.Spec.Rules[i]
		stripMatches(r.Matches)
		r.Filters = plan.Telling(r.Filters)
		for j := range r.BackendRefs {
			r.BackendRefs[j].Filters = plan.Telling(r.BackendRefs[j].Filters)
		}
	}
	for i := range o.Status.Parents {
		for j := range o.Status.Parents[i].Conditions {
			o.Status.Parents[i].Conditions[j].Message = ""
		}
	}
}

// stripMatches keeps paths and methods; of headers and queries, that there are any.
func stripMatches(list []gatewayv1.HTTPRouteMatch) {
	for i := range list {
		m := &list[i]
		if len(m.Headers) > 0 {
			m.Headers = []gatewayv1.HTTPHeaderMatch{{}}
		}
		if len(m.QueryParams) > 0 {
			m.QueryParams = []gatewayv1.HTTPQueryParamMatch{{}}
		}
		if p := m.Path; p != nil && p.Type != nil && *p.Type == gatewayv1.PathMatchRegularExpression {
			p.Value = nil
		}
	}
}
