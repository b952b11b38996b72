package manifests

import (
	"flag"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/controller/run"
)

var update = flag.Bool("update", false, "write the ClusterRoles anew")

// clusterRole is the file of a ClusterRole with rules.
func clusterRole(t *testing.T, name string, rules []rbacv1.PolicyRule) []byte {
	t.Helper()
	role := rbacv1.ClusterRole{
		TypeMeta:   metav1.TypeMeta{APIVersion: "rbac.authorization.k8s.io/v1", Kind: "ClusterRole"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app.kubernetes.io/part-of": "isthmus"}},
		Rules:      rules,
	}
	data, err := yaml.Marshal(role)
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte("# Generated from controller/run: go generate ./manifests\n"), data...)
}

func TestRolesAreCurrent(t *testing.T) {
	for file, want := range map[string][]byte{
		"install/role-view.yaml":    clusterRole(t, "isthmus-view", run.ViewRules()),
		"install/role-observe.yaml": clusterRole(t, "isthmus-observe", run.ObserveRules()),
		"install/role-manage.yaml":  clusterRole(t, "isthmus-manage", append(run.ObserveRules(), run.ManageRules()...)),
	} {
		if *update {
			if err := os.WriteFile(file, want, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		got, err := files.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), string(got)); d != "" {
			t.Errorf("%s is stale (run go generate ./manifests): -want +got\n%s", file, d)
		}
	}
}

// TestViewersOnlyRead: people get this role, for whom a plan or a status is no reason to write anything.
func TestViewersOnlyRead(t *testing.T) {
	for _, r := range run.ViewRules() {
		for _, verb := range r.Verbs {
			if verb != "get" && verb != "list" && verb != "watch" {
				t.Errorf("%v: %s", r.Resources, verb)
			}
		}
	}
	for _, r := range append(run.ObserveRules(), run.ManageRules()...) {
		for _, resource := range r.Resources {
			if resource == "secrets" || resource == "*" {
				t.Errorf("nobody here has to do with %s", resource)
			}
		}
	}
}
