package run

import (
	"reflect"
	"testing"

	metaapi "istio.io/api/meta/v1alpha1"
	securityapi "istio.io/api/security/v1beta1"
	typeapi "istio.io/api/type/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// TestUpdatesThatChangeNothing compares objects of all kinds that are watched, as an informer hands them on.
func TestUpdatesThatChangeNothing(t *testing.T) {
	selector := func(app string) *typeapi.WorkloadSelector {
		return &typeapi.WorkloadSelector{MatchLabels: map[string]string{"app": app}}
	}
	specs := map[string]func(o client.Object, app string){ // of kinds whose specs are protobuf messages
		"AuthorizationPolicy": func(o client.Object, app string) { o.(*securityv1.AuthorizationPolicy).Spec.Selector = selector(app) },
		"PeerAuthentication": func(o client.Object, app string) {
			spec := &o.(*securityv1.PeerAuthentication).Spec
			spec.Selector, spec.Mtls = selector(app), &securityapi.PeerAuthentication_MutualTLS{Mode: securityapi.PeerAuthentication_MutualTLS_STRICT}
		},
		"RequestAuthentication": func(o client.Object, app string) { o.(*securityv1.RequestAuthentication).Spec.Selector = selector(app) },
	}
	seen := 0
	for _, o := range kinds() {
		kind := reflect.TypeOf(o).Elem().Name()
		t.Run(kind, func(t *testing.T) {
			o.SetName("a")
			o.SetUID("1")
			if set := specs[kind]; set != nil {
				set(o, "orders")
				seen++
			}
			next := func() client.Object {
				c := o.DeepCopyObject().(client.Object)
				c.SetResourceVersion("2")
				return c
			}
			if !alike(o, next()) {
				t.Error("a new resource version alone is a change")
			}
			labelled := next()
			labelled.SetLabels(map[string]string{"a": "b"})
			if alike(o, labelled) {
				t.Error("a label is no change")
			}
			anew := next()
			anew.SetUID("2")
			if alike(o, anew) {
				t.Error("another object of that name is no change")
			}
			if p, is := next().(*securityv1.AuthorizationPolicy); is {
				p.Status.Conditions = append(p.Status.Conditions, &metaapi.IstioCondition{Type: "WaypointAccepted", Status: "True"})
				if alike(o, p) {
					t.Error("istiod's word about a policy is no change")
				}
			}
			if set := specs[kind]; set != nil {
				other := next()
				if set(other, "stock"); alike(o, other) {
					t.Error("another spec is no change")
				}
			}
		})
	}
	if seen != len(specs) {
		t.Errorf("%d kinds of %d are watched", seen, len(specs))
	}
}
