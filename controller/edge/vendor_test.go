package edge_test

import (
	"testing"

	"github.com/isthmus-mesh/isthmus/controller/edge"
)

func TestVendorsAreFoundByTheirController(t *testing.T) {
	seen := map[string]string{}
	for _, v := range edge.Vendors() {
		if v.Name == "" || len(v.Controllers) == 0 || v.Pods == nil {
			t.Errorf("%+v lacks name, controllers or pods", v)
		}
		for _, c := range v.Controllers {
			if other := seen[c]; other != "" {
				t.Errorf("%s is claimed by %s and %s", c, other, v.Name)
			}
			seen[c] = v.Name
			if got := edge.ByController(c).Name; got != v.Name {
				t.Errorf("%s: got %s, want %s", c, got, v.Name)
			}
		}
	}
	for controller, want := range map[string]string{
		"kgateway.dev/kgateway": "kgateway", "istio.io/gateway-controller": "istio", "example.com/other": "custom", "": "custom",
	} {
		if got := edge.ByController(controller).Name; got != want {
			t.Errorf("%q: got %s, want %s", controller, got, want)
		}
	}
}
