package manifests

import (
	"os"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"
)

// TestObserverReplacesTheBinding: under another name, the rights to manage would stay where a controller is made an observer.
func TestObserverReplacesTheBinding(t *testing.T) {
	text, err := files.ReadFile("install/bindings.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var binding rbacv1.ClusterRoleBinding
	if err := yaml.UnmarshalStrict(text, &binding); err != nil {
		t.Fatal(err)
	}
	text, err = os.ReadFile("observe/kustomization.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var observe struct {
		Patches []struct {
			Target struct{ Kind, Name string }
			Patch  string
		}
	}
	if err := yaml.Unmarshal(text, &observe); err != nil {
		t.Fatal(err)
	}
	found := false
	for _, p := range observe.Patches {
		if p.Target.Kind != "ClusterRoleBinding" || p.Target.Name != binding.Name {
			continue
		}
		var ops []struct{ Op, Path, Value string }
		if err := yaml.UnmarshalStrict([]byte(p.Patch), &ops); err != nil {
			t.Fatal(err)
		}
		for _, op := range ops {
			if op.Path != "/roleRef/name" {
				t.Errorf("%s is changed", op.Path)
			}
			found = found || op.Path == "/roleRef/name" && op.Value == "isthmus-observe"
		}
	}
	if !found {
		t.Errorf("nothing binds isthmus-observe as %s", binding.Name)
	}
	if c := "# kubectl delete clusterrolebinding " + binding.Name + "\n"; !strings.Contains(string(text), c) {
		t.Errorf("the file lacks %q", c)
	}
}
