package run

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// notes is a recorder.
type notes []string

func (n *notes) Eventf(regarding, related runtime.Object, eventType, reason, action, note string, args ...any) {
	of, about := regarding.(*corev1.ObjectReference), ""
	if r, ok := related.(*corev1.ObjectReference); ok {
		about = r.Kind + " " + r.Namespace + "/" + r.Name
	}
	*n = append(*n, fmt.Sprintf("%s/%s %s %s %s [%s] %s", of.Namespace, of.Name, eventType, reason, action, about, fmt.Sprintf(note, args...)))
}

// seen is a status: ready or why not, steps as "Verb=State", and findings as "CODE Object".
func seen(reason string, steps []string, findings ...string) *v1alpha1.AmbientEdgeStatus {
	st := &v1alpha1.AmbientEdgeStatus{Conditions: []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: "False", Reason: reason, Message: "so it is"}}}
	if reason == v1alpha1.ReasonDone {
		st.Conditions[0].Status = "True"
	}
	for _, text := range steps {
		verb, state, _ := strings.Cut(text, "=")
		st.Plan.Steps = append(st.Plan.Steps, v1alpha1.Step{ID: verb + " Service shop/orders", Verb: verb, Object: "Service shop/orders", State: v1alpha1.StepState(state), Reason: "for a reason"})
	}
	for _, text := range findings {
		code, object, _ := strings.Cut(text, " ")
		st.Findings = append(st.Findings, v1alpha1.Finding{Code: code, Severity: v1alpha1.SeverityError, Object: object, Message: "no"})
	}
	return st
}

// planOf is the plan of a status, whole where it is one of undo.
func planOf(st *v1alpha1.AmbientEdgeStatus, undoing bool) *plan.Plan {
	p := &plan.Plan{Undoing: undoing, Whole: undoing}
	for _, s := range st.Plan.Steps {
		p.Steps = append(p.Steps, plan.Step{Step: s})
	}
	return p
}

func TestServicesThatAreWantedAgainWereNotTakenBack(t *testing.T) {
	before, after := seen(v1alpha1.ReasonBlocked, []string{"Unwire=Blocked"}), seen(v1alpha1.ReasonInProgress, []string{"Wire=Done", "Confirm=Next"})
	p := planOf(after, false)
	p.Whole = true
	if list := transitions(before, after, p); len(list) > 0 {
		t.Errorf("told %v", list)
	}
	p.Steps = nil
	after.Plan.Steps = nil
	if list := transitions(before, after, p); len(list) != 1 || list[0].action != plan.VerbUnwire {
		t.Errorf("a Service that has left the spec: told %v", list)
	}
}

