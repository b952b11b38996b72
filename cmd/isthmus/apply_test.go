package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// paperPlan is a plan for a namespace that is to be labelled, and a Service that is not touched. change is made to the world before.
func paperPlan(t *testing.T, change func(*plan.Snapshot)) *planDocument {
	t.Helper()
	e := &v1alpha1.AmbientEdge{}
	if err := strict([]byte(edgeYAML+"  mode: Manage\n  waypoint: {policy: None}\n"), e); err != nil {
		t.Fatal(err)
	}
	labels := map[string]string{"app": "gateway"}
	s := &plan.Snapshot{
		Edge: e,
		Namespaces: []corev1.Namespace{
			{ObjectMeta: metav1.ObjectMeta{Name: "edge", UID: "n1"}},
			{ObjectMeta: metav1.ObjectMeta{Name: "shop", UID: "n2", Annotations: map[string]string{v1alpha1.AnnotationEdges: "edge/public"}}},
		},
		Services: []corev1.Service{{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "orders", UID: "s1"}}},
		Pods:     []plan.Pod{{ObjectMeta: metav1.ObjectMeta{Namespace: "edge", Name: "gateway-1", UID: "p1", Labels: labels}}},
	}
	s.Deployments = append(s.Deployments, gatewayDeployment(labels))
	if change != nil {
		change(s)
	}
	// What is read back from a file is what counts.
	text, err := json.Marshal(newPlanDocument(e, s, nil))
	if err != nil {
		t.Fatal(err)
	}
	d := &planDocument{}
	if err := json.Unmarshal(text, d); err != nil {
		t.Fatal(err)
	}
	d.snapshot = s
	return d
}

const enrolled = "metadata.labels[istio.io/dataplane-mode]"

func TestDifferences(t *testing.T) {
	then := paperPlan(t, nil)
	if then.Blocked || len(then.Changes) != 1 || then.Changes[0].String() != "Namespace edge" {
		t.Fatalf("the plan is %+v, with findings %+v", then.Changes, then.Findings)
	}
	namespace := func(change func(*corev1.Namespace)) func(*plan.Snapshot) {
		return func(s *plan.Snapshot) { change(&s.Namespaces[0]) }
	}
	set := func(value string) func(*plan.Snapshot) {
		return namespace(func(o *corev1.Namespace) { o.Labels = map[string]string{"istio.io/dataplane-mode": value} })
	}
	for _, c := range []struct {
		name   string
		change func(*plan.Snapshot)
		want   []difference
	}{
		{"nothing", nil, []difference{}},
		{"a field that does not concern it", namespace(func(o *corev1.Namespace) { o.Labels = map[string]string{"team": "edge"} }), []difference{}},
		{"a pod is captured", func(s *plan.Snapshot) {
			s.Pods[0].Annotations = map[string]string{plan.AnnotationRedirection: "enabled"}
		}, []difference{}},
		{"the field is set to another value", set("none"), []difference{{"Namespace edge", enrolled, "not set", `"none"`}}},
		{"the field is set as it is wanted", set("ambient"), []difference{{"Namespace edge", enrolled, "not set", `"ambient"`}}},
		{"the object was replaced", namespace(func(o *corev1.Namespace) { o.UID = "n9" }), []difference{{"Namespace edge", "metadata.uid", "n1", "n9"}}},
		{"the AmbientEdge is there meanwhile", func(s *plan.Snapshot) { s.Edge.UID, s.Edge.Generation = "e1", 1 }, []difference{{"AmbientEdge edge/public", "metadata.uid", "not there", "e1"}}},
		{"it has another spec", func(s *plan.Snapshot) { s.Edge.Generation = 2 }, []difference{{"AmbientEdge edge/public", "metadata.generation", "0", "2"}}},
		{"another object is to be written", func(s *plan.Snapshot) {
			s.Edge.Spec.Waypoint = &v1alpha1.Waypoint{Policy: v1alpha1.WaypointCreate, Name: "waypoint"}
		}, []difference{
			{"Gateway shop/waypoint", "", "nothing was to be written", "Create"},
			{"Service shop/orders", "", "nothing was to be written", "Change metadata.labels[istio.io/use-waypoint]"},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if d := cmp.Diff(c.want, differences(then, paperPlan(t, c.change))); d != "" {
				t.Errorf("differences differ (-want +got):\n%s", d)
			}
		})
	}
}

