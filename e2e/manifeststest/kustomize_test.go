package manifeststest

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/isthmus-mesh/isthmus/manifests"
)

// byName reads YAML documents.
func byName(t *testing.T, text string) map[string]*unstructured.Unstructured {
	t.Helper()
	all := map[string]*unstructured.Unstructured{}
	d := yaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 64<<10)
	for {
		u := &unstructured.Unstructured{}
		if err := d.Decode(&u.Object); err != nil {
			return all
		}
		if u.Object != nil {
			all[u.GetKind()+" "+u.GetName()] = u
		}
	}
}

func kustomize(t *testing.T, folder string) map[string]*unstructured.Unstructured {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("../../manifests", folder))
	if err != nil {
		t.Fatal(err)
	}
	out, err := installed(t).Run(t.Context(), "kubectl", "kustomize", path)
	if err != nil {
		t.Fatal(err)
	}
	return byName(t, out)
}

func TestKustomizeInstallsTheSame(t *testing.T) {
	text, err := manifests.Install()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(byName(t, string(text)), kustomize(t, ".")); d != "" {
		t.Errorf("-Install +kustomize\n%s", d)
	}
}

// TestAnotherNamespace: nothing of an installation in another namespace speaks of the usual one.
func TestAnotherNamespace(t *testing.T) {
	dir := t.TempDir()
	base, err := filepath.Abs("../../manifests")
	if err == nil {
		base, err = filepath.Rel(dir, base)
	}
	if err != nil {
		t.Fatal(err)
	}
	text := "namespace: elsewhere\nresources: [" + base + "]\n"
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := installed(t).Run(t.Context(), "kubectl", "kustomize", dir)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, "namespace: elsewhere") {
		t.Error("nothing is in that namespace")
	}
	for line := range strings.Lines(out) {
		if strings.Contains(line, manifests.Namespace) {
			t.Errorf("it says %q", line)
		}
	}
}

func TestObserverIsBoundToTheSmallRole(t *testing.T) {
	all := kustomize(t, "observe")
	b := all["ClusterRoleBinding isthmus-controller"]
	if b == nil || kustomize(t, ".")["ClusterRoleBinding isthmus-controller"] == nil {
		t.Fatalf("the binding has not one name in both: %q", slices.Sorted(maps.Keys(all)))
	}
	for name, o := range all {
		if role, _, _ := unstructured.NestedString(o.Object, "roleRef", "name"); role == "isthmus-manage" {
			t.Errorf("%s binds %s", name, role)
		}
	}
	if role, _, _ := unstructured.NestedString(b.Object, "roleRef", "name"); role != "isthmus-observe" {
		t.Errorf("bound to %q", role)
	}
	containers, _, err := unstructured.NestedSlice(all["Deployment "+manifests.Controller].Object, "spec", "template", "spec", "containers")
	if err != nil || len(containers) != 1 {
		t.Fatal(containers, err)
	}
	if args, _, _ := unstructured.NestedStringSlice(containers[0].(map[string]any), "args"); !slices.Contains(args, "--observe-only") {
		t.Errorf("the observer's arguments are %q", args)
	}
}

// TestObserverLeavesNoRightsBehind: over a controller that manages, the binding is refused until the one before is gone.
func TestObserverLeavesNoRightsBehind(t *testing.T) {
	const name = "isthmus-controller"
	text, err := kustomize(t, "observe")["ClusterRoleBinding "+name].MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "binding.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	m := installed(t)
	apply := []string{"apply", "--dry-run=server", "-f", file}
	if out, err := m.Run(t.Context(), "kubectl", apply...); err == nil || !strings.Contains(out+err.Error(), "cannot change roleRef") {
		t.Errorf("the API server says %v: %s", err, out)
	}
	if _, err := m.Run(t.Context(), "kubectl", "delete", "clusterrolebinding", name); err != nil {
		t.Fatal(err)
	}
	defer func() {
		text, err := manifests.Install()
		if err == nil {
			err = m.Apply(context.WithoutCancel(t.Context()), string(text))
		}
		if err != nil {
			t.Error(err)
		}
	}()
	if _, err := m.Run(t.Context(), "kubectl", apply...); err != nil {
		t.Error(err)
	}
}

func TestSamplesAreAccepted(t *testing.T) {
	m := installed(t)
	paths, err := filepath.Glob("../../manifests/samples/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatal(paths, err)
	}
	if err := m.Apply(t.Context(), "{apiVersion: v1, kind: Namespace, metadata: {name: gateways}}"); err != nil {
		t.Fatal(err)
	}
	for _, p := range paths {
		if _, err := m.Run(t.Context(), "kubectl", "apply", "--dry-run=server", "-f", p); err != nil {
			t.Error(err)
		}
	}
}
