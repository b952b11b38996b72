package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/check"
	"github.com/isthmus-mesh/isthmus/docs"
)

// labelled is a check that finds Services with a label: an error where it is "bad", and a warning where it is "odd".
func labelled() []check.Check {
	return []check.Check{{
		Code: "ISM999", Title: "a Service's label", Severities: []v1alpha1.Severity{v1alpha1.SeverityError, v1alpha1.SeverityWarning}, Pains: []string{"A1"},
		Matter: "A Service has a label.", Harm: "Nobody is hurt.", Fix: "Take it away.",
		Find: func(w *check.World, found func(check.Finding)) {
			for i := range w.Services {
				s := &w.Services[i]
				f := check.Finding{
					Object: check.ServiceObject(s), Field: "metadata.labels[example.com/is]", Message: "it is " + s.Labels["example.com/is"] + ", and this is told at some length, so that lines have to be broken",
					Fix: "take it away from " + s.Name, Patch: "kubectl label service -n " + s.Namespace + " " + s.Name + " example.com/is-", Related: []check.Object{{Kind: "Namespace", NamespacedName: types.NamespacedName{Name: s.Namespace}}},
				}
				switch s.Labels["example.com/is"] {
				case "bad":
					f.Severity = v1alpha1.SeverityError
				case "odd":
					f.Severity = v1alpha1.SeverityWarning
				default:
					continue
				}
				found(f)
			}
		},
	}}
}

const labelledServices = `# a comment
apiVersion: v1
kind: Service
metadata:
  name: orders
  namespace: shop
  labels:
    app: orders
    example.com/is: bad
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Service
  metadata: {name: stock, namespace: shop}
- apiVersion: v1
  kind: Service
  metadata:
    name: carts
    labels: {app: carts,
      example.com/is: odd}
---
apiVersion: v1
kind: Service
metadata: {name: old, namespace: shop, labels: {example.com/is: bad}, annotations: {isthmus.dev/ignore: "ISM999: it goes next week"}}
---
# values of somebody's chart
replicas: 3
`

// lookAt has the checks of labelled look.
func lookAt(t *testing.T, f *checkFlags, output string) (*checkDocument, result) {
	t.Helper()
	var out, said bytes.Buffer
	a := &app{stdin: strings.NewReader(labelledServices), stdout: &out, stderr: &said, getenv: os.Getenv, output: output}
	f.checks = labelled()
	if f.world.kube.timeout == 0 {
		f.world.kube.timeout = time.Minute
	}
	if f.failOn == "" {
		f.failOn = "error"
	}
	doc, err := a.checked(t.Context(), f)
	if err == nil {
		err = a.check(t.Context(), &checkFlags{world: f.world, against: f.against, failOn: f.failOn, checks: f.checks})
	}
	t.Logf("%v\n%s%s", err, out.String(), said.String())
	return doc, result{out.String(), said.String(), exitCode(err)}
}