func TestPlansThatAreNotApplied(t *testing.T) {
	t.Setenv("KUBECONFIG", "/nonexistent") // nobody is to be asked
	for _, c := range []struct {
		name   string
		change func(*planDocument)
		want   []string
	}{
		{"something else", func(d *planDocument) { d.Kind = "Status" }, []string{`of kind "Status"`, "isthmus plan"}},
		{"another version", func(d *planDocument) { d.APIVersion = "cli.isthmus.dev/v9" }, []string{"does not know plans of cli.isthmus.dev/v9"}},
		{"an older one", func(d *planDocument) { d.Approval = "" }, []string{"did not know how to apply", "plan again"}},
		{"an undo", func(d *planDocument) { d.Undoing = true }, []string{"that of an undo", "kubectl delete ambientedge -n edge public"}},
		{"from files", func(d *planDocument) { d.FromFiles = true }, []string{"from files alone"}},
		{"another effect", func(d *planDocument) { d.Effects[0].Value = "none" }, []string{"changed by hand"}},
		{"another spec of the AmbientEdge", func(d *planDocument) { d.Edge.Spec.OnDelete = v1alpha1.OnDeleteKeep }, []string{"changed by hand"}},
		{"another label of it", func(d *planDocument) { d.Edge.Labels = map[string]string{"team": "edge"} }, []string{"changed by hand"}},
		{"another annotation of it", func(d *planDocument) {
			d.Edge.Annotations = map[string]string{v1alpha1.AnnotationBegin: v1alpha1.BeginConfirmed}
		}, []string{"changed by hand"}},
		{"another name", func(d *planDocument) { d.Name = "other" }, []string{"changed by hand"}},
		{"another namespace", func(d *planDocument) { d.Namespace = "other" }, []string{"changed by hand"}},
		{"blocked", func(d *planDocument) {
			d.BlockedBy = []string{"ISM302 at Namespace shop"}
		}, []string{"blocked: ISM302 at Namespace shop"}},
		{"one that holds back a backend, and may be applied", func(d *planDocument) {
			d.Findings = append(d.Findings, v1alpha1.Finding{Code: "ISM302", Severity: v1alpha1.SeverityError, Object: "Service shop/orders"})
		}, []string{"there is no way to the cluster"}},
		{"one that may be applied", func(d *planDocument) {
			d.Findings = append(d.Findings, v1alpha1.Finding{Code: v1alpha1.FindingPlanChanged, Severity: v1alpha1.SeverityError})
		}, []string{"there is no way to the cluster"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := paperPlan(t, nil)
			c.change(d)
			text, err := json.Marshal(d)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "plan.json")
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
			r := isthmus(t, "apply", "--plan", path)
			r.want(t, exitFailed, r.stderr, c.want...)
		})
	}
	r := isthmus(t, "apply")
	r.want(t, exitUsage, r.stderr, "--plan is missing")
	r = isthmus(t, "apply", "--plan", "/nonexistent/plan.json")
	r.want(t, exitFailed, r.stderr, "cannot read the plan", "/nonexistent/plan.json")
	r = isthmusWith(t, t.Context(), strings.NewReader("kind: ["), "apply", "--plan", "-")
	r.want(t, exitFailed, r.stderr, "this is no plan", "standard input")
}

