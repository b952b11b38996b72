package v1alpha1_test

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	diff "github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write docs/ambientedge.md and docs/findings.md anew")

func TestReferences(t *testing.T) {
	for file, want := range map[string]string{"../../../docs/ambientedge.md": resource(t), "../../../docs/findings.md": findingsText()} {
		if *update {
			if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if d := diff.Diff(want, string(got)); d != "" {
			t.Errorf("%s is stale (run go generate ./controller/api/...): -want +got\n%s", file, d)
		}
	}
}

// TestEveryFieldIsDocumented: a field of ours without a sentence would have an empty place in the reference.
func TestEveryFieldIsDocumented(t *testing.T) {
	rows := fieldsOf(schema(t), "", nil)
	if len(rows) < 40 {
		t.Errorf("%d fields are found", len(rows))
	}
	for _, r := range rows {
		if r.text == "" {
			t.Errorf("%s has no description", r.path)
		}
		if strings.HasPrefix(r.path, "spec.") && !r.required && !strings.Contains(r.text, "mpty") {
			t.Errorf("%s does not say what an empty one means", r.path)
		}
	}
}

// props is as much of a schema as the reference tells.
type props struct {
	Type        string           `json:"type"`
	Description string           `json:"description"`
	Properties  map[string]props `json:"properties"`
	Required    []string         `json:"required"`
	Items       *props           `json:"items"`
	Enum        []string         `json:"enum"`
	MinItems    *int64           `json:"minItems"`
	MaxItems    *int64           `json:"maxItems"`
	MinLength   *int64           `json:"minLength"`
	MaxLength   *int64           `json:"maxLength"`
	Pattern     string           `json:"pattern"`
	ListType    string           `json:"x-kubernetes-list-type"`
	ListMapKeys []string         `json:"x-kubernetes-list-map-keys"`
	Rules       []struct {
		Message string `json:"message"`
	} `json:"x-kubernetes-validations"`
}

// schema is that of the resource.
func schema(t *testing.T) *props {
	t.Helper()
	text, err := os.ReadFile("../../../manifests/crd/isthmus.dev_ambientedges.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var crd struct {
		Spec struct {
			Versions []struct {
				Schema struct {
					Props props `json:"openAPIV3Schema"`
				} `json:"schema"`
			} `json:"versions"`
		} `json:"spec"`
	}
	if err := yaml.Unmarshal(text, &crd); err != nil {
		t.Fatal(err)
	}
	if len(crd.Spec.Versions) != 1 {
		t.Fatalf("the CRD has %d versions", len(crd.Spec.Versions))
	}
	return &crd.Spec.Versions[0].Schema.Props
}

// row is a field.
type row struct {
	path, kind, bounds, text string
	required                 bool
}

// fieldsOf are all fields below a schema, in the order of their names; those of conditions are Kubernetes' own.
func fieldsOf(s *props, at string, rows []row) []row {
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		if at == "" && name != "spec" && name != "status" {
			continue // of all objects
		}
		p := s.Properties[name]
		path := strings.TrimPrefix(at+"."+name, ".")
		r := row{path: path, kind: p.Type, text: strings.Join(strings.Fields(p.Description), " "), bounds: bounds(&p), required: slices.Contains(s.Required, name)}
		below := &p
		if p.Items != nil {
			below = p.Items
			path += "[]"
			r.kind = "list of " + below.Type + "s"
			if b := bounds(below); b != "" {
				r.bounds = strings.TrimPrefix(r.bounds+"; each "+b, "; ")
			}
		}
		rows = append(rows, r)
		if name != "conditions" {
			rows = fieldsOf(below, path, rows)
		}
	}
	return rows
}

