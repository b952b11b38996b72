package programs

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestEnsureGetsEverything(t *testing.T) {
	set, err := Ensure(t.Context(), All(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range set.Missing() {
		t.Logf("left out: %s: %s", m.Name, m.Reason)
	}
	for _, c := range []struct {
		name Name
		args []string
		want string
	}{
		{Etcd, []string{"--version"}, "etcd Version: 3.6"},
		{KubeAPIServer, []string{"--version"}, "v1.36.3"},
		{Kubectl, []string{"version", "--client"}, "v1.36.3"},
		{PilotDiscovery, []string{"version", "--short"}, "1.31"},
		{Envoy, []string{"--version"}, "1.40.0"},
	} {
		path := set.Path(c.name)
		if path == "" {
			continue // missing, said above
		}
		out, err := exec.Command(path, c.args...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), c.want) {
			t.Errorf("%s %s: got %q, %v, want %q", c.name, c.args, out, err, c.want)
		}
	}
	for name, want := range map[Name][]string{
		IstioCRDs:      {"authorizationpolicies.security.istio.io", "workloadentries.networking.istio.io"},
		GatewayCRDs:    {"name: gateways.gateway", "name: httproutes.gateway", "name: referencegrants.gateway", "name: udproutes.gateway"},
		Injector:       {"waypoint", "kube-gateway", "istio-system"},
		EnvoyBootstrap: {"internal_listener"},
	} {
		b, err := os.ReadFile(set.Path(name))
		if err != nil {
			t.Error(err)
		}
		for _, w := range want {
			if !strings.Contains(string(b), w) {
				t.Errorf("%s does not have %q", name, w)
			}
		}
	}
	var again strings.Builder
	if _, err := Ensure(t.Context(), All(), &again); err != nil || len(set.Missing()) == 0 && again.Len() > 0 {
		t.Errorf("second time: %v, said %q", err, again.String())
	}
}