func TestFindingsInFiles(t *testing.T) {
	path := folder(t, map[string]string{"a.yaml": labelledServices}) + "/a.yaml"
	doc, r := lookAt(t, &checkFlags{world: worldFlags{files: []string{path}}}, outputText)
	if r.code != exitFailed {
		t.Errorf("exit code %d", r.code)
	}
	var got []string
	for _, f := range append(slices.Clone(doc.Findings), doc.Ignored...) {
		got = append(got, strings.Join([]string{string(f.Severity), f.Object.String(), strings.TrimPrefix(f.place(), path), f.Ignored}, " "))
	}
	want := []string{"Error Service shop/orders :9 ", "Warning Service default/carts :23 ", "Error Service shop/old :27 it goes next week"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	r.want(t, exitFailed, r.stdout, "Errors", "Service shop/orders", "ISM999 metadata.labels[example.com/is] (", "a.yaml:9)", "it is bad", "fix: take it away from orders",
		"kubectl label service -n shop orders", "Warnings", "Service default/carts", "Ignored", "ISM999 at Service shop/old: it goes next week", "1 error, 1 warning, 1 ignored; 1 check, 4 objects in ")
	r.want(t, exitFailed, r.stderr, "a.yaml:30 is no object of Kubernetes, and is left out")
	for on, code := range map[string]int{"never": exitOK, "warning": exitFailed, "info": exitFailed} {
		if _, r := lookAt(t, &checkFlags{world: worldFlags{files: []string{path}}, failOn: on}, outputText); r.code != code {
			t.Errorf("--fail-on %s: exit code %d, want %d", on, r.code, code)
		}
	}
}

// TestItCouldNotLook: what kept it from looking is told apart from findings.
func TestItCouldNotLook(t *testing.T) {
	r := isthmus(t, "check", "-f", "/nonexistent/x.yaml")
	r.want(t, exitUnseen, r.stderr, "cannot read what -f names", "/nonexistent/x.yaml", "no such file")
	r = isthmus(t, "check", "-f", folder(t, map[string]string{"a.yaml": "kind: ["}))
	r.want(t, exitUnseen, r.stderr, "this is no YAML", "a.yaml:1")
	r = isthmus(t, "check", "-f", folder(t, map[string]string{"a.yaml": "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: 80}"}))
	r.want(t, exitUnseen, r.stderr, "Service default/a is malformed", "a.yaml:4")
	t.Setenv("KUBECONFIG", folder(t, map[string]string{"c": "{apiVersion: v1, kind: Config, clusters: [{name: c, cluster: {server: 'http://" + closedPort(t) + "'}}], contexts: [{name: c, context: {cluster: c}}], current-context: c}"})+"/c")
	r = isthmus(t, "check", "-o", "json")
	if e := decode[errorDocument](t, r.stderr); r.code != exitUnseen || e.ExitCode != exitUnseen || e.Next == "" {
		t.Errorf("exit code %d, %+v", r.code, e)
	}
}

func TestCheckIsAskedWrongly(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"--fail-on bad", "--fail-on takes error, warning, info, never"},
		{"--against-cluster", "name them with -f"},
		{"--list --explain ISM101", "do not go together"},
		{"--list -o sarif", "-o text or -o json"},
		{"--explain ISM000", `no check "ISM000"`},
		{"-o table", "text, json, yaml or sarif"},
		{"shop", "it takes no argument"},
	} {
		r := isthmus(t, append([]string{"check"}, strings.Fields(c.args)...)...)
		r.want(t, exitUsage, r.stderr, c.want)
	}
}

func TestFindingsFitATerminal(t *testing.T) {
	path := folder(t, map[string]string{"a.yaml": labelledServices}) + "/a.yaml"
	doc, _ := lookAt(t, &checkFlags{world: worldFlags{files: []string{path}}}, outputText)
	for i := range doc.Findings {
		doc.Findings[i].File = "a.yaml"
	}
	for _, width := range []int{60, 80, 120} {
		var out bytes.Buffer
		if err := doc.print(&page{w: &out, width: width}); err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(out.String(), "\n") {
			if utf8.RuneCountInString(line) > width && !strings.Contains(line, "kubectl") || strings.HasSuffix(line, " ") {
				t.Errorf("width %d: %q", width, line)
			}
		}
	}
}

// fullDisk takes so many bytes.
type fullDisk int

func (f *fullDisk) Write(p []byte) (int, error) {
	if int(*f) < len(p) {
		return 0, errors.New("no space left on device")
	}
	*f -= fullDisk(len(p))
	return len(p), nil
}

// TestFindingsThatCannotBeWritten: exit code 1 says that findings can be read.
func TestFindingsThatCannotBeWritten(t *testing.T) {
	for _, output := range []string{outputText, outputJSON, outputYAML, outputSARIF} {
		for _, room := range []fullDisk{0, 12} { // that of a heading, and then a line that is as short
			a := &app{stdin: strings.NewReader(labelledServices), stdout: &room, stderr: io.Discard, getenv: os.Getenv, output: output}
			err := a.check(t.Context(), &checkFlags{world: worldFlags{files: []string{"-"}}, failOn: "error", checks: labelled()})
			if exitCode(err) != exitUnseen || !strings.Contains(err.Error(), "no space left") {
				t.Errorf("-o %s: exit code %d, %v", output, exitCode(err), err)
			}
		}
	}
}

