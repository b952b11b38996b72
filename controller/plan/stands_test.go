package plan_test

import (
	"testing"

	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// TestWhatStandsIsKnown: an AmbientEdge that has nothing left to write has undo to do all the same.
func TestWhatStandsIsKnown(t *testing.T) {
	for _, c := range []struct {
		of    string
		want  bool
		edits []string
	}{
		{of: "fresh-edge"},
		{of: "undo-done"},
		{of: "all-done", want: true},
		{of: "lock-done", want: true},
		{of: "kgateway-switch", want: true},
		{of: "undo-halts-for-a-waypoint-without-our-label", want: true, edits: []string{ // and nothing else
			", managedFields: [{manager: isthmus.dev/edge.public, operation: Apply, fieldsType: FieldsV1, fieldsV1: {f:metadata: {f:labels: {f:istio.io/dataplane-mode: {}}}}}]", "",
		}},
		{of: "undo-halts-for-a-policy", want: true},
	} {
		t.Run(c.of, func(t *testing.T) {
			s := otherwise(t, c.of, c.edits...)
			s.Edge.DeletionTimestamp, s.Edge.Finalizers = nil, nil
			if got := plan.Stands(s); got != c.want {
				t.Errorf("something stands: %t", got)
			}
			if s.Edge.DeletionTimestamp != nil {
				t.Error("the snapshot was changed")
			}
		})
	}
}