// TestWhatIsAppliedOfAnEdge: the whole of one that is new, the approval alone where all is somebody else's, and always what was applied before.
func TestWhatIsAppliedOfAnEdge(t *testing.T) {
	then := paperPlan(t, nil)
	then.Edge.Labels = map[string]string{"team": "edge"}
	then.Edge.Annotations = map[string]string{v1alpha1.AnnotationBegin: v1alpha1.BeginConfirmed}
	approval := then.approval()
	there := &v1alpha1.AmbientEdge{ObjectMeta: metav1.ObjectMeta{Namespace: "edge", Name: "public", UID: "e1"}, Spec: then.Edge.Spec}
	const begin, confirmed = v1alpha1.AnnotationBegin, v1alpha1.BeginConfirmed
	created := `{"f:metadata":{"f:annotations":{"f:` + begin + `":{},"f:` + v1alpha1.AnnotationPlan + `":{},"f:taken.away":{}},"f:labels":{"f:team":{}}},"f:spec":{"f:mode":{}}}`
	held := func(manager string, operation metav1.ManagedFieldsOperationType, subresource, fields string) *v1alpha1.AmbientEdge {
		e := there.DeepCopy()
		e.Labels = map[string]string{"team": "now", "of": "others"}
		e.Annotations = map[string]string{begin: confirmed, v1alpha1.AnnotationPlan: "old", "of": "others"}
		e.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: manager, Operation: operation, Subresource: subresource, FieldsV1: metav1.NewFieldsV1(fields)}}
		return e
	}
	const apply = metav1.ManagedFieldsOperationApply
	ours := held(v1alpha1.CommandOwner, apply, "", created)
	other := there.DeepCopy()
	other.Spec.Mode = v1alpha1.ModeObserve
	otherOfOurs := ours.DeepCopy()
	otherOfOurs.Spec.Mode = v1alpha1.ModeObserve
	alone, began := map[string]string{v1alpha1.AnnotationPlan: approval}, map[string]string{v1alpha1.AnnotationPlan: approval, begin: confirmed}
	for _, c := range []struct {
		name                string
		there               *v1alpha1.AmbientEdge
		labels, annotations map[string]string
		spec                bool
	}{
		{"new", nil, map[string]string{"team": "edge"}, began, true},
		{"the same spec of somebody else", there, nil, alone, false},
		{"all of it ours, which would go", ours, map[string]string{"team": "now"}, began, true},
		{"another spec", other, nil, alone, true},
		{"another spec, of one that is ours", otherOfOurs, map[string]string{"team": "now"}, began, true},
		{"an annotation ours, and the spec not", held(v1alpha1.CommandOwner, apply, "", `{"f:metadata":{"f:annotations":{"f:`+begin+`":{}}}}`), nil, began, false},
		{"the approval alone", held(v1alpha1.CommandOwner, apply, "", `{"f:metadata":{"f:annotations":{".":{},"f:`+v1alpha1.AnnotationPlan+`":{}}}}`), nil, alone, false},
		{"applied by somebody else", held("argocd", apply, "", created), nil, alone, false},
		{"not applied", held(v1alpha1.CommandOwner, metav1.ManagedFieldsOperationUpdate, "", created), nil, alone, false},
		{"of the status", held(v1alpha1.CommandOwner, apply, "status", created), nil, alone, false},
	} {
		u, err := approvedEdge(c.there, then)
		if err != nil {
			t.Fatal(err)
		}
		if _, spec := u.Object["spec"]; spec != c.spec {
			t.Errorf("%s: got %v", c.name, u.Object)
		}
		if d := cmp.Diff(c.labels, u.GetLabels()); d != "" {
			t.Errorf("%s: labels differ (-want +got):\n%s", c.name, d)
		}
		if d := cmp.Diff(c.annotations, u.GetAnnotations()); d != "" {
			t.Errorf("%s: annotations differ (-want +got):\n%s", c.name, d)
		}
	}
	if _, err := approvedEdge(held(v1alpha1.CommandOwner, apply, "", "["), then); err == nil || !strings.Contains(err.Error(), "metadata.managedFields") {
		t.Errorf("fields that make no sense: got %v", err)
	}
	if carries(there, then) {
		t.Error("it is not approved yet, and said to be")
	}
	there.Annotations = map[string]string{v1alpha1.AnnotationPlan: approval}
	if !carries(there, then) {
		t.Error("it is approved, and not said to be")
	}
	there.Spec.Mode = v1alpha1.ModeObserve
	if carries(there, then) {
		t.Error("another spec was approved")
	}
}