func TestTransitions(t *testing.T) {
	begun, wired := []string{"Wire=Next", "Confirm=Later"}, []string{"Wire=Done", "Confirm=Done"}
	warning := seen(v1alpha1.ReasonDone, wired, "ISM303 Service shop/orders")
	warning.Findings[0].Severity = v1alpha1.SeverityWarning
	for _, c := range []struct {
		name          string
		before, after *v1alpha1.AmbientEdgeStatus
		undoing       bool
		want          []string
	}{
		{"what is taken back goes step by step", seen(v1alpha1.ReasonUndoing, []string{"Unswitch=Next", "Unwire=Later", "Delete=Later"}), seen(v1alpha1.ReasonUndoing, []string{"Delete=Next"}), true, []string{
			"Normal StepDone Unswitch [Service shop/orders] Unswitch Service shop/orders: for a reason",
			"Normal StepDone Unwire [Service shop/orders] Unwire Service shop/orders: for a reason"}},
		{"the last of it", seen(v1alpha1.ReasonUndoing, []string{"Release=Next", "Await=Later"}), seen(v1alpha1.ReasonUndoing, []string{"Await=Done"}), true, []string{
			"Normal StepDone Release [Service shop/orders] Release Service shop/orders: for a reason",
			"Normal StepDone Await [Service shop/orders] Await Service shop/orders: for a reason"}},
		{"what was left to do is not done by undo", seen(v1alpha1.ReasonInProgress, begun), seen(v1alpha1.ReasonUndoing, []string{"Unwire=Next"}), true, nil},
		{"a plan that cannot tell", seen(v1alpha1.ReasonInProgress, []string{"Unwire=Blocked"}), seen(v1alpha1.ReasonInProgress, []string{"Confirm=Next"}), false, nil},
		{"the first look", &v1alpha1.AmbientEdgeStatus{}, seen(v1alpha1.ReasonInProgress, begun), false, nil},
		{"all was there", &v1alpha1.AmbientEdgeStatus{}, seen(v1alpha1.ReasonDone, wired), false, []string{"Normal Ready Observe [] so it is"}},
		{"nothing has happened", seen(v1alpha1.ReasonDone, wired), seen(v1alpha1.ReasonDone, wired), false, nil},
		{"nothing but words", seen(v1alpha1.ReasonBlocked, begun, "ISM309 Service shop/orders"), seen(v1alpha1.ReasonBlocked, begun, "ISM309 Service shop/orders"), false, nil},
		{"a step", seen(v1alpha1.ReasonInProgress, begun), seen(v1alpha1.ReasonInProgress, []string{"Wire=Done", "Confirm=Next"}), false, []string{
			"Normal StepDone Wire [Service shop/orders] Wire Service shop/orders: for a reason"}},
		{"the last step", seen(v1alpha1.ReasonInProgress, []string{"Wire=Done", "Confirm=Next"}), seen(v1alpha1.ReasonDone, wired), false, []string{
			"Normal Ready Observe [] so it is", "Normal StepDone Confirm [Service shop/orders] Confirm Service shop/orders: for a reason"}},
		{"ready no more", seen(v1alpha1.ReasonDone, wired), seen(v1alpha1.ReasonInProgress, begun), false, []string{"Warning NotReady InProgress-5c3b7392 [] InProgress: so it is"}},
		{"undo", seen(v1alpha1.ReasonDone, wired), seen(v1alpha1.ReasonUndoing, begun), true, nil},
		{"undo halts", seen(v1alpha1.ReasonDone, wired), seen(v1alpha1.ReasonUndoHalted, begun, "ISM307 Service shop/orders"), true, []string{
			"Warning UndoHalted ISM307 [Service shop/orders] ISM307 Service shop/orders: no"}},
		{"refused", seen(v1alpha1.ReasonInProgress, begun), seen(v1alpha1.ReasonBlocked, begun, "ISM309 Service shop/orders"), false, []string{
			"Warning Refused ISM309 [Service shop/orders] ISM309 Service shop/orders: no"}},
		{"somebody else's value", seen(v1alpha1.ReasonInProgress, begun), seen(v1alpha1.ReasonBlocked, begun, "ISM303 Service shop/orders"), false, []string{
			"Warning Conflict ISM303 [Service shop/orders] ISM303 Service shop/orders: no"}},
		{"an older edge", seen(v1alpha1.ReasonInProgress, begun), seen(v1alpha1.ReasonConflicted, begun, "ISM304 AmbientEdge edge/public"), false, []string{
			"Warning Conflict ISM304 [AmbientEdge edge/public] ISM304 AmbientEdge edge/public: no"}},
		{"a mistake", seen(v1alpha1.ReasonInProgress, begun), seen(v1alpha1.ReasonBlocked, begun, "ISM300 Deployment edge/gateway"), false, []string{
			"Warning Blocked ISM300 [Deployment edge/gateway] ISM300 Deployment edge/gateway: no"}},
		{"a warning", seen(v1alpha1.ReasonDone, wired), warning, false, nil},
		{"a warning that became an error", warning, seen(v1alpha1.ReasonDone, wired, "ISM303 Service shop/orders"), false, []string{
			"Warning Conflict ISM303 [Service shop/orders] ISM303 Service shop/orders: no"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got notes
			record(&got, fresh().Edge, transitions(c.before, c.after, planOf(c.after, c.undoing))...)
			want := notes(nil)
			for _, w := range c.want {
				want = append(want, "edge/public "+w)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
		})
	}
}

func TestEventsAreBounded(t *testing.T) {
	var before, after v1alpha1.AmbientEdgeStatus
	for i := range v1alpha1.MaxSteps {
		id := fmt.Sprintf("Wire Service shop/s%d", i)
		verb := fmt.Sprint("Verb", i%20)
		before.Plan.Steps = append(before.Plan.Steps, v1alpha1.Step{ID: id, Verb: verb, State: v1alpha1.StepNext})
		after.Plan.Steps = append(after.Plan.Steps, v1alpha1.Step{ID: id, Verb: verb, State: v1alpha1.StepDone, Reason: strings.Repeat("ä", 1000)})
	}
	var got notes
	record(&got, fresh().Edge, transitions(&before, &after, planOf(&after, false))...)
	if len(got) != maxEvents {
		t.Errorf("%d events, want %d", len(got), maxEvents)
	}
	if n := shortened(after.Plan.Steps[0].Reason); len(n) > 1024 || !utf8.ValidString(n) {
		t.Errorf("a note has %d bytes: %q", len(n), n)
	}
	record(nil, fresh().Edge, undone(), kept()) // nobody wants them

	for i := range after.Plan.Steps {
		before.Plan.Steps[i].Verb, after.Plan.Steps[i].Verb = "Wire", "Wire"
	}
	got = nil
	record(&got, fresh().Edge, transitions(&before, &after, planOf(&after, false))...)
	if want := (notes{"edge/public Normal StepDone Wire [] 64 steps: Wire Service shop/s0, Wire Service shop/s1 and 62 more"}); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

// TestWhyAnEdgeIsNotReadyIsNotHiddenInASeries: Events of one action and reason show the words of the first.
func TestWhyAnEdgeIsNotReadyIsNotHiddenInASeries(t *testing.T) {
	actions := map[string]bool{}
	for _, message := range []string{"Verify Deployment edge/gateway: 1 of 2 pods captured", "Await Gateway shop/waypoint: it is not there", "Await Gateway shop/waypoint: it is not there"} {
		after := seen(v1alpha1.ReasonInProgress, nil)
		after.Conditions[0].Message = message
		list := transitions(seen(v1alpha1.ReasonDone, nil), after, planOf(after, false))
		if len(list) != 1 || list[0].reason != eventNotReady || !strings.HasPrefix(list[0].action, v1alpha1.ReasonInProgress) || !strings.HasSuffix(list[0].note, message) {
			t.Fatalf("told %v", list)
		}
		actions[list[0].action] = true
	}
	if len(actions) != 2 {
		t.Errorf("three Events with two reasons are of %d series: %v", len(actions), actions)
	}
}
