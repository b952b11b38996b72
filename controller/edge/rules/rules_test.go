package rules_test

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	godiff "github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/controller/edge/rules"
)

var update = flag.Bool("update", false, "write what rules testdata gives anew")

// world is Objects of a file.
type world []*unstructured.Unstructured

func (w world) Get(kind schema.GroupKind, namespace, name string) *unstructured.Unstructured {
	at := slices.IndexFunc(w, func(o *unstructured.Unstructured) bool {
		return o.GroupVersionKind().GroupKind() == kind && o.GetNamespace() == namespace && o.GetName() == name
	})
	if at < 0 {
		return nil
	}
	return w[at]
}

func (w world) List(kind schema.GroupKind, namespace string) []*unstructured.Unstructured {
	var list []*unstructured.Unstructured
	for _, o := range w {
		if o.GroupVersionKind().GroupKind() == kind && (namespace == "" || o.GetNamespace() == namespace) {
			list = append(list, o)
		}
	}
	return list
}

func refOf(o *unstructured.Unstructured) rules.Ref {
	return rules.Ref{Group: o.GroupVersionKind().Group, Kind: o.GetKind(), Namespace: o.GetNamespace(), Name: o.GetName()}
}

// routeKinds are what a test takes for routes of the gateway.
var routeKinds = []string{"HTTPRoute", "GRPCRoute", "Ingress", "IngressRoute", "HTTPProxy", "VirtualServer", "VirtualServerRoute", "VirtualService"}

// read gives the vendor, the gateway and the routes of a file, whose first line is "# vendor", and its objects.
func read(t *testing.T, text string) (vendor string, gateway rules.Gateway, routes []rules.Route, w world) {
	t.Helper()
	first, _, _ := strings.Cut(text, "\n")
	vendor = strings.TrimPrefix(first, "# ")
	for part := range strings.SplitSeq(text, "\n---") {
		var object map[string]any
		if err := yaml.Unmarshal([]byte(part), &object); err != nil {
			t.Fatal(err)
		}
		if len(object) == 0 {
			continue
		}
		o := &unstructured.Unstructured{Object: object}
		w = append(w, o)
		switch {
		case o.GetKind() == "Gateway" && o.GroupVersionKind().Group == "gateway.networking.k8s.io":
			gateway = rules.Gateway{Ref: refOf(o), PodLabels: map[string]string{"gateway.networking.k8s.io/gateway-name": o.GetName()}}
		case slices.Contains(routeKinds, o.GetKind()):
			routes = append(routes, rules.Route{Ref: refOf(o)})
		}
	}
	return vendor, gateway, routes, w
}

const divider = "\n--- # rules\n"

// TestRules reads each file of testdata and compares what it gives with what stands behind its divider.
func TestRules(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			in, want, ok := strings.Cut(string(raw), divider)
			vendor, gateway, routes, w := read(t, in)
			got := text(rules.Of(vendor, gateway, routes, w))
			if *update {
				if err := os.WriteFile(file, []byte(in+divider+got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if d := godiff.Diff(want, got); d != "" || !ok {
				t.Errorf("-want +got (go test -update writes it anew)\n%s", d)
			}
		})
	}
}

// text is a set of rules as testdata has it: a line a rule, then what it says.
func text(s *rules.Set) string {
	var b bytes.Buffer
	for i := range s.Rules {
		b.WriteString("# " + ruleText(&s.Rules[i]) + "\n")
	}
	return b.String()
}

func ruleText(r *rules.Rule) string {
	object := r.Object.String()
	if r.Object.Name == "" {
		object = "by default"
	}
	var targets []string
	for _, t := range r.Targets {
		targets = append(targets, t.String())
	}
	line := fmt.Sprintf("%s %s @ %s", object, r.Field, cmp.Or(strings.Join(targets, " & "), "nothing"))
	v := reflect.ValueOf(r).Elem()
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.Pointer && !f.IsNil() {
			line += "\n#   " + v.Type().Field(i).Name + show(f.Elem())
		}
	}
	if len(r.Unknown) > 0 {
		line += "\n#   Unknown " + strings.Join(r.Unknown, " ")
	}
	return line
}

// show is a value without what is zero in it.
func show(v reflect.Value) string {
	switch v.Kind() {
	case reflect.Pointer:
		return "&" + show(v.Elem())
	case reflect.Slice:
		var parts []string
		for i := range v.Len() {
			parts = append(parts, show(v.Index(i)))
		}
		return "[" + strings.Join(parts, " ") + "]"
	case reflect.Struct:
		if r, ok := v.Interface().(rules.Ref); ok {
			return r.String()
		}
		var parts []string
		for i := range v.NumField() {
			if !v.Field(i).IsZero() {
				parts = append(parts, v.Type().Field(i).Name+":"+show(v.Field(i)))
			}
		}
		return "{" + strings.Join(parts, " ") + "}"
	}
	return fmt.Sprint(v.Interface())
}
