package plan_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// inputs are the worlds of all golden plans, by name.
func inputs(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	all := map[string]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		input, _, _ := strings.Cut(string(text), separator)
		all[strings.TrimSuffix(filepath.Base(file), ".yaml")] = input
	}
	return all
}

func changed(p *plan.Plan) *v1alpha1.Finding {
	for i := range p.Findings {
		if p.Findings[i].Code == v1alpha1.FindingPlanChanged {
			return &p.Findings[i]
		}
	}
	return nil
}

func annotate(e *v1alpha1.AmbientEdge, approval string) {
	if e.Annotations == nil {
		e.Annotations = map[string]string{}
	}
	e.Annotations[v1alpha1.AnnotationPlan] = approval
}

// TestAPlanIsNotHeldByItsOwnApproval: whatever a plan writes is in its approval, and whatever it writes is held without.
func TestAPlanIsNotHeldByItsOwnApproval(t *testing.T) {
	writes := 0
	for name, input := range inputs(t) {
		t.Run(name, func(t *testing.T) {
			s := snapshot(t, input)
			s.Edge.Spec.Mode = v1alpha1.ModeManage
			delete(s.Edge.Annotations, v1alpha1.AnnotationPlan)
			free := plan.Make(s)
			if free.Blocked() {
				return // there is nothing to approve
			}
			annotate(s.Edge, plan.Approval(s.Edge, free.Effects(s)))
			if p := plan.Make(s); changed(p) != nil {
				t.Errorf("it is held: %+v", changed(p))
			} else if len(p.Writes()) != len(free.Writes()) {
				t.Errorf("%d writes became %d", len(free.Writes()), len(p.Writes()))
			}
			annotate(s.Edge, plan.Approval(s.Edge, nil))
			p := plan.Make(s)
			held := len(free.Changes(s)) > 0 && !free.Undoing
			if held != (changed(p) != nil) {
				t.Errorf("an approval of nothing holds: %t, want %t; it is %+v", changed(p) != nil, held, changed(p))
			}
			if held && len(p.Writes()) > 0 {
				t.Errorf("it writes %v", p.Writes())
			}
			writes += len(free.Writes())
		})
	}
	if writes == 0 {
		t.Error("nothing was written: this test is about nothing")
	}
}

// TestWhatIsApprovedStaysSo: an approval of the world as it was is enough for all that is left when some of it is done, and for mending it.
func TestWhatIsApprovedStaysSo(t *testing.T) {
	all := inputs(t)
	for _, c := range []struct{ then, now string }{
		{"kgateway-fresh", "kgateway-fresh"},
		{"all-done", "all-done"}, // whose waypoint has to be made anew
	} {
		then := snapshot(t, all[c.then])
		then.Edge.Spec.Mode = v1alpha1.ModeManage
		approval := plan.Approval(then.Edge, plan.Make(then).Effects(then))
		now := snapshot(t, all[c.now])
		now.Edge.Spec.Mode = v1alpha1.ModeManage
		for i := range now.Services { // somebody takes away all that was written
			for key := range now.Services[i].Labels {
				if strings.Contains(key, "istio.io/") {
					delete(now.Services[i].Labels, key)
				}
			}
			now.Services[i].ManagedFields = nil
		}
		if c.now == "all-done" {
			now.Gateways = nil
		}
		annotate(now.Edge, approval)
		p := plan.Make(now)
		if f := changed(p); f != nil {
			t.Errorf("%s: it is held: %+v", c.now, f)
		}
		if len(p.Ahead()) == 0 {
			t.Errorf("%s: nothing is left to be written: this test is about nothing", c.now)
		}
	}
}

// TestAnApprovalIsOfTheAmbientEdgeToo: of all that is applied of it, and not of what an approval, kubectl and the API server add.
func TestAnApprovalIsOfTheAmbientEdgeToo(t *testing.T) {
	of := func(change func(*v1alpha1.AmbientEdge)) string {
		e := &v1alpha1.AmbientEdge{}
		e.Namespace, e.Name, e.Spec.Mode = "edge", "public", v1alpha1.ModeManage
		change(e)
		return plan.ApprovalDigest(e, nil)
	}
	was := of(func(*v1alpha1.AmbientEdge) {})
	for name, c := range map[string]struct {
		same   bool
		change func(*v1alpha1.AmbientEdge)
	}{
		"an approval": {true, func(e *v1alpha1.AmbientEdge) { annotate(e, "0123:4") }},
		"kubectl's note": {true, func(e *v1alpha1.AmbientEdge) {
			e.Annotations = map[string]string{corev1.LastAppliedConfigAnnotation: "{}"}
		}},
		"a uid, a version": {true, func(e *v1alpha1.AmbientEdge) { e.UID, e.Generation, e.ResourceVersion = "1", 2, "3" }},
		"a status":         {true, func(e *v1alpha1.AmbientEdge) { e.Status.ObservedGeneration = 1 }},
		"a namespace":      {false, func(e *v1alpha1.AmbientEdge) { e.Namespace = "other" }},
		"a name":           {false, func(e *v1alpha1.AmbientEdge) { e.Name = "other" }},
		"a label":          {false, func(e *v1alpha1.AmbientEdge) { e.Labels = map[string]string{"team": "edge"} }},
		"an annotation":    {false, func(e *v1alpha1.AmbientEdge) { e.Annotations = map[string]string{v1alpha1.AnnotationBegin: "x"} }},
		"a spec":           {false, func(e *v1alpha1.AmbientEdge) { e.Spec.OnDelete = v1alpha1.OnDeleteKeep }},
	} {
		if is := of(c.change); (is == was) != c.same {
			t.Errorf("%s: the digest is %s, and was %s", name, is, was)
		}
	}
}

