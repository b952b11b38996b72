package clitest

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write docs/kubectl.md anew, from what kubectl shows in this run")

const shownIn = "../../docs/kubectl.md"

// kubectlShows compares what kubectl shows of an edge that is ready with what the documentation says it does: all but times, versions and uids.
func (c *cluster) kubectlShows(t *testing.T) {
	var b strings.Builder
	b.WriteString(`<!-- Generated from a run: cd e2e && go test ./clitest -run TestPlanStatusAndController -update -->

# What kubectl shows

Of the AmbientEdge in ` + "`manifests/samples/deployment.yaml`" + `, a moment after it has become ready. Its fields are explained in [AmbientEdge](ambientedge.md), the code
of a finding in [findings](findings.md). ` + "`isthmus status`" + ` shows the same for people.
`)
	for _, args := range [][]string{{"get", "aedge", "-n", "edge"}, {"describe", "aedge", "-n", "edge", "public"}} {
		out, err := c.Run(t.Context(), "kubectl", args...)
		if err != nil {
			t.Fatal(err)
		}
		out, _, _ = strings.Cut(out, "\nEvents:") // what has happened before in this run
		fmt.Fprintf(&b, "\n```text\n$ kubectl %s\n%s\n```\n", strings.Join(args, " "), strings.TrimRight(out, "\n"))
	}
	if *update {
		if err := os.WriteFile(shownIn, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	text, err := os.ReadFile(shownIn)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(shape(string(text)), shape(b.String())); d != "" {
		t.Errorf("docs/kubectl.md is not what kubectl shows (-update writes it): -docs +kubectl\n%s", d)
	}
}

// shape is output without what differs from run to run.
func shape(out string) string {
	for _, r := range []struct{ pattern, with string }{
		{`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`, "TIME"},
		{`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`, "UID"},
		{`(Generation|Resource Version):( +)\d+`, "$1:${2}N"},
		{`(?m)^(public .* )\d+[smh0-9]*$`, "${1}AGE"},
	} {
		out = regexp.MustCompile(r.pattern).ReplaceAllString(out, r.with)
	}
	return out
}
