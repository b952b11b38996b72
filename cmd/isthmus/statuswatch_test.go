package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// TestStatusesAreShownAgainWhenTheyChange: once for each change, though a note of how long ago something was is always another.
func TestStatusesAreShownAgainWhenTheyChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var out bytes.Buffer
		a := &app{stdout: &out, stderr: &out, output: outputText, getenv: func(string) string { return "" }}
		modes := []v1alpha1.Mode{v1alpha1.ModeObserve, v1alpha1.ModeObserve, v1alpha1.ModeManage, v1alpha1.ModeManage}
		reads := 0
		err := a.statusWatch(ctx, false, func(context.Context) (*statusDocument, string, error) {
			doc := &statusDocument{Edges: []edgeStatus{{Namespace: "edge", Name: "public", Mode: modes[reads]}}, Notes: []string{strings.Repeat("ago ", reads+1)}}
			if reads++; reads == len(modes) {
				cancel()
			}
			return doc, "", nil
		})
		if err != nil || reads != len(modes) {
			t.Errorf("after %d reads: %v", reads, err)
		}
		if n := strings.Count(out.String(), "public"); n != 2 || strings.Count(out.String(), "note: ") != 2 {
			t.Errorf("it is not shown twice:\n%s", out.String())
		}
	})
	r := isthmus(t, "status", "--watch", "--require-ready")
	r.want(t, exitUsage, r.stderr, "--watch and --require-ready exclude each other")
}