// TestSARIFHasItsStructure: what the schema of SARIF 2.1.0 requires, and what code hosts need to show findings beside lines.
func TestSARIFHasItsStructure(t *testing.T) {
	path := folder(t, map[string]string{"a.yaml": labelledServices}) + "/a.yaml"
	_, r := lookAt(t, &checkFlags{world: worldFlags{files: []string{path}}}, outputSARIF)
	doc := decode[map[string]any](t, r.stdout)
	if doc["version"] != "2.1.0" || !strings.Contains(doc["$schema"].(string), "sarif-2.1.0") {
		t.Errorf("it is %v of %v", doc["version"], doc["$schema"])
	}
	run := doc["runs"].([]any)[0].(map[string]any)
	driver := run["tool"].(map[string]any)["driver"].(map[string]any)
	rules := driver["rules"].([]any)
	if driver["name"] != "isthmus" || len(rules) != 1 {
		t.Fatalf("the driver is %v", driver)
	}
	rule := rules[0].(map[string]any)
	text := func(v any) string { s, _ := v.(map[string]any)["text"].(string); return s }
	if rule["id"] != "ISM999" || rule["name"] != "AServiceSLabel" || text(rule["shortDescription"]) == "" || text(rule["fullDescription"]) == "" || !strings.Contains(text(rule["help"]), "Take it away.") {
		t.Errorf("the rule is %v", rule)
	}
	results := run["results"].([]any)
	if len(results) != 3 {
		t.Fatalf("there are %d results", len(results))
	}
	lines := []float64{9, 23, 27}
	for i, v := range results {
		res := v.(map[string]any)
		if res["ruleId"] != "ISM999" || res["ruleIndex"] != float64(0) || text(res["message"]) == "" || res["level"] != []string{"error", "warning", "error"}[i] {
			t.Errorf("result %d is %v", i, res)
		}
		at := res["locations"].([]any)[0].(map[string]any)["physicalLocation"].(map[string]any)
		if at["artifactLocation"].(map[string]any)["uri"] != path || at["region"].(map[string]any)["startLine"] != lines[i] {
			t.Errorf("result %d is at %v", i, at)
		}
		suppressed, is := res["suppressions"]
		if list, _ := suppressed.([]any); !is || len(list) != []int{0, 0, 1}[i] || i == 2 && suppressed.([]any)[0].(map[string]any)["justification"] != "it goes next week" {
			t.Errorf("result %d: suppressions are %v", i, suppressed)
		}
	}
	// Where nothing is suppressed nobody says so.
	named := folder(t, map[string]string{"a b#1%.yaml": strings.ReplaceAll(labelledServices, "isthmus.dev/ignore", "x")}) + "/a b#1%.yaml"
	_, r = lookAt(t, &checkFlags{world: worldFlags{files: []string{named}}}, outputSARIF)
	if uri := strings.TrimSuffix(named, "a b#1%.yaml") + "a%20b%231%25.yaml"; strings.Contains(r.stdout, "suppressions") || strings.Count(r.stdout, `"uri": "`+uri+`"`) != 3 {
		t.Errorf("there are suppressions, or not three URIs %s:\n%s", uri, r.stdout)
	}
	// What comes from a pipe is in no file.
	_, r = lookAt(t, &checkFlags{world: worldFlags{files: []string{"-"}}}, outputSARIF)
	if strings.Contains(r.stdout, "physicalLocation") {
		t.Error("standard input has no lines that a code host could show")
	}
}

func TestLinesOfFields(t *testing.T) {
	doc := &document{file: "a.yaml", line: 11, text: "\n# first\napiVersion: v1\nmetadata:\n  labels:\n    istio.io/use-waypoint: w\n    \"a.b\": {c: d}\nspec:\n  rules:\n  - from: []\n  -\n    to:\n    - operation: &o\n        paths: [/a]\n    - operation: *o\n"}
	for field, want := range map[string]int{
		"": 13, "metadata": 14, "metadata.labels": 15, "metadata.labels[istio.io/use-waypoint]": 16, `metadata.labels["istio.io/use-waypoint"]`: 16, "metadata.labels.istio.io/use-waypoint": 16,
		"metadata.labels.a.b.c": 17, "spec.rules[0].from": 20, "spec.rules[1].to[0].operation.paths": 24, "spec.rules[1].to[0].operation.paths[0]": 24,
		"spec.rules[1].to[1].operation.paths": 24, "spec.rules[7]": 19, "spec.other.field": 18, "status": 13, "]][[": 13,
	} {
		o := paperObject{place: place{doc, -1}}
		if got := o.line(field); got != want {
			t.Errorf("%q is in line %d, want %d", field, got, want)
		}
	}
}

