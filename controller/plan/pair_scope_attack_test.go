package plan_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// TestTooManyRoutesWidenNothing: where a list lets the gateway in by its routes, and there are more of these than are looked at, it stays as narrow as it is.
func TestTooManyRoutesWidenNothing(t *testing.T) {
	text, err := os.ReadFile("testdata/pair-scope-route-follows-a-route-more.yaml")
	if err != nil {
		t.Fatal(err)
	}
	input, _, _ := strings.Cut(string(text), separator)
	s := snapshot(t, input)
	for i := range 300 {
		r := s.HTTPRoutes[len(s.HTTPRoutes)-1].DeepCopy()
		r.Name, r.Spec.Hostnames = fmt.Sprint("more-", i), []gatewayv1.Hostname{gatewayv1.Hostname(fmt.Sprintf("h%d.test", i))}
		r.Spec.Rules[0].Filters = nil
		s.HTTPRoutes = append(s.HTTPRoutes, *r)
	}
	p := plan.Make(s)
	for _, step := range p.Steps {
		if step.Write != nil && strings.HasSuffix(step.Object, "-allow") {
			t.Errorf("%s is written: %v", step.Object, step.Write.Fields["spec"])
		}
	}
	if got := describe(p, s.Edge); !strings.Contains(got, "stays as it is, and more is refused there") {
		t.Errorf("nothing tells that the list stays:\n%s", got)
	}
}
