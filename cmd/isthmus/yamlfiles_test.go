package main

import (
	"errors"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// TestObjectsOfFilesAreKeptSlim: as the type that checks have, and of the tree no more than the names; what has no type, or is to stay whole, is whole.
func TestObjectsOfFilesAreKeptSlim(t *testing.T) {
	text := `
kind: Pod
apiVersion: v1
metadata: {name: a, labels: {app: a}}
spec: {containers: [{name: c, image: i}]}
---
kind: List
apiVersion: v1
items:
- {kind: Namespace, apiVersion: v1, metadata: {name: whole, labels: {a: b}}}
- {kind: Service, apiVersion: v1, metadata: {name: s, namespace: whole}, spec: {clusterIP: None}}
- {kind: ConfigMap, apiVersion: v1, metadata: {name: m}, data: {a: b}}
- {kind: Service, apiVersion: v1, metadata: {name: bad}, spec: {ports: 7}}
`
	w := &paperWorld{namespace: "shop", flag: "-f", slim: func(u *unstructured.Unstructured) bool { return u.GetNamespace() != "whole" }}
	if err := w.read(strings.NewReader(text), "-"); err != nil {
		t.Fatal(err)
	}
	if len(w.objects) != 5 {
		t.Fatalf("there are %d objects", len(w.objects))
	}
	pod, ok := w.objects[0].typed.(*plan.Pod)
	if !ok || pod.Namespace != "shop" || pod.Labels["app"] != "a" || len(pod.Spec.Containers) != 1 {
		t.Errorf("the pod is %T %+v", w.objects[0].typed, pod)
	}
	if o := w.objects[0]; o.GetNamespace() != "shop" || o.GetName() != "a" || o.GetKind() != "Pod" || o.Object["spec"] != nil || len(o.GetLabels()) > 0 {
		t.Errorf("its tree is %v", o.Object)
	}
	if o := w.objects[1]; o.GetNamespace() != "" || o.typed == nil {
		t.Errorf("the namespace is %v", o.Object)
	}
	for i, field := range map[int]string{2: "spec", 3: "data", 4: "spec"} {
		if o := w.objects[i]; o.typed != nil || o.Object[field] == nil || (len(o.faults) > 0) != (i == 4) {
			t.Errorf("%s %s is not whole: %v, %v", o.GetKind(), o.GetName(), o.Object, o.faults)
		}
	}
}

// TestMalformedObjectsOfFiles: one that counts is an error and says where it stands; one that another takes the place of is none.
func TestMalformedObjectsOfFiles(t *testing.T) {
	const bad, good = "kind: Service\napiVersion: v1\nmetadata: {name: s}\nspec: {ports: 7}\n", "kind: Service\napiVersion: v1\nmetadata: {name: s}\n"
	for name, c := range map[string]struct{ text, want string }{
		"the last is":  {good + "---\n" + bad, "Service default/s is malformed"},
		"the first is": {bad + "---\n" + good, ""},
	} {
		dir := folder(t, map[string]string{"a.yaml": c.text})
		w, err := (&app{}).filesWorld(t.Context(), &worldFlags{files: []string{dir}})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		err = w.unreadError()
		if c.want == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		f, is := errors.AsType[*failure](err)
		if !is || f.what != c.want || !strings.HasSuffix(f.where, "a.yaml:8") || strings.Contains(f.err.Error(), "malformed") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
