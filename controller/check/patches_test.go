package check

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

var patchCommand = regexp.MustCompile(`(?m)^kubectl patch authorizationpolicies.security.istio.io -n (\S+) (\S+) --type=json -p '(.*)'$`)

// TestPatchesMendWhatTheyAreFor: who runs the commands of a finding that has them for AuthorizationPolicies has that finding no more.
func TestPatchesMendWhatTheyAreFor(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	tried := map[string]int{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		in, _, _ := strings.Cut(string(text), separator)
		for _, f := range Run(worldOf(t, in), identityChecks()) {
			commands := patchCommand.FindAllStringSubmatch(f.Patch, -1)
			if len(commands) == 0 {
				continue
			}
			tried[f.Code]++
			after := in
			for _, c := range commands {
				after = patched(t, after, c[1], c[2], c[3])
			}
			for _, still := range Run(worldOf(t, after), identityChecks()) {
				if still.Code == f.Code && still.Message == f.Message {
					t.Errorf("%s: %s is found again after\n%s", file, f.Code, f.Patch)
				}
			}
		}
	}
	for _, code := range []string{v1alpha1.FindingNotAdmitted, v1alpha1.FindingVoided, "ISM224"} {
		if tried[code] == 0 {
			t.Errorf("no case of %s has a patch", code)
		}
	}
}

// TestNoCommandOfWhatAShellTakesApart: names and values of files may be anything.
func TestNoCommandOfWhatAShellTakesApart(t *testing.T) {
	o := Object{"", "Service", objectKey("shop", "orders")}
	if got := labelCommand(o, "a/b", "c"); got != "kubectl label --overwrite -n shop service orders a/b=c" {
		t.Errorf("got %q", got)
	}
	for _, bad := range []string{"", "a b", "$(id)", "it's", "a;b", "a\nb"} {
		if got := labelCommand(o, "a/b", bad) + annotateCommand(o, "a/b", bad); got != "" {
			t.Errorf("value %q: %q", bad, got)
		}
		is := Check{Severities: onlyWarning(), Find: func(_ *World, found func(Finding)) {
			found(Finding{Object: Object{"", "Service", objectKey("shop", bad)}, Patch: "kubectl"})
		}}
		for _, f := range Run(worldOf(t, ""), []Check{is}) {
			if f.Patch != "" {
				t.Errorf("name %q: %q", bad, f.Patch)
			}
		}
	}
}

// patched is YAML documents with a JSON patch of one AuthorizationPolicy.
func patched(t *testing.T, text, namespace, name, patch string) string {
	t.Helper()
	var ops []policy.Operation
	if err := json.Unmarshal([]byte(patch), &ops); err != nil {
		t.Fatal(err)
	}
	first := ""
	if strings.HasPrefix(text, "# cluster\n") {
		first = "# cluster\n"
	}
	docs := strings.Split(text, "---\n")
	for i, doc := range docs {
		var o struct {
			Kind     string
			Metadata struct{ Namespace, Name string }
		}
		if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
			t.Fatal(err)
		}
		if o.Kind != kindAuthorizationPolicy || o.Metadata.Namespace != namespace || o.Metadata.Name != name {
			continue
		}
		var tree any
		if err := yaml.Unmarshal([]byte(doc), &tree); err != nil {
			t.Fatal(err)
		}
		for _, op := range ops {
			tree = applied(t, tree, strings.Split(op.Path, "/")[1:], op)
		}
		out, err := yaml.Marshal(tree)
		if err != nil {
			t.Fatal(err)
		}
		docs[i] = string(out)
		if i == 0 {
			docs[i] = first + docs[i]
		}
	}
	return strings.Join(docs, "---\n")
}

// applied is a tree with one operation at a path.
func applied(t *testing.T, tree any, path []string, op policy.Operation) any {
	t.Helper()
	switch at := tree.(type) {
	case map[string]any:
		switch {
		case len(path) > 1 && at[path[0]] == nil:
			t.Fatalf("there is no %s for %s", path[0], op.Path)
		case len(path) > 1:
			at[path[0]] = applied(t, at[path[0]], path[1:], op)
		case op.Op == "remove":
			delete(at, path[0])
		default:
			at[path[0]] = op.Value
		}
		return at
	case []any:
		if path[0] == "-" {
			return append(at, op.Value)
		}
		i, err := strconv.Atoi(path[0])
		if err != nil || i >= len(at) || len(path) < 2 {
			t.Fatalf("%s does not lead into a list of %d", op.Path, len(at))
		}
		at[i] = applied(t, at[i], path[1:], op)
		return at
	}
	t.Fatalf("%s leads into %v", op.Path, tree)
	return nil
}
