package plan_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// otherwise is the input of a golden plan with texts in place of others.
func otherwise(t *testing.T, name string, pairs ...string) *plan.Snapshot {
	t.Helper()
	text := inputs(t)[name]
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("%s has no %q", name, pairs[i])
		}
		text = strings.ReplaceAll(text, pairs[i], pairs[i+1])
	}
	return snapshot(t, text)
}

// verb is the one step of a verb.
func verb(t *testing.T, p *plan.Plan, verb string) *plan.Step {
	t.Helper()
	i := slices.IndexFunc(p.Steps, func(s plan.Step) bool { return s.Verb == verb })
	if i < 0 {
		t.Fatalf("there is no step %s in %+v", verb, p.Steps)
	}
	return &p.Steps[i]
}

// TestALockWaits: whoever is kept from the pods before he goes by the waypoint is cut off, and so is whoever keeps a connection from before.
func TestALockWaits(t *testing.T) {
	const (
		wiring = `labels: {istio.io/use-waypoint: waypoint}, managedFields: [{manager: isthmus.dev/edge.public, operation: Apply, fieldsType: FieldsV1, fieldsV1: {f:metadata: {f:labels: {f:istio.io/use-waypoint: {}}}}}]`
		bound  = `{type: istio.io/WaypointBound, status: "True"}`
		locks  = "  authorization: {mode: Lock}\n"
		native = locks + "  capture: Native\n"
		inside = `uid: n1, labels: {istio.io/dataplane-mode: ambient}, managedFields: [{manager: isthmus.dev/edge.public, operation: Apply, fieldsType: FieldsV1, fieldsV1: {f:metadata: {f:labels: {f:istio.io/dataplane-mode: {}}}}}]`
	)
	for _, c := range []struct {
		name, of string
		edits    []string
		state    v1alpha1.StepState
		finds    string // a code, and a part of its message
	}{
		{name: "for nothing", of: "lock-comes-last", state: v1alpha1.StepNext},
		{name: "for the wiring alone", of: "lock-comes-last", edits: []string{wiring, "labels: {}", bound, ""}, state: v1alpha1.StepLater},
		{name: "until istiod has bound it", of: "lock-comes-last", edits: []string{bound, ""}, state: v1alpha1.StepLater},
		{name: "for connections of a captured gateway", of: "lock-waits-for-connections-of-before", state: v1alpha1.StepBlocked, finds: "ISM334 led to its waypoint"},
		{
			name: "for tunnels of a native gateway", of: "lock-waits-for-connections-of-before",
			edits: []string{locks, native, inside, "uid: n1", `, annotations: {ambient.istio.io/redirection: enabled}, managedFields: [{manager: istio-cni`, `, managedFields: [{manager: istio-cni`},
			state: v1alpha1.StepBlocked, finds: "ISM334 led to its waypoint",
		},
		{
			name: "not for a native gateway that came after", of: "lock-waits-for-connections-of-before",
			edits: []string{
				locks, native, inside, "uid: n1", `, annotations: {ambient.istio.io/redirection: enabled}, managedFields: [{manager: istio-cni`, `, managedFields: [{manager: istio-cni`,
				`startTime: "2026-01-01T09:45:00Z"`, `startTime: "2026-01-01T10:15:00Z"`,
			},
			state: v1alpha1.StepNext,
		},
		{name: "for ever where the gateway is outside", of: "lock-comes-last", edits: []string{locks, locks + "  capture: None\n"}, state: v1alpha1.StepBlocked, finds: "ISM337 outside the mesh"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := plan.Make(otherwise(t, c.of, c.edits...))
			s := verb(t, p, plan.VerbLock)
			if s.State != c.state || (s.Write != nil) != (c.state == v1alpha1.StepNext) {
				t.Errorf("the lock is %s: %s; writes %+v; findings are %+v", s.State, s.Reason, s.Write, p.Findings)
			}
			code, says, _ := strings.Cut(c.finds, " ")
			if c.finds != "" && !slices.ContainsFunc(p.Findings, func(f v1alpha1.Finding) bool { return f.Code == code && strings.Contains(f.Message, says) }) {
				t.Errorf("findings are %+v", p.Findings)
			}
		})
	}
}

// TestWhatIsForcedIsOneObject: a lock is mended by force, and it must be the one that was seen.
func TestWhatIsForcedIsOneObject(t *testing.T) {
	s := snapshot(t, inputs(t)["lock-is-mended"])
	w := verb(t, plan.Make(s), plan.VerbLock).Write
	if w == nil || !w.Force || w.UID == "" || w.UID != s.Policies[len(s.Policies)-1].UID {
		t.Errorf("the write is %+v", w)
	}
}
