package controllertest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/controller/run"
)

// approval is that of the plan for an AmbientEdge that is not there yet, as isthmus plan would make it.
func (s *site) approval(text string) string {
	s.t.Helper()
	e := &v1alpha1.AmbientEdge{}
	if err := yaml.Unmarshal([]byte(s.text(text)), e); err != nil {
		s.t.Fatal(err)
	}
	look, err := run.Observe(s.t.Context(), s.c, e)
	if err != nil {
		s.t.Fatal(err)
	}
	look.Edges, look.Hearsay = append(look.Edges, *e), true
	p := plan.Make(look)
	if p.Blocked() {
		s.t.Fatalf("the plan is blocked: %+v", p.Findings)
	}
	return plan.Approval(e, p.Effects(look))
}

// approve sets the annotation of an AmbientEdge; null takes it away.
func (s *site) approve(name, value string) {
	s.t.Helper()
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%s}}}`, v1alpha1.AnnotationPlan, value)
	if err := s.c.Patch(s.t.Context(), s.theEdge(name), client.RawPatch(types.MergePatchType, patch)); err != nil {
		s.t.Fatal(err)
	}
}

// second is another Service in the shop, and a route to it.
const second = `
{apiVersion: v1, kind: Service, metadata: {name: second, namespace: SHOP}, spec: {selector: {app: orders}, ports: [{name: http, port: 81}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: second, namespace: EDGE}, spec: {parentRefs: [{name: http}], rules: [{backendRefs: [{name: second, namespace: SHOP, port: 81}]}]}}
`

func TestNothingIsWrittenThatWasNotApproved(t *testing.T) {
	s := kgatewaySite(t, "approved")
	before := s.state(false)
	approval := s.approval(edgeOfKgateway)
	s.apply(strings.Replace(edgeOfKgateway, "namespace: EDGE}", fmt.Sprintf("namespace: EDGE, annotations: {%s: %q}}", v1alpha1.AnnotationPlan, approval), 1))
	s.ready("public", v1alpha1.ReasonDone)
	if f := finding(s.get("public"), v1alpha1.FindingPlanChanged); f != nil {
		t.Errorf("the plan that was approved is held back: %+v", f)
	}

	t.Run("what was approved and is taken away comes back", func(*testing.T) {
		s.mends()
	})

	s.apply(second)
	s.accept(s.edge, "second")
	var f *v1alpha1.Finding
	t.Run("a Service that came later is not wired", func(t *testing.T) {
		s.wait("a finding tells that the plan has changed", func() string {
			e, _ := s.ready("public", v1alpha1.ReasonBlocked)
			if f = finding(e, v1alpha1.FindingPlanChanged); f == nil {
				return e.Status.Conditions[0].Message
			}
			return ""
		})
		says(t, f, []string{"Wire Service " + s.shop + "/second", plan.LabelUseWaypoint}, []string{"isthmus apply --plan", "kubectl annotate ambientedge -n " + s.edge + " public isthmus.dev/plan-"})
		time.Sleep(600 * time.Millisecond) // three rounds of a controller that would write
		if got := s.service("second").Labels; got[plan.LabelUseWaypoint] != "" {
			t.Errorf("its labels are %v", got)
		}
	})
	t.Run("what makes no sense approves nothing", func(t *testing.T) {
		s.approve("public", `"confirmed"`)
		s.wait("the finding says so", func() string {
			if f := finding(s.get("public"), v1alpha1.FindingPlanChanged); f == nil || !strings.HasPrefix(f.Message, "this annotation is no approval") {
				return fmt.Sprintf("%+v", f)
			}
			return ""
		})
	})
	t.Run("without the annotation it goes on", func(t *testing.T) {
		s.approve("public", "null")
		s.ready("public", v1alpha1.ReasonDone)
		if got := s.service("second").Labels; got[plan.LabelUseWaypoint] != "waypoint" || got[edge.LabelIngressUseWaypoint] != "true" {
			t.Errorf("its labels are %v", got)
		}
	})
	t.Run("undo needs no approval", func(t *testing.T) {
		s.approve("public", `"0:0"`)
		s.delete(s.theEdge("public"))
		s.gone(s.theEdge("public"))
		for _, name := range []string{"second", "orders"} {
			if got := s.service(name).Labels; got[plan.LabelUseWaypoint] != "" {
				t.Errorf("the labels of %s are %v", name, got)
			}
		}
		for _, o := range []client.Object{object("v1", "Service", s.shop, "second"), object("gateway.networking.k8s.io/v1", "HTTPRoute", s.edge, "second")} {
			s.delete(o)
			s.gone(o)
		}
		s.same(before, false)
	})
}