// smallCluster has a Service with a label in each of two namespaces.
func smallCluster() *fakeCluster {
	service := func(ns, is string) runtime.Object {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "orders", Labels: map[string]string{"example.com/is": is}, Annotations: map[string]string{
			corev1.LastAppliedConfigAnnotation: `{"metadata":{"labels":{"example.com/is":"` + is + `"}}}`,
		}}}
	}
	return &fakeCluster{kinds: []fakeKind{
		stored(core(), "Namespace", "namespaces", &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "stock"}}),
		stored(core(), "Service", "services", service("shop", "bad"), service("stock", "bad")),
		stored(core(), "Pod", "pods"),
		stored(core(), "ServiceAccount", "serviceaccounts", &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "default"}}),
	}}
}

func TestFindingsInACluster(t *testing.T) {
	c := smallCluster()
	var mu sync.Mutex
	written := ""
	c.requests = func(r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if r.Method != http.MethodGet {
			written = r.Method
		}
	}
	c.start(t)
	doc, r := lookAt(t, &checkFlags{}, outputText)
	if len(doc.Findings) != 2 || doc.Counts.Objects != 5 || doc.Findings[0].File != "" {
		t.Errorf("found %+v", doc)
	}
	r.want(t, exitFailed, r.stderr, "mesh's configuration cannot be read")
	doc, _ = lookAt(t, &checkFlags{world: worldFlags{kube: kubeFlags{namespace: "shop"}}}, outputText)
	if len(doc.Findings) != 1 || doc.Findings[0].Object.Namespace != "shop" {
		t.Errorf("in one namespace are %+v", doc.Findings)
	}
	if written != "" {
		t.Errorf("it sent %s", written)
	}
}

// TestMissingRightsAreNamed: all of them, if one is needed, and else in a note.
func TestMissingRightsAreNamed(t *testing.T) {
	c := smallCluster()
	c.forbidden = []string{"networkpolicies", "serviceaccounts"}
	c.start(t)
	c.kinds = append(c.kinds, fakeKind{gv: schema.GroupVersion{Group: "networking.k8s.io", Version: "v1"}, kind: "NetworkPolicy", resource: "networkpolicies"})
	doc, r := lookAt(t, &checkFlags{}, outputText)
	if len(doc.Findings) != 2 {
		t.Errorf("found %+v", doc)
	}
	r.want(t, exitFailed, r.stderr, "the rights to list networkpolicies.networking.k8s.io, serviceaccounts are missing: these were not looked at")
	c.forbidden = append(c.forbidden, "pods")
	r = isthmus(t, "check")
	r.want(t, exitUnseen, r.stderr, "the rights to list networkpolicies.networking.k8s.io, pods, serviceaccounts are missing", "isthmus-view")
}

// TestAListMayTakeLongerThanItsToken: the API server then gives another, for what is there now.
func TestAListMayTakeLongerThanItsToken(t *testing.T) {
	c := smallCluster()
	c.expire = "pods"
	pods := make([]runtime.Object, 1200)
	for i := range pods {
		pods[i] = largePod("shop", 0, i)
	}
	c.kinds[2] = stored(core(), "Pod", "pods", pods...)
	c.start(t)
	if doc, _ := lookAt(t, &checkFlags{world: worldFlags{kube: kubeFlags{namespace: "shop"}}}, outputText); doc == nil || doc.Counts.Objects < 1205 {
		t.Errorf("read %+v", doc)
	}
}

