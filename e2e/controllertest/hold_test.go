package controllertest

import (
	"fmt"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

func (s *site) merge(o client.Object, patch string) {
	s.t.Helper()
	if err := s.c.Patch(s.t.Context(), o, client.RawPatch(types.MergePatchType, []byte(s.text(patch)))); err != nil {
		s.t.Fatal(err)
	}
}

// A route that its gateway has not accepted again yet may still be served as it was: what was wired for it stays, its policies with it.
func TestAnEditedRouteKeepsWhatIsWired(t *testing.T) {
	t.Parallel()
	s := kgatewaySite(t, "edited")
	s.apply(edgeOfKgateway)
	s.ready("public", v1alpha1.ReasonDone)
	route := object("gateway.networking.k8s.io/v1", "HTTPRoute", s.edge, "orders")
	held := func() map[string]string {
		all := s.state(true)
		delete(all, "HTTPRoute "+s.edge+"/orders")
		return all
	}
	before := held()
	look := func(what string) {
		s.ready("public", v1alpha1.ReasonInProgress)
		time.Sleep(500 * time.Millisecond) // two rounds of a controller that would take something back
		s.ready("public", v1alpha1.ReasonInProgress)
		if after := held(); fmt.Sprint(after) != fmt.Sprint(before) {
			t.Errorf("%s: from %v to %v", what, before, after)
		}
	}
	s.merge(route, `{"spec":{"hostnames":["x.example.com"]}}`)
	look("the route is edited")
	s.acceptAt(s.edge, "orders", 2)
	s.ready("public", v1alpha1.ReasonDone)
	if err := s.c.Status().Patch(t.Context(), route, client.RawPatch(types.MergePatchType, []byte(`{"status":{"parents":[]}}`))); err != nil {
		t.Fatal(err)
	}
	look("the gateway's controller begins anew")
	s.delete(route)
	s.wait("a route that is gone needs no waypoint", func() string {
		if labels := s.service("orders").Labels; len(labels) > 1 {
			return fmt.Sprintf("labels are %v", labels)
		}
		return ""
	})
}