// bounds is what the API server takes for a field.
func bounds(p *props) string {
	var all []string
	if len(p.Enum) > 0 {
		var values []string
		for _, v := range p.Enum {
			values = append(values, cmp.Or(v, "empty"))
		}
		all = append(all, "one of "+strings.Join(values, ", "))
	}
	span := func(least, most *int64, what string) {
		switch {
		case least != nil && most != nil:
			all = append(all, fmt.Sprintf("%d to %d %s", *least, *most, what))
		case most != nil:
			all = append(all, fmt.Sprintf("at most %d %s", *most, what))
		}
	}
	span(p.MinItems, p.MaxItems, "items")
	span(p.MinLength, p.MaxLength, "characters")
	if p.Pattern != "" {
		all = append(all, "`"+strings.ReplaceAll(p.Pattern, "|", `\|`)+"`")
	}
	if len(p.ListMapKeys) > 0 {
		all = append(all, "no two with the same "+strings.Join(p.ListMapKeys, " and "))
	} else if p.ListType == "set" {
		all = append(all, "none twice")
	}
	return strings.Join(all, "; ")
}

// rules are what the API server asks of fields together.
func rules(s *props, at string) (list []string) {
	for _, r := range s.Rules {
		list = append(list, fmt.Sprintf("in `%s`: %s", at, r.Message))
	}
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		p := s.Properties[name]
		list = append(list, rules(&p, strings.TrimPrefix(at+"."+name, "."))...)
	}
	return list
}

// resource is the reference of AmbientEdge as Markdown.
func resource(t *testing.T) string {
	s := schema(t)
	var w bytes.Buffer
	fmt.Fprintf(&w, `<!-- Generated from the CRD: go generate ./controller/api/... -->

# AmbientEdge

%s The group is `+"`isthmus.dev/v1alpha1`"+`, the short name `+"`aedge`"+`, the scope a namespace. The smallest one:
`+"```yaml"+`
apiVersion: isthmus.dev/v1alpha1
kind: AmbientEdge
metadata: {name: public, namespace: edge}
spec:
  targetRefs: [{name: http}] # a Gateway of this namespace; nothing is written, as mode is Observe
`+"```"+`
[manifests/samples](../manifests/samples) has more. Nothing is defaulted in the cluster: an empty field has the meaning that its line says, and
stays empty. Findings are explained in [findings](findings.md), annotations and what goes on in [operations](operations.md); what
kubectl shows of one is [here](kubectl.md).

The API server refuses what is out of bounds, an unknown field, and:
`, strings.Join(strings.Fields(s.Description), " "))
	for _, r := range rules(s, "") {
		fmt.Fprintf(&w, "- %s\n", r)
	}
	part := func(title, below string) {
		fmt.Fprintf(&w, "\n## %s\n\n| field | type | what it says | bounds |\n| --- | --- | --- | --- |\n", title)
		for _, r := range fieldsOf(s, "", nil) {
			if !strings.HasPrefix(r.path, below+".") {
				continue
			}
			kind := r.kind
			if r.required {
				kind += ", required"
			}
			fmt.Fprintf(&w, "| `%s` | %s | %s | %s |\n", strings.TrimPrefix(r.path, below+"."), kind, r.text, r.bounds)
		}
	}
	part("spec", "spec")
	part("status", "status")
	w.WriteString(`
` + "`status.conditions`" + ` are conditions as Kubernetes has them. Their types, and the reasons of each:

| type | when it is True |
| --- | --- |
`)
	names, err := os.ReadFile("names.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`// Condition\w+: (.*)\n\tCondition\w+ += "(\w+)"`).FindAllStringSubmatch(string(names), -1) {
		fmt.Fprintf(&w, "| `%s` | %s |\n", m[2], m[1])
	}
	w.WriteString("\n| reason | what it says |\n| --- | --- |\n")
	for _, m := range regexp.MustCompile(`\tReason\w+ += "(\w+)" +// (.*)\n`).FindAllStringSubmatch(string(names), -1) {
		fmt.Fprintf(&w, "| `%s` | %s |\n", m[1], m[2])
	}
	return w.String()
}