// TestAStatusNamesTheApproval that it is about, however long what stands in its place.
func TestAStatusNamesTheApproval(t *testing.T) {
	for value, want := range map[string]string{
		"": "", "0123:4,5": "0123", "no approval": "no approval", strings.Repeat("é", 100): strings.Repeat("é", 32), "x" + strings.Repeat("é", 100): "x" + strings.Repeat("é", 31),
	} {
		e := &v1alpha1.AmbientEdge{}
		annotate(e, value)
		if is := (&plan.Plan{}).Status(e).Plan.Approval; is != want {
			t.Errorf("of %q: %q", value, is)
		}
	}
}

const restarted = "metadata.annotations[isthmus.dev/rollout]"

// TestPodsMayBeStartedAnew: that pods are captured too late is not known when a plan is approved, and its remedy is a part of it.
func TestPodsMayBeStartedAnew(t *testing.T) {
	s := snapshot(t, inputs(t)["kgateway-fresh"])
	effects := plan.Make(s).Effects(s)
	i := slices.IndexFunc(effects, func(e plan.Effect) bool { return plan.Rolls(e.Field) })
	if i < 0 {
		t.Fatalf("effects are %v", effects)
	}
	if want := (plan.Effect{Object: "Gateway edge/http", Does: "Set", Field: "spec.infrastructure.annotations[isthmus.dev/rollout]"}); effects[i] != want {
		t.Errorf("got %+v, want %+v", effects[i], want)
	}
	if !plan.Rolls(restarted) || plan.Rolls("metadata.annotations[isthmus.dev/former]") {
		t.Error("fields are not told apart")
	}
}

func TestChanges(t *testing.T) {
	s := snapshot(t, inputs(t)["kgateway-fresh"])
	p := plan.Make(s)
	type field struct{ Field, Before, After any }
	type change struct {
		Object string
		Deed   plan.Deed
		Steps  []string
		Fields []field
	}
	var got []change
	for _, c := range p.Changes(s) {
		x := change{Object: c.String(), Deed: c.Deed, Steps: c.Steps}
		for _, f := range c.Fields {
			x.Fields = append(x.Fields, field{f.Field(), f.Before, f.After})
		}
		got = append(got, x)
	}
	want := []change{
		{"Gateway edge/http", plan.DeedChange, []string{"Enrol Gateway edge/http"}, []field{{"spec.infrastructure.labels[istio.io/dataplane-mode]", nil, "ambient"}}},
		{"Service shop/orders", plan.DeedChange, []string{"Wire Service shop/orders", "Switch Service shop/orders"}, []field{
			{"metadata.labels[istio.io/ingress-use-waypoint]", nil, "true"}, {"metadata.labels[istio.io/use-waypoint]", nil, "waypoint"},
		}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("changes differ (-want +got):\n%s", d)
	}
}

// TestChangesOfWhatIsOurs: a field that we hold and do not write goes, unless somebody else holds it too.
func TestChangesOfWhatIsOurs(t *testing.T) {
	for name, others := range map[string]bool{"ours alone": false, "shared": true} {
		t.Run(name, func(t *testing.T) {
			s := snapshot(t, inputs(t)["kgateway-undo"])
			if s.Edge.DeletionTimestamp == nil {
				t.Fatal("kgateway-undo undoes nothing")
			}
			removed := 0
			for i := range s.Services {
				if o := &s.Services[i]; others && len(o.ManagedFields) > 0 {
					theirs := o.ManagedFields[0]
					theirs.Manager, theirs.Operation = "somebody", metav1.ManagedFieldsOperationUpdate
					o.ManagedFields = append(o.ManagedFields, theirs)
				}
			}
			for _, c := range plan.Make(s).Changes(s) {
				for _, f := range c.Fields {
					if c.Kind == "Service" && f.After == nil {
						removed++
					}
				}
			}
			if want := map[bool]int{false: 2, true: 0}[others]; removed != want { // the switch and the way go by a step each
				t.Errorf("%d fields of Services go, want %d", removed, want)
			}
		})
	}
}
