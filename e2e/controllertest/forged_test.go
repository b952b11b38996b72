package controllertest

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// TestAServiceAppliedInOurNameStopsNobody: a tenant may apply his own Service under any field manager, that of an edge too.
func TestAServiceAppliedInOurNameStopsNobody(t *testing.T) {
	t.Parallel()
	s := kgatewaySite(t, "forged")
	s.apply(edgeOfKgateway)
	e, _ := s.ready("public", v1alpha1.ReasonDone)
	s.apply(`{apiVersion: v1, kind: Namespace, metadata: {name: SHOP-other}}`)
	forged := &corev1.Service{}
	forged.Namespace, forged.Name = s.shop+"-other", "mine"
	patch := `{"apiVersion":"v1","kind":"Service","metadata":{"name":"mine","labels":{"istio.io/use-waypoint":"waypoint"}},"spec":{"ports":[{"port":80}]}}`
	if err := s.c.Patch(t.Context(), forged, client.RawPatch(types.ApplyPatchType, []byte(patch)), client.FieldOwner(e.FieldOwner())); err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond) // two rounds of a controller that would take it back
	s.ready("public", v1alpha1.ReasonDone)
	s.delete(s.theEdge("public"))
	s.gone(s.theEdge("public"))
	if !s.exists(forged) || forged.Labels["istio.io/use-waypoint"] != "waypoint" {
		t.Error("the tenant's Service was changed")
	}
}

// TestAnObserverIsToldNothingOfTheShop: whoever may make AmbientEdges that observe need not be allowed to read elsewhere.
func TestAnObserverIsToldNothingOfTheShop(t *testing.T) {
	t.Parallel()
	s := kgatewaySite(t, "seeker")
	s.annotate(`"other/edge"`)
	s.apply(`{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: hush, namespace: SHOP}, spec: {targetRefs: [{group: "", kind: Service, name: orders}]}}
---
{apiVersion: isthmus.dev/v1alpha1, kind: AmbientEdge, metadata: {name: public, namespace: EDGE},
 spec: {targetRefs: [{name: http}], backends: {services: [{namespace: SHOP, name: orders}, {namespace: SHOP, name: nobody}]}, waypoint: {policy: Create, name: waypoint}}}`)
	s.wait("no consent is told", func() string {
		if f := finding(s.get("public"), v1alpha1.FindingNoConsent); f == nil || !strings.Contains(f.Message, "nobody") {
			return "it is not"
		}
		return ""
	})
	e := s.get("public")
	if len(e.Status.Backends) != 2 {
		t.Fatalf("backends are %+v", e.Status.Backends)
	}
	for _, b := range e.Status.Backends {
		if b.Path != "" || b.Waypoint != "" || len(b.Policies) > 0 {
			t.Errorf("told of %+v", b)
		}
	}
	for _, f := range e.Status.Findings {
		if strings.Contains(f.Message+f.Fix, "hush") || strings.Contains(f.Message+f.Fix, "other/edge") || f.Code == v1alpha1.FindingNoBackend {
			t.Errorf("told: %+v", f)
		}
	}
}
