package plan

import (
	"reflect"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/edge"
)

// TestLeavesOfTypedObjects: they are those of the same object without its type, for all that is lost with a switch.
func TestLeavesOfTypedObjects(t *testing.T) {
	annotations := map[string]string{}
	paths := map[string][][]string{}
	for _, v := range edge.Vendors() {
		for i := range v.Loses {
			l := &v.Loses[i]
			paths[l.Kind] = append(paths[l.Kind], l.Path)
			if l.Path[0] == "metadata" {
				annotations[l.Path[2]] = "is of " + v.Name
			}
		}
	}
	persistent := gatewayv1.HTTPRouteRule{SessionPersistence: &gatewayv1.SessionPersistence{}}
	full, empty := metav1.ObjectMeta{Name: "x", Annotations: annotations}, metav1.ObjectMeta{}
	for kind, objects := range map[string][]any{
		"Service":   {&corev1.Service{ObjectMeta: full, Spec: corev1.ServiceSpec{SessionAffinity: "ClientIP"}}, &corev1.Service{ObjectMeta: empty}},
		"Ingress":   {&networkingv1.Ingress{ObjectMeta: full}, &networkingv1.Ingress{ObjectMeta: empty}},
		"HTTPRoute": {&gatewayv1.HTTPRoute{Spec: gatewayv1.HTTPRouteSpec{Rules: []gatewayv1.HTTPRouteRule{{}, persistent}}}, &gatewayv1.HTTPRoute{}},
	} {
		if len(paths[kind]) == 0 {
			t.Errorf("nothing is lost of %s", kind)
		}
		for i, o := range objects {
			tree, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
			if err != nil {
				t.Fatal(err)
			}
			for _, path := range paths[kind] {
				got, want := leaves(reflect.ValueOf(o), path), leaves(reflect.ValueOf(tree), path)
				if len(got) != len(want) || kind != "HTTPRoute" && !slices.Equal(got, want) {
					t.Errorf("%s of %s %d is %q, and %q without its type", edge.Field(path), kind, i, got, want)
				}
				if there := i == 0; (len(got) > 0) != there {
					t.Errorf("%s of %s %d is %q: want some: %v", edge.Field(path), kind, i, got, there)
				}
			}
		}
	}
}
