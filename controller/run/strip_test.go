package run

import (
	"testing"

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
	filters := []gatewayv1.HTTPRouteFilter{{Type: "RequestHeaderModifier"}, {Type: "RequestMirror", RequestMirror: &gatewayv1.HTTPRequestMirrorFilter{}}}
	kept(func(r *gatewayv1.HTTPRoute) {
		r.Spec.Rules = []gatewayv1.HTTPRouteRule{{Filters: filters, BackendRefs: []gatewayv1.HTTPBackendRef{{Filters: filters}}}}
		before = r
	})
	if rule := before.Spec.Rules[0]; len(rule.Filters) != 1 || rule.Filters[0].RequestMirror == nil || len(rule.BackendRefs[0].Filters) != 1 {
		t.Errorf("of a route's filters there are %+v", rule)
	}
	now := metav1.Now()
	held := func(manager string, at *metav1.Time) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{UID: "s", ManagedFields: []metav1.ManagedFieldsEntry{{Manager: manager, Time: at}}}}
	}
	if !alike(held("helm", nil), held("helm", &now)) || alike(held("helm", nil), held("argocd", nil)) {
		t.Error("who holds a field counts, and since when does not")
	}
}
