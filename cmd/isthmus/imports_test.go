package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	module   = "github.com/isthmus-mesh/isthmus"
	repoRoot = "../.."
)

// goList runs go list, here or in a folder, with more than the environment has.
func goList(t *testing.T, dir string, env []string, args ...string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// within says whether a package is one of the prefixes or below it.
func within(pkg string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return pkg == p || strings.HasPrefix(pkg, strings.TrimSuffix(p, "/")+"/") })
}

// library is what a gateway's author embeds.
func library() []string {
	return []string{"./hbone", "./hbone/route", "./hbone/authz", "./identity", "./identity/file", "./identity/identitytest"}
}

// matchers is pure, and anybody may import it: library and controller read conditions of policies in the same way.
const matchers = module + "/hbone/authz"

// TestImports holds what design and documents promise of packages.
func TestImports(t *testing.T) {
	kubernetes := []string{"k8s.io", "sigs.k8s.io", "istio.io/client-go"}
	for _, c := range []struct {
		name     string // the rule
		packages []string
		direct   bool // not what those import in turn
		banned   []string
	}{
		{"who embeds hbone gets neither Kubernetes, Istio nor gRPC", library(), false, append([]string{"istio.io", "google.golang.org/grpc"}, kubernetes...)},
		{"no part of the library needs Kubernetes", []string{"./hbone/...", "./identity/..."}, false, kubernetes},
		{"who takes identities by gRPC gets neither Kubernetes nor Istio", []string{"./identity/spire", "./identity/sds"}, false, append([]string{"istio.io"}, kubernetes...)},
		{"who tests with hbonetest gets no more with it, and hbone can do so too", []string{"./hbone/hbonetest"}, false, append([]string{
			"istio.io", "google.golang.org/grpc", module + "/hbone/internal", module + "/hbone/wds", module + "/hbone/route", module + "/identity",
		}, kubernetes...)},
		{"the library knows nothing of controller and command", []string{"./hbone/...", "./identity/..."}, false, []string{module + "/controller", module + "/cmd", module + "/manifests", "github.com/spf13"}},
		{"what decides has no client", []string{"./controller/plan", "./controller/edge", "./controller/api/..."}, false, []string{"k8s.io/client-go", "sigs.k8s.io/controller-runtime", module + "/hbone", module + "/identity"}},
		{"what decides has no clock and no I/O", []string{"./controller/plan", "./controller/edge"}, true, []string{"time", "os", "net", "context", "log", "log/slog", "math/rand", "math/rand/v2"}},
		{"what decides knows nothing of who writes", []string{"./controller/plan", "./controller/edge", "./controller/api/..."}, false, []string{module + "/controller/apply", module + "/controller/run", module + "/cmd"}},
		{"who evaluates policies has no client", []string{"./controller/policy"}, false, []string{"k8s.io/client-go", "sigs.k8s.io/controller-runtime", module + "/hbone/wds", module + "/identity", module + "/controller/plan", module + "/controller/run"}},
		{"who evaluates policies has no clock and no I/O", []string{"./controller/policy"}, true, []string{"time", "os", "net/http", "context", "log", "log/slog", "math/rand", "math/rand/v2"}},
		{"who reads what edges do has no client", []string{"./controller/edge/rules"}, false, []string{"k8s.io/client-go", "sigs.k8s.io/controller-runtime", module + "/hbone", module + "/identity", module + "/controller/plan", module + "/controller/run"}},
		{"who reads what edges do has no I/O", []string{"./controller/edge/rules"}, true, []string{"os", "net", "net/http", "context", "log", "log/slog", "math/rand", "math/rand/v2"}},
		{"what checks has no client", []string{"./controller/check"}, false, []string{"k8s.io/client-go", "sigs.k8s.io/controller-runtime", module + "/hbone/wds", module + "/identity", module + "/controller/run", module + "/controller/apply"}},
		{"what checks has no I/O", []string{"./controller/check"}, true, []string{"os", "net/http", "context", "log", "log/slog", "math/rand", "math/rand/v2"}},
		{"who explains has no client", []string{"./controller/explain"}, false, []string{"k8s.io/client-go", "sigs.k8s.io/controller-runtime", module + "/hbone", module + "/identity", module + "/controller/run"}},
		{"who explains has no clock and no I/O", []string{"./controller/explain"}, true, []string{"time", "os", "net/http", "context", "log", "log/slog", "math/rand", "math/rand/v2"}},
		{"who reads what is programmed asks nobody", []string{"./controller/programmed"}, true, []string{"k8s.io", "sigs.k8s.io", "istio.io", "google.golang.org/grpc", "net/http", "os", module}},
		{"gateways are data", []string{"./controller/edge"}, true, []string{"k8s.io", "sigs.k8s.io", "istio.io", module}},
		{"the controller is no command line", []string{"./controller/..."}, false, []string{"github.com/spf13/cobra", module + "/cmd"}},
		{"what writes does not decide how to ask waypoints", []string{"./controller/apply"}, false, []string{module + "/hbone", module + "/identity", module + "/controller/run"}},
		{"nobody links testing into the command", []string{"./cmd/isthmus"}, false, []string{"testing", module + "/identity/identitytest"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := []string{"-deps"}
			if c.direct {
				args = []string{"-f", `{{join .Imports "\n"}}`}
			}
			seen := goList(t, repoRoot, nil, append(args, c.packages...)...)
			if seen[0] == "" {
				t.Fatalf("go list gives %q: the rule is about nothing", seen)
			}
			for _, pkg := range seen {
				if within(pkg, c.banned) && pkg != matchers {
					t.Errorf("%s is imported by %s", pkg, strings.Join(c.packages, " "))
				}
			}
		})
	}
}

