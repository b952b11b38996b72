package plan_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// TestWhatRoutesCallNoMoreIsTakenAwayThoughTheRestIsHeld: a list of callers that is to let in less and more lets in less at once, and more when nothing holds that back.
func TestWhatRoutesCallNoMoreIsTakenAwayThoughTheRestIsHeld(t *testing.T) {
	more := inputs(t)["pair-scope-route-follows-a-route-more"] // a route that calls /new
	for name, tt := range map[string]struct{ input, held string }{
		"more":          {more, ""},
		"less and more": {strings.Replace(more, "paths: [/list]", `paths: [/list]}}, {operation: {ports: ["80"], paths: [/gone]`, 1), "/list"},
	} {
		t.Run(name, func(t *testing.T) {
			s := snapshot(t, tt.input)
			written := func() (text string) {
				for _, w := range plan.Make(s).Writes() {
					text += fmt.Sprint(w.Fields)
				}
				return text
			}
			if text := written(); !strings.Contains(text, "/new") || strings.Contains(text, "/gone") {
				t.Errorf("with nothing in the way it writes %q", text)
			}
			annotate(s.Edge, plan.Approval(s.Edge, nil))
			if text := written(); (text == "") != (tt.held == "") || !strings.Contains(text, tt.held) || strings.Contains(text, "/new") || strings.Contains(text, "/gone") {
				t.Errorf("held, it writes %q", text)
			}
		})
	}
}
