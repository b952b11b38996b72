package checktest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/e2e/programs"
)

// Asker runs the command against one mesh.
type Asker struct {
	mesh   *mesh.Mesh
	binary string
}

// New makes an Asker with a command, as package command builds it.
func New(m *mesh.Mesh, binary string) *Asker { return &Asker{m, binary} }

// Finding is one of isthmus check.
type Finding struct {
	Code     string            `json:"code"`
	Severity v1alpha1.Severity `json:"severity"`
	Object   Object            `json:"object"`
	Field    string            `json:"field"`
	Message  string            `json:"message"`
	Fix      string            `json:"fix"`
	Patch    string            `json:"patch"`
}

// Object names an object.
type Object struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// String is Kind namespace/name, or Kind name.
func (o Object) String() string {
	if o.Namespace == "" {
		return o.Kind + " " + o.Name
	}
	return o.Kind + " " + o.Namespace + "/" + o.Name
}

// patience is how long what istiod and the API server say about objects may take to be what it should be.
const patience = time.Minute

// Found waits until isthmus check has a finding of a code and severity about an object, written as Kind namespace/name, that says all of parts.
func (a *Asker) Found(t *testing.T, severity v1alpha1.Severity, code, object string, parts ...string) Finding {
	t.Helper()
	var is Finding
	a.wait(t, fmt.Sprintf("%s %s at %s that says %q", severity, code, object, parts), func(list []Finding) bool {
		at := slices.IndexFunc(list, func(f Finding) bool {
			return f.Code == code && f.Severity == severity && f.Object.String() == object &&
				!slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(f.Message+"\n"+f.Fix, part) })
		})
		if at >= 0 {
			is = list[at]
		}
		return at >= 0
	})
	t.Logf("isthmus check: %s %s at %s %s: %s; fix: %s", is.Severity, is.Code, is.Object, is.Field, is.Message, is.Fix)
	if is.Fix == "" {
		t.Errorf("%s at %s has no fix", code, object)
	}
	return is
}

// Silent waits until isthmus check has no finding of some codes about an object.
func (a *Asker) Silent(t *testing.T, object string, codes ...string) {
	t.Helper()
	a.wait(t, fmt.Sprintf("nothing of %v at %s", codes, object), func(list []Finding) bool {
		return !slices.ContainsFunc(list, func(f Finding) bool { return slices.Contains(codes, f.Code) && f.Object.String() == object })
	})
}

// wait looks until a list is as it should be.
func (a *Asker) wait(t *testing.T, what string, ok func([]Finding) bool) {
	t.Helper()
	var list []Finding
	for end := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		if list = a.Check(t); ok(list) {
			return
		}
		if time.Now().After(end) {
			break
		}
	}
	var b strings.Builder
	for _, f := range list {
		fmt.Fprintf(&b, "\n%s %s at %s: %s", f.Severity, f.Code, f.Object, f.Message)
	}
	t.Fatalf("isthmus check: want %s; after %v it has%s", what, patience, &b)
}

// Check is what isthmus check finds now.
func (a *Asker) Check(t *testing.T) []Finding {
	t.Helper()
	var doc struct {
		Findings []Finding `json:"findings"`
	}
	if err := a.read(t, &doc, "check", "-o", "json", "--fail-on", "never"); err != nil {
		t.Fatal(err)
	}
	return doc.Findings
}

// Plan is what isthmus plan shows of an AmbientEdge.
type Plan struct {
	Blocked  bool               `json:"blocked"`
	Held     []string           `json:"held"`
	Done     bool               `json:"done"`
	Findings []v1alpha1.Finding `json:"findings"`
	Steps    []v1alpha1.Step    `json:"steps"`
}

// Plan is what isthmus plan shows of an AmbientEdge that nobody has applied.
func (a *Asker) Plan(t *testing.T, ambientEdge string) (p Plan) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "edge.yaml")
	if err := os.WriteFile(file, []byte(ambientEdge), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := a.read(t, &p, "plan", "-f", file, "-o", "json"); (err != nil) != (p.Blocked || len(p.Held) > 0) {
		t.Errorf("isthmus plan: %v; blocked %v, held %v", err, p.Blocked, p.Held)
	}
	for _, f := range p.Findings {
		t.Logf("isthmus plan: %s %s at %s: %s", f.Severity, f.Code, f.Object, f.Message)
	}
	for _, s := range p.Steps {
		t.Logf("isthmus plan: %s %s %s", s.State, s.ID, s.Reason)
	}
	return p
}

// Finding is the first of a code about an object, or nil.
func (p *Plan) Finding(code, object string) *v1alpha1.Finding {
	if at := slices.IndexFunc(p.Findings, func(f v1alpha1.Finding) bool { return f.Code == code && f.Object == object }); at >= 0 {
		return &p.Findings[at]
	}
	return nil
}

// Step is the first about an object in one of some states, or nil.
func (p *Plan) Step(object string, states ...v1alpha1.StepState) *v1alpha1.Step {
	if at := slices.IndexFunc(p.Steps, func(s v1alpha1.Step) bool { return s.Object == object && slices.Contains(states, s.State) }); at >= 0 {
		return &p.Steps[at]
	}
	return nil
}

// read runs the command and reads what it writes, whatever its exit code; that is in the error.
func (a *Asker) read(t *testing.T, into any, args ...string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	text, err := a.mesh.Run(ctx, a.binary, args...)
	if jsonErr := json.Unmarshal([]byte(text), into); jsonErr != nil {
		t.Fatalf("isthmus %s: %v; what it has written is no JSON (%v): %s", strings.Join(args, " "), err, jsonErr, text)
	}
	return err
}

// Mend does what the patch of a finding says: a command of kubectl's, or objects to be applied.
func (a *Asker) Mend(t *testing.T, f Finding) {
	t.Helper()
	t.Logf("patch: %s", f.Patch)
	switch {
	case f.Patch == "":
		t.Fatalf("%s at %s has no patch", f.Code, f.Object)
	case !strings.HasPrefix(f.Patch, "kubectl "):
		if err := a.mesh.Apply(t.Context(), f.Patch); err != nil {
			t.Fatal(err)
		}
		return
	}
	shell := exec.CommandContext(t.Context(), "sh", "-ec", f.Patch)
	shell.Env = append(os.Environ(), "KUBECONFIG="+a.mesh.Kubeconfig, "PATH="+filepath.Dir(a.mesh.Programs.Path(programs.Kubectl))+":"+os.Getenv("PATH"))
	var said strings.Builder
	shell.Stdout, shell.Stderr = &said, &said
	err := a.mesh.NS.Start(shell)
	if err == nil {
		err = shell.Wait()
	}
	if err != nil {
		t.Fatalf("%s: %v: %s", f.Patch, err, &said)
	}
}
