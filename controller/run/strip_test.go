package run

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

func TestCachesKeepLittle(t *testing.T) {
	about := metav1.ObjectMeta{
		Name: "a", ResourceVersion: "1", Annotations: map[string]string{corev1.LastAppliedConfigAnnotation: "{}", "ambient.istio.io/redirection": "enabled", "other": "x"},
		ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kubectl"}, {Manager: "kubelet", Subresource: "status"}},
	}
	pod := &corev1.Pod{ObjectMeta: *about.DeepCopy(), Spec: corev1.PodSpec{NodeName: "n", ServiceAccountName: "sa", Containers: []corev1.Container{{Name: "c"}}}}
	pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.0.0.1"}
	if _, err := strip(pod); err != nil {
		t.Fatal(err)
	}
	if pod.Spec.NodeName != "" || len(pod.Spec.Containers) > 0 || pod.Spec.ServiceAccountName != "sa" || pod.Status.PodIP != "10.0.0.1" || pod.Status.Phase != corev1.PodRunning ||
		len(pod.ManagedFields) > 0 || len(pod.Annotations) != 1 || pod.ResourceVersion != "1" {
		t.Errorf("of a pod there is %+v", pod)
	}
	service := &corev1.Service{ObjectMeta: *about.DeepCopy()}
	if _, err := strip(service); err != nil {
		t.Fatal(err)
	}
	if len(service.ManagedFields) != 1 || service.ManagedFields[0].Manager != "kubectl" || len(service.Annotations) != 2 {
		t.Errorf("of a Service there is %+v", service)
	}
	edge := &v1alpha1.AmbientEdge{ObjectMeta: *about.DeepCopy()}
	if _, err := strip(edge); err != nil || len(edge.Annotations) != 3 {
		t.Errorf("of an AmbientEdge there is %+v, %v", edge, err)
	}
	gone := cache.DeletedFinalStateUnknown{Key: "a"}
	if o, err := strip(gone); err != nil || o != any(gone) {
		t.Errorf("of what is gone there is %+v, %v", o, err)
	}
}

func TestWhatIsNotKeptChangesNothing(t *testing.T) {
	kept := func(change func(*gatewayv1.HTTPRoute)) *gatewayv1.HTTPRoute {
		r := &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Name: "r", UID: "r", ResourceVersion: "1"}}
		change(r)
		if _, err := strip(r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	before := kept(func(*gatewayv1.HTTPRoute) {})
	for name, c := range map[string]struct {
		change func(*gatewayv1.HTTPRoute)
		want   bool
	}{
		"a version alone":   {func(r *gatewayv1.HTTPRoute) { r.ResourceVersion = "2" }, true},
		"a hostname's spec": {func(r *gatewayv1.HTTPRoute) { r.Generation++ }, false}, // its status is for another generation now
		"an annotation":     {func(r *gatewayv1.HTTPRoute) { r.Annotations = map[string]string{"a": "b"} }, true},
		"a label":           {func(r *gatewayv1.HTTPRoute) { r.Labels = map[string]string{"a": "b"} }, false},
		"a mirror": {func(r *gatewayv1.HTTPRoute) {
			r.Spec.Rules = []gatewayv1.HTTPRouteRule{{Filters: []gatewayv1.HTTPRouteFilter{{Type: "RequestMirror", RequestMirror: &gatewayv1.HTTPRequestMirrorFilter{}}}}}
		}, false},
		"another object": {func(r *gatewayv1.HTTPRoute) { r.UID = "other" }, false},
	} {
		if got := alike(before, kept(c.change)); got != c.want {
			t.Errorf("%s: alike is %v", name, got)
		}
	}
	name := func(header gatewayv1.HTTPHeaderName) *gatewayv1.HTTPHeaderFilter {
		return &gatewayv1.HTTPHeaderFilter{Set: []gatewayv1.HTTPHeader{{Name: header, Value: "x"}}}
	}
	filters := []gatewayv1.HTTPRouteFilter{
		{Type: "RequestHeaderModifier", RequestHeaderModifier: name("x-tenant")}, {Type: "RequestHeaderModifier", RequestHeaderModifier: name("HOST")}, {Type: "CORS", CORS: &gatewayv1.HTTPCORSFilter{}},
		{Type: "ExtensionRef", ExtensionRef: &gatewayv1.LocalObjectReference{Name: "long"}}, {Type: "RequestMirror", RequestMirror: &gatewayv1.HTTPRequestMirrorFilter{}},
	}
	path, regular := "/a", gatewayv1.PathMatchRegularExpression
	kept(func(r *gatewayv1.HTTPRoute) {
		r.Spec.Rules = []gatewayv1.HTTPRouteRule{{Filters: filters, BackendRefs: []gatewayv1.HTTPBackendRef{{Filters: filters}}, Matches: []gatewayv1.HTTPRouteMatch{
			{Path: &gatewayv1.HTTPPathMatch{Value: &path}, Headers: []gatewayv1.HTTPHeaderMatch{{Name: "a", Value: "long"}, {Name: "b"}}, QueryParams: []gatewayv1.HTTPQueryParamMatch{{Name: "long"}, {}}},
			{Path: &gatewayv1.HTTPPathMatch{Type: &regular, Value: &path}},
		}}}
		before = r
	})
	rest := slices.Concat(filters[:2], filters[3:]) // a CORS filter changes nothing of a request
	want := []gatewayv1.HTTPRouteRule{{Filters: rest, BackendRefs: []gatewayv1.HTTPBackendRef{{Filters: rest}}, Matches: []gatewayv1.HTTPRouteMatch{
		{Path: &gatewayv1.HTTPPathMatch{Value: &path}, Headers: []gatewayv1.HTTPHeaderMatch{{}}, QueryParams: []gatewayv1.HTTPQueryParamMatch{{}}},
		{Path: &gatewayv1.HTTPPathMatch{Type: &regular}},
	}}}
	if d := cmp.Diff(want, before.Spec.Rules); d != "" {
		t.Errorf("of a route's rules there is (-want +kept):\n%s", d)
	}
	now := metav1.Now()
	held := func(manager string, at *metav1.Time) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{UID: "s", ManagedFields: []metav1.ManagedFieldsEntry{{Manager: manager, Time: at}}}}
	}
	if !alike(held("helm", nil), held("helm", &now)) || alike(held("helm", nil), held("argocd", nil)) {
		t.Error("who holds a field counts, and since when does not")
	}
}
