package plan

import (
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
)

func TestFieldsAreReadAsTheyAreWritten(t *testing.T) {
	for _, v := range edge.Vendors() {
		for i := range v.Switches {
			if s := &v.Switches[i]; s.Writable() && !reflect.DeepEqual(pathOf(s.Field()), s.Path) {
				t.Errorf("%s becomes %q, want %q", s.Field(), pathOf(s.Field()), s.Path)
			}
		}
	}
}

// TestFormerValues: whoever may annotate an object must not choose what the controller writes into it.
func TestFormerValues(t *testing.T) {
	const label = "metadata.labels[istio.io/ingress-use-waypoint]"
	for _, c := range []struct {
		name, text string
		want       map[string]any
	}{
		{"a switch", `{"` + label + `":"True"}`, map[string]any{label: "True"}},
		{"a bool", `{"spec.useClusterIP":false}`, map[string]any{"spec.useClusterIP": false}},
		{"no switch", `{"spec.type":"NodePort","metadata.labels[app]":"x","metadata.annotations[isthmus.dev/edges]":"a/b"}`, map[string]any{}},
		{"a list of another owner", `{"spec.upstreams.use-cluster-ip":true}`, map[string]any{}},
		{"another type", `{"` + label + `":{"a":"b"}}`, map[string]any{}},
		{"a number", `{"` + label + `":1}`, map[string]any{}},
		{"no map", `["` + label + `"]`, map[string]any{}},
		{"no JSON", `{`, map[string]any{}},
		{"null", `null`, map[string]any{}},
	} {
		o := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{v1alpha1.AnnotationFormer: c.text}}}
		if got := formerOf(o); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
	if got := formerOf(&corev1.Service{}); got == nil || len(got) != 0 {
		t.Errorf("without annotation: got %v", got)
	}
}

// FuzzFormer reads an annotation that others may write.
func FuzzFormer(f *testing.F) {
	for _, s := range []string{`{"metadata.labels[istio.io/ingress-use-waypoint]":"True"}`, `{"spec.useClusterIP":false}`, `{"[":1}`, `null`, ``} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		o := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "x", Namespace: "y", Annotations: map[string]string{v1alpha1.AnnotationFormer: text}}}
		for name := range formerOf(o) {
			if !switched(name) {
				t.Errorf("%q is no switch", name)
			}
		}
		m := &maker{Snapshot: &Snapshot{Edge: &v1alpha1.AmbientEdge{}}}
		if w := m.takeBack(carrier{"v1", "Service", o}); w.Restore || len(w.Fields) > 0 {
			t.Errorf("%v is given back, and nothing of it is ours", w.Fields)
		}
	})
}

func TestSettingsNest(t *testing.T) {
	tree := map[string]any{}
	nest(tree, []string{"metadata", "labels", "a"}, "1")
	nest(tree, []string{"metadata", "labels", "b"}, "2")
	nest(tree, []string{"spec", "x"}, true)
	want := map[string]any{"metadata": map[string]any{"labels": map[string]any{"a": "1", "b": "2"}}, "spec": map[string]any{"x": true}}
	if !reflect.DeepEqual(tree, want) {
		t.Errorf("got %v", tree)
	}
}
