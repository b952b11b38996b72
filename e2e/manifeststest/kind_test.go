package manifeststest

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/e2e/programs"
)

// TestTheStorysObjectsAreAccepted: those that the demo on kind applies, whose script nobody runs here.
func TestTheStorysObjectsAreAccepted(t *testing.T) {
	m := installed(t)
	for _, ns := range []string{"shop", "customers"} {
		if err := m.Apply(t.Context(), "{apiVersion: v1, kind: Namespace, metadata: {name: "+ns+"}}"); err != nil {
			t.Fatal(err)
		}
	}
	paths, err := filepath.Glob("../story/manifests/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatal(paths, err)
	}
	for _, p := range append(paths, "../kind/customer.yaml") {
		if _, err := m.Run(t.Context(), "kubectl", "apply", "--dry-run=server", "-f", p); err != nil {
			t.Error(err)
		}
	}
}

// TestIstioctlTakesTheSettings of the demo on kind, and what they make is accepted.
func TestIstioctlTakesTheSettings(t *testing.T) {
	m := installed(t)
	set, err := programs.Ensure(t.Context(), []programs.Name{programs.Istioctl}, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	out, err := m.Run(t.Context(), set.Path(programs.Istioctl), "manifest", "generate", "-f", "../kind/istio.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"kind: DaemonSet", "value: info,access=debug", "accessLogEncoding: JSON", `"peer": "%FILTER_STATE(io.istio.peer_principal:PLAIN)%"`, "memory: 64Mi"} {
		if !strings.Contains(out, want) {
			t.Errorf("it makes nothing with %q", want)
		}
	}
}
