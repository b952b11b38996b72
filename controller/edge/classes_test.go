package edge

import "testing"

// TestKnownClassesAreOfKnownVendors: each leads to a vendor of the table, and a name of one's own to none.
func TestKnownClassesAreOfKnownVendors(t *testing.T) {
	for class, want := range map[string]string{
		"istio": "istio", "istio-agentgateway": "istio-agentgateway", "kgateway": "kgateway", "agentgateway": "agentgateway", "cilium": "cilium",
		"nginx": "nginx-gateway-fabric", "traefik": "traefik", "contour": "contour", "ours": "custom",
	} {
		if got := ByController(ClassController(class)).Name; got != want {
			t.Errorf("class %s is of %s, want %s", class, got, want)
		}
	}
}
