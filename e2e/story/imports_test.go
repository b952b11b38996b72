package story_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/isthmus-mesh/isthmus"

// TestGatewaysImport shows that the plain gateway has nothing of ours, and the native one what its author would take, in few lines.
func TestGatewaysImport(t *testing.T) {
	list := func(args ...string) []string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), "go", append([]string{"list"}, args...)...).Output()
		if err != nil {
			t.Fatalf("go list %s: %v", strings.Join(args, " "), err)
		}
		return strings.Fields(string(out))
	}
	deps := list("-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", "./plain")
	if len(deps) != 1 || deps[0] != module+"/e2e/story/plain" {
		t.Errorf("the plain gateway depends on %q", deps)
	}
	ours := 0
	for _, pkg := range list("-f", `{{join .Imports "\n"}}`, "./native") {
		switch {
		case strings.HasPrefix(pkg, module+"/hbone"), strings.HasPrefix(pkg, module+"/identity"):
			ours++
		case pkg == "github.com/spiffe/go-spiffe/v2/spiffeid", !strings.Contains(strings.Split(pkg, "/")[0], "."):
		default:
			t.Errorf("the native gateway imports %s", pkg)
		}
	}
	if ours == 0 {
		t.Error("the native gateway imports nothing of ours")
	}
	text, err := os.ReadFile("native/gateway.go")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "\n"); n > 60 {
		t.Errorf("the native gateway has %d lines, and 60 are promised at most", n)
	}
}
