package manifests

import (
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/controller/run"
)

// TestAuthorsAreAskedForAllThatIsWritten: whatever the controller may write in a namespace is a right that its author has to have there himself, and the
// role for authors has it.
func TestAuthorsAreAskedForAllThatIsWritten(t *testing.T) {
	policy, err := files.ReadFile("install/admission-author.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text, err := files.ReadFile("install/role-author.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var author rbacv1.ClusterRole
	if err := yaml.UnmarshalStrict(text, &author); err != nil {
		t.Fatal(err)
	}
	for _, l := range []string{"admin", "edit", "view"} {
		if _, is := author.Labels["rbac.authorization.k8s.io/aggregate-to-"+l]; is {
			t.Errorf("everybody who has %s gets it", l)
		}
	}
	for _, r := range run.ManageRules() {
		for _, resource := range r.Resources {
			if r.APIGroups[0] == "isthmus.dev" {
				continue // AmbientEdges themselves, which RBAC is about
			}
			if asks := "group('" + r.APIGroups[0] + "').resource('" + resource + "')"; !strings.Contains(string(policy), asks) {
				t.Errorf("no right to %s of %q is asked of authors", resource, r.APIGroups[0])
			}
			for _, verb := range r.Verbs {
				if !slices.ContainsFunc(author.Rules, func(a rbacv1.PolicyRule) bool {
					return slices.Contains(a.APIGroups, r.APIGroups[0]) && slices.Contains(a.Resources, resource) && slices.Contains(a.Verbs, verb)
				}) {
					t.Errorf("isthmus-author may not %s %s", verb, resource)
				}
			}
		}
	}
}