// TestWhatHoldsBackOneBackendBlocksNoApproval: errors about a headless Service, beside one that is well and alone.
func TestWhatHoldsBackOneBackendBlocksNoApproval(t *testing.T) {
	planOf := func(names ...string) *planDocument {
		return paperPlan(t, func(s *plan.Snapshot) {
			s.Edge.Spec.Waypoint = &v1alpha1.Waypoint{Policy: v1alpha1.WaypointCreate, Name: "waypoint"}
			s.Edge.Spec.Backends = &v1alpha1.Backends{}
			s.Services = nil
			for _, name := range names {
				svc := corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name)}, Spec: corev1.ServiceSpec{ClusterIP: "10.0.0.1"}}
				if name == "headless" {
					svc.Spec.ClusterIP = corev1.ClusterIPNone
				}
				s.Services = append(s.Services, svc)
				s.Edge.Spec.Backends.Services = append(s.Edge.Spec.Backends.Services, v1alpha1.ServiceRef{Namespace: "shop", Name: name})
			}
		})
	}
	some := planOf("headless", "orders")
	if err := some.unapprovable(); err != nil {
		t.Errorf("one of two backends is held back, and the plan is refused: %v", err)
	}
	if note := some.heldNote(); !strings.Contains(note, "Service shop/headless (ISM") || strings.Contains(note, "shop/orders") || !strings.Contains(note, "new approval") {
		t.Errorf("the note is %q", note)
	}
	if err := planOf("headless").unapprovable(); err == nil || !strings.Contains(err.Error(), "Service shop/headless") {
		t.Errorf("the only backend is held back, and the plan may be applied: %v", err)
	}
	if note := planOf("orders").heldNote(); note != "" {
		t.Errorf("nothing is held back, and the note is %q", note)
	}
}

func TestFollowingEndsWhereTheRestIsHeldBack(t *testing.T) {
	edge := func(states ...v1alpha1.StepState) *v1alpha1.AmbientEdge {
		e := &v1alpha1.AmbientEdge{}
		for _, s := range states {
			e.Status.Plan.Steps = append(e.Status.Plan.Steps, v1alpha1.Step{State: s})
		}
		return e
	}
	if !onlyHeld(edge(v1alpha1.StepDone, v1alpha1.StepHeld)) {
		t.Error("what is left is held back, and it goes on waiting")
	}
	for _, e := range []*v1alpha1.AmbientEdge{edge(), edge(v1alpha1.StepDone), edge(v1alpha1.StepHeld, v1alpha1.StepNext), edge(v1alpha1.StepHeld, v1alpha1.StepLater)} {
		if onlyHeld(e) {
			t.Errorf("it ends with %+v", e.Status.Plan.Steps)
		}
	}
}

func TestDifferencesAreATable(t *testing.T) {
	var out bytes.Buffer
	a := &app{stdout: &out, getenv: func(string) string { return "" }}
	err := a.moved(paperPlan(t, nil), &applyDocument{Differences: []difference{{"Namespace edge", enrolled, "not set", `"none"`}}})
	if d := detail(err); exitCode(err) != exitFailed || !strings.Contains(d.Message, "1 differences; nothing was written") || d.Next == "" {
		t.Errorf("the error is %+v", d)
	}
	if want := "OBJECT          FIELD                                     THEN     NOW\nNamespace edge  " + enrolled + "  not set  \"none\"\n"; out.String() != want {
		t.Errorf("got %s", out.String())
	}
}

func gatewayDeployment(labels map[string]string) appsv1.Deployment {
	d := appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "edge", Name: "gateway", UID: "d1"}}
	d.Spec.Selector = &metav1.LabelSelector{MatchLabels: labels}
	d.Spec.Template.Labels = labels
	return d
}
