package plan_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// TestAGrantIsForWhomAndWhatItNames: a namespace consents by a ReferenceGrant to AmbientEdges of the namespace that it names, and to all of a kind.
func TestAGrantIsForWhomAndWhatItNames(t *testing.T) {
	const (
		from    = "from: [{group: isthmus.dev, kind: AmbientEdge, namespace: edge}]"
		service = `{group: "", kind: Service}`
		gateway = "{group: gateway.networking.k8s.io, kind: Gateway}"
	)
	for _, c := range []struct {
		name  string
		edits []string
		want  bool
	}{
		{"as it is", nil, true},
		{"another namespace", []string{from, strings.Replace(from, "namespace: edge", "namespace: other", 1)}, false},
		{"another kind", []string{from, strings.Replace(from, "AmbientEdge", "HTTPRoute", 1)}, false},
		{"another group of that kind", []string{from, strings.Replace(from, "isthmus.dev", "example.com", 1)}, false},
		{"one Service by name", []string{service, `{group: "", kind: Service, name: orders}`}, false},
		{"one waypoint by name", []string{gateway, "{group: gateway.networking.k8s.io, kind: Gateway, name: waypoint}"}, false},
		{"another group of what it leads to", []string{service, "{group: example.com, kind: Service}"}, false},
		{"a namespace that it is not in", []string{"{name: edges, namespace: shop}", "{name: edges, namespace: elsewhere}"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := plan.Make(otherwise(t, "consent-by-grant", c.edits...))
			lacks := slices.ContainsFunc(p.Findings, func(f v1alpha1.Finding) bool { return f.Code == v1alpha1.FindingNoConsent })
			if lacks == c.want || (len(p.Writes()) > 0) != c.want {
				t.Errorf("it writes %v, and findings are %+v", p.Writes(), p.Findings)
			}
		})
	}
}
