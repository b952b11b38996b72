package programs

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestToolModulesAgree holds the three largest tool modules to one version of what they share: what differs is compiled once for each, and
// that is most of the time of the first build. Raise it in all of them: go get MODULE@VERSION in each folder, then go mod tidy.
func TestToolModulesAgree(t *testing.T) {
	// kgateway is written against an Istio of its own.
	apart := map[string]bool{"istio.io/istio": true}
	src, err := locate()
	if err != nil {
		t.Fatal(err)
	}
	type at struct{ module, version string }
	first := map[string]at{}
	shared := 0
	for _, mod := range []module{kubernetesModule(), istioModule(), kgatewayModule()} {
		cmd := exec.CommandContext(t.Context(), "go", "mod", "edit", "-json")
		cmd.Dir = filepath.Join(src, mod.dir())
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v", mod.name, err)
		}
		type version struct{ Path, Version string }
		var file struct {
			Require []version
			Replace []struct{ Old, New version }
		}
		if err := json.Unmarshal(out, &file); err != nil {
			t.Fatal(err)
		}
		replaced := map[string]string{}
		for _, r := range file.Replace {
			replaced[r.Old.Path] = r.New.Version
		}
		for _, r := range file.Require {
			if v, ok := replaced[r.Path]; ok {
				r.Version = v
			}
			switch have, ok := first[r.Path]; {
			case apart[r.Path]:
			case !ok:
				first[r.Path] = at{mod.name, r.Version}
			case have.version != r.Version:
				t.Errorf("%s: %s has %s, %s has %s", r.Path, have.module, have.version, mod.name, r.Version)
			default:
				shared++
			}
		}
	}
	if shared < 100 {
		t.Errorf("%d modules shared; were all files read?", shared)
	}
}