// TestConsumer builds a module of somebody else that embeds the library, without a network: its packages are those of the library alone.
func TestConsumer(t *testing.T) {
	root, err := filepath.Abs(repoRoot)
	if err != nil {
		t.Fatal(err)
	}
	sums, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	imports := ""
	for _, p := range library() {
		imports += "\t_ \"" + module + strings.TrimPrefix(p, ".") + "\"\n"
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":  "module example.com/gateway\n\ngo 1.26.0\n\nrequire " + module + " v0.0.0\n\nreplace " + module + " => " + root + "\n",
		"go.sum":  string(sums),
		"main.go": "package main\n\nimport (\n" + imports + ")\n\nfunc main() {}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	env := []string{"GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off"}
	var ours []string
	for _, pkg := range goList(t, dir, env, "-deps", ".") {
		if within(pkg, []string{"k8s.io", "sigs.k8s.io", "istio.io", "google.golang.org/grpc", module + "/controller", module + "/cmd"}) {
			t.Errorf("%s comes with the library", pkg)
		}
		if within(pkg, []string{module}) {
			ours = append(ours, pkg)
		}
	}
	if !slices.Contains(ours, module+"/hbone") {
		t.Errorf("packages of the library are %q", ours)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", os.DevNull, ".")
	build.Dir, build.Env = dir, append(os.Environ(), env...)
	if out, err := build.CombinedOutput(); err != nil {
		t.Errorf("it does not build: %v\n%s", err, out)
	}
}

// TestPackagesAreDocumented asks every package of both modules for its documentation, and for a doc.go that holds it.
func TestPackagesAreDocumented(t *testing.T) {
	shown := []string{module + "/e2e/story/plain", module + "/e2e/story/native"} // their one file is what readers are shown
	for _, dir := range []string{repoRoot, filepath.Join(repoRoot, "e2e")} {
		lines := goList(t, dir, nil, "-f", `{{.ImportPath}}|{{.Name}}|{{.Doc}}|{{join .GoFiles " "}}`, "./...")
		if len(lines) < 10 {
			t.Fatalf("go list gives %q", lines)
		}
		for _, line := range lines {
			f := strings.SplitN(line, "|", 4)
			path, name, doc, files := f[0], f[1], f[2], strings.Fields(f[3])
			if !slices.Contains(files, "doc.go") && (len(files) > 1 || !slices.Contains(shown, path)) {
				t.Errorf("%s has no doc.go", path)
			}
			if begin := "Package " + name + " "; name != "main" && !strings.HasPrefix(doc, begin) || doc == "" {
				t.Errorf("the documentation of %s is %q, and should begin with %q", path, doc, begin)
			}
		}
	}
}
