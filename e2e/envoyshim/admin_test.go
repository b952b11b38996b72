package envoyshim_test

import (
	"encoding/json"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/e2e/envoyshim"
)

// tells asks Envoy itself what it has: the listeners of a waypoint, active, and none refused.
func tells(t *testing.T, s shopMesh, waypoint *corev1.Pod) {
	text, err := envoyshim.Admin(t.Context(), s.Node, waypoint.Namespace, waypoint.Name, "config_dump?resource=dynamic_listeners")
	if err != nil {
		t.Fatal(err)
	}
	var dump struct {
		Configs []struct {
			Name        string          `json:"name"`
			ActiveState json.RawMessage `json:"active_state"`
			ErrorState  json.RawMessage `json:"error_state"`
		} `json:"configs"`
	}
	if err := json.Unmarshal([]byte(text), &dump); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	found := map[string]bool{}
	for _, l := range dump.Configs {
		found[l.Name] = true
		if l.ActiveState == nil || l.ErrorState != nil {
			t.Errorf("listener %s is not active: %s", l.Name, l.ErrorState)
		}
	}
	for _, name := range []string{"connect_terminate", "main_internal", "connect_originate"} {
		if !found[name] {
			t.Errorf("no listener %s: %v", name, found)
		}
	}
	if text, err = envoyshim.Admin(t.Context(), s.Node, waypoint.Namespace, waypoint.Name, "clusters"); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text, "inbound-vip|80|http|orders.shop.svc.cluster.local") {
		t.Errorf("no cluster of Service orders: %s", text)
	}
	if _, err := envoyshim.Admin(t.Context(), s.Node, waypoint.Namespace, "nobody", "clusters"); err == nil {
		t.Error("a pod that is not there answers")
	}
}
