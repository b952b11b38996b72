package run

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// TestPlansMayReadWhatIsReadAndNoMore: of each kind that plans read, typed or not, and of nothing else.
func TestPlansMayReadWhatIsReadAndNoMore(t *testing.T) {
	read := map[string]bool{}
	scheme, err := Scheme()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range append(kinds(), &v1alpha1.AmbientEdge{}) {
		gvk, err := apiutil.GVKForObject(o, scheme)
		if err != nil {
			t.Fatal(err)
		}
		resource, _ := meta.UnsafeGuessKindToResource(gvk)
		read[resource.Group+"/"+strings.Replace(resource.Resource, "gatewaies", "gateways", 1)] = true
	}
	for _, f := range families() {
		for _, k := range f {
			if k.Group != f[0].Group || k.Resource != f[0].Resource || k.Resource == "" || k.Kind != f[0].Kind {
				t.Errorf("%+v is not of the family of %+v", k, f[0])
			}
			read[k.Group+"/"+k.Resource] = true
		}
	}
	allowed := map[string]bool{}
	for _, r := range planRules() {
		want := []string{"get", "list", "watch"}
		byName := len(r.ResourceNames) > 0 // the lease, the mesh's configuration: read now and then, and no others of their kind
		if byName {
			want = []string{"get"}
		}
		for _, resource := range r.Resources {
			name := r.APIGroups[0] + "/" + resource
			if d := cmp.Diff(want, r.Verbs); d != "" {
				t.Errorf("%s: -want +got\n%s", name, d)
			}
			allowed[name] = !byName
		}
	}
	maps.DeleteFunc(allowed, func(_ string, all bool) bool { return !all })
	if d := cmp.Diff(slices.Sorted(maps.Keys(read)), slices.Sorted(maps.Keys(allowed))); d != "" {
		t.Errorf("-read +allowed\n%s", d)
	}
}
