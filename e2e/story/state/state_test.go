package state

import (
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
)

func TestStripLeavesWhatUsersSet(t *testing.T) {
	const slice = `
metadata:
  name: orders-abc
  resourceVersion: "7"
  generation: 3
  managedFields: [{manager: x}]
  annotations: {endpoints.kubernetes.io/last-change-trigger-time: now, kept: "yes"}
endpoints:
- addresses: [10.244.1.7]
  conditions: {ready: true}
status: {x: y}
`
	const want = `
metadata: {name: orders-abc, annotations: {kept: "yes"}}
endpoints: [{addresses: [10.244.1.7]}]
`
	for name, tt := range map[string]struct{ resource, in, want string }{
		"a slice":                    {"endpointslices", slice, want},
		"only its moving annotation": {"endpointslices", `metadata: {annotations: {endpoints.kubernetes.io/last-change-trigger-time: now}}`, `metadata: {}`},
		"a lease in a ConfigMap":     {"configmaps", `metadata: {annotations: {control-plane.alpha.kubernetes.io/leader: me}}`, `metadata: {}`},
		"an empty set":               {"pods", `metadata: {annotations: {}}`, `metadata: {}`},
		"another kind's annotation":  {"secrets", `metadata: {annotations: {control-plane.alpha.kubernetes.io/leader: me}}`, `metadata: {annotations: {control-plane.alpha.kubernetes.io/leader: me}}`},
		"endpoints of another kind":  {"workloads", `{metadata: {}, endpoints: [{conditions: {}}]}`, `{metadata: {}, endpoints: [{conditions: {}}]}`},
	} {
		got, want := parsed(t, tt.in), parsed(t, tt.want)
		strip(tt.resource, got)
		a, err := got.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		b, err := want.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		if string(a) != string(b) {
			t.Errorf("%s: got %s, want %s", name, a, b)
		}
	}
}

func parsed(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &u.Object); err != nil {
		t.Fatal(err)
	}
	u.SetKind("X")
	return u
}

func TestDiffNamesWhatCameWentAndChanged(t *testing.T) {
	before := Objects{"a": "1", "b": "1", "c": "1"}
	if d := before.Diff(Objects{"a": "1", "b": "2", "d": "1"}); len(d) != 3 {
		t.Errorf("got %q, want three differences", d)
	}
	if d := before.Diff(before); d != nil {
		t.Errorf("got %q, want none", d)
	}
}