// TestWhatWouldChange: only what is new with the files is found, and a note tells what goes away.
func TestWhatWouldChange(t *testing.T) {
	smallCluster().start(t)
	path := folder(t, map[string]string{"a.yaml": "apiVersion: v1\nkind: Service\nmetadata:\n  name: orders\n  namespace: shop\n---\napiVersion: v1\nkind: Service\nmetadata:\n  name: new\n  namespace: shop\n  labels:\n    example.com/is: odd\n"}) + "/a.yaml"
	doc, r := lookAt(t, &checkFlags{world: worldFlags{files: []string{path}}, against: true}, outputText)
	if len(doc.Findings) != 1 || doc.Findings[0].Object.Name != "new" || doc.Findings[0].Line != 13 || len(doc.Gone) != 1 || doc.Gone[0].Object.String() != "Service shop/orders" {
		t.Errorf("found %+v, gone are %+v", doc.Findings, doc.Gone)
	}
	r.want(t, exitOK, r.stderr, "goes away: ISM999 at Service shop/orders")
}

// TestCheckDocumentIsVersioned: fields of -o json stay.
func TestCheckDocumentIsVersioned(t *testing.T) {
	path := folder(t, map[string]string{"a.yaml": labelledServices}) + "/a.yaml"
	_, r := lookAt(t, &checkFlags{world: worldFlags{files: []string{path}}}, outputJSON)
	doc := decode[map[string]any](t, r.stdout)
	if doc["apiVersion"] != "cli.isthmus.dev/v1alpha1" || doc["kind"] != "Check" {
		t.Errorf("it is %v of %v", doc["kind"], doc["apiVersion"])
	}
	f := doc["findings"].([]any)[0].(map[string]any)
	want := `{"code":"ISM999","severity":"Error","object":{"kind":"Service","namespace":"shop","name":"orders"},"field":"metadata.labels[example.com/is]","line":9,"related":[{"kind":"Namespace","name":"shop"}],` +
		`"message":"it is bad, and this is told at some length, so that lines have to be broken","fix":"take it away from orders","patch":"kubectl label service -n shop orders example.com/is-"}`
	delete(f, "file")
	if d := cmp.Diff(decode[map[string]any](t, want), f); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	counts, _ := json.Marshal(doc["counts"])
	if string(counts) != `{"checks":1,"errors":1,"ignored":1,"infos":0,"objects":4,"warnings":1}` {
		t.Errorf("counts are %s", counts)
	}
}

// TestDocumentsAreParsedOnceForLines: a list of everything in a cluster is one document, and may have very many findings.
func TestDocumentsAreParsedOnceForLines(t *testing.T) {
	var text strings.Builder
	text.WriteString("apiVersion: v1\nkind: List\nitems:\n")
	for range 200 {
		text.WriteString("- metadata:\n    name: a\n")
	}
	doc := &document{text: text.String(), line: 1}
	lines := func() {
		for i := range 200 {
			if got := (&paperObject{place: place{doc, i}}).line("metadata.name"); got != 5+2*i {
				t.Fatalf("item %d is in line %d", i, got)
			}
		}
	}
	lines()
	// Each parse makes a node a key and value, which are more than these.
	if n := testing.AllocsPerRun(1, lines); n > 10_000 {
		t.Errorf("%v allocations: it is parsed again", n)
	}
}

// TestEveryCodeIsExplained: what the controller finds too, whose page is in the program.
func TestEveryCodeIsExplained(t *testing.T) {
	codes := regexp.MustCompile(`(?m)^\| (ISM\d{3}) \|`).FindAllStringSubmatch(docs.Findings(), -1)
	if len(codes) < 40 {
		t.Fatalf("docs/findings.md has %d codes", len(codes))
	}
	for _, code := range codes {
		r := isthmus(t, "check", "--explain", strings.ToLower(code[1]))
		if r.code != exitOK || !strings.HasPrefix(r.stdout, code[1]+": ") || !strings.Contains(r.stdout, "\nWhat\n  ") || strings.ContainsAny(r.stdout, "`[]") {
			t.Errorf("%s: exit code %d, %s\n%s", code[1], r.code, r.stderr, r.stdout)
		}
	}
	r := isthmus(t, "check", "--explain", "ISM302")
	r.want(t, exitOK, r.stdout, "ISM302: a finding of the controller, for the owner of that namespace (Error, Warning, Info)", "\nFix\n  Run the command that the finding prints")
	d := decode[checksDocument](t, isthmus(t, "check", "--explain", "ISM302", "-o", "json").stdout)
	if len(d.Checks) != 1 || d.Checks[0].Matter == "" || len(d.Checks[0].Severities) != 3 {
		t.Errorf("got %+v", d)
	}
}
