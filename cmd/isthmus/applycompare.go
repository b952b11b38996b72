package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// difference is something that is not as it was when a plan was made.
type difference struct {
	Object string `json:"object"`
	Field  string `json:"field,omitempty"`
	Then   string `json:"then"`
	Now    string `json:"now"`
}

// differences compares what a plan would write, and what it would find there, with the plan of now. They come in order of their objects.
func differences(then, now *planDocument) []difference {
	list := []difference{}
	seen := map[[2]string]bool{}
	add := func(object, field, was, is string) {
		if key := [2]string{object, field}; !seen[key] {
			seen[key] = true
			list = append(list, difference{object, field, was, is})
		}
	}
	edge := "AmbientEdge " + then.Namespace + "/" + then.Name
	switch a, b := then.Edge, now.Edge; {
	case a.UID != b.UID:
		add(edge, "metadata.uid", orNone(string(a.UID)), orNone(string(b.UID)))
	case a.Generation != b.Generation:
		add(edge, "metadata.generation", fmt.Sprint(a.Generation), fmt.Sprint(b.Generation))
	}
	before, after := byObject(then.Changes), byObject(now.Changes)
	for i := range then.Changes {
		c := &then.Changes[i]
		if n := after[c.String()]; n != nil {
			compareChange(c, n, now.snapshot, add)
		} else {
			compareGone(c, now.snapshot, add)
		}
	}
	for i := range now.Changes {
		if c := &now.Changes[i]; before[c.String()] == nil {
			add(c.String(), "", "nothing was to be written", deedOf(c))
		}
	}
	compareEffects(then.Effects, now.Effects, list, add)
	slices.SortStableFunc(list, func(a, b difference) int {
		return cmp.Or(cmp.Compare(a.Object, b.Object), cmp.Compare(a.Field, b.Field))
	})
	return list
}

func byObject(list []planChange) map[string]*planChange {
	m := map[string]*planChange{}
	for i := range list {
		m[list[i].String()] = &list[i]
	}
	return m
}

// deedOf says in short what is done to an object.
func deedOf(c *planChange) string {
	if c.Deed != plan.DeedChange {
		return string(c.Deed)
	}
	text := string(c.Deed)
	for i, f := range c.Fields {
		sep := ", "
		if i == 0 {
			sep = " "
		}
		text += sep + f.Field
	}
	return text
}

// compareGone compares what was to be done to an object, and is not any more, with what is there.
func compareGone(c *planChange, s *plan.Snapshot, add func(object, field, was, is string)) {
	_, there := s.Field(c.APIVersion, c.Kind, c.key(), "metadata.name")
	switch {
	case !there && c.Deed != plan.DeedCreate:
		add(c.String(), "metadata.uid", orNone(string(c.UID)), orNone(""))
	case there && c.Deed == plan.DeedCreate:
		add(c.String(), "", "not there", "it is there")
	case len(c.Fields) == 0 || c.Deed != plan.DeedChange:
		add(c.String(), "", deedOf(c), "nothing is to be written")
	}
	if !there || c.Deed != plan.DeedChange {
		return
	}
	for i := range c.Fields {
		compareField(c, &c.Fields[i], s, add)
	}
}

// compareField compares a field that was to be written, and is not any more, with what is there.
func compareField(c *planChange, f *planFields, s *plan.Snapshot, add func(object, field, was, is string)) {
	if is, _ := s.Field(c.APIVersion, c.Kind, c.key(), f.Field); shown(is) != shown(f.Before) {
		add(c.String(), f.Field, shown(f.Before), shown(is))
		return
	}
	add(c.String(), f.Field, "would become "+shown(f.After), "nothing is to be written")
}

// compareChange compares what is done to one object, and what is there.
func compareChange(then, now *planChange, s *plan.Snapshot, add func(object, field, was, is string)) {
	name := then.String()
	if then.UID != now.UID {
		add(name, "metadata.uid", orNone(string(then.UID)), orNone(string(now.UID)))
	}
	if then.Deed != now.Deed {
		add(name, "", deedOf(then), deedOf(now))
	}
	fields := map[string]*planFields{}
	for i := range now.Fields {
		fields[now.Fields[i].Field] = &now.Fields[i]
	}
	for i := range then.Fields {
		f := &then.Fields[i]
		n := fields[f.Field]
		delete(fields, f.Field)
		switch {
		case n == nil:
			compareField(then, f, s, add)
		case shown(f.Before) != shown(n.Before):
			add(name, f.Field, shown(f.Before), shown(n.Before))
		case shown(f.After) != shown(n.After) && !plan.Rolls(f.Field):
			add(name, f.Field, "would become "+shown(f.After), "would become "+shown(n.After))
		}
	}
	for field, n := range fields {
		add(name, field, "nothing was to be written", fmt.Sprintf("%s, and would become %s", shown(n.Before), shown(n.After)))
	}
}

// compareEffects tells of what would be written in the end, and is of no change that is left now: a field that somebody else has set as it is wanted, and
// that is ours to mend if he takes it away.
func compareEffects(then, now []plan.Effect, told []difference, add func(object, field, was, is string)) {
	all := func(list []plan.Effect) map[string]bool {
		m := map[string]bool{}
		for _, e := range list {
			m[e.String()] = true
		}
		return m
	}
	was, is := all(then), all(now)
	covered := map[string]bool{} // objects
	for _, d := range told {
		covered[d.Object] = true
	}
	for _, e := range then {
		if !is[e.String()] && !covered[e.Object] {
			add(e.Object, e.Field, wanted(e), "not wanted")
		}
	}
	for _, e := range now {
		if !was[e.String()] && !covered[e.Object] {
			add(e.Object, e.Field, "not wanted", wanted(e))
		}
	}
}

// wanted is an effect in a table, beside its object and field.
func wanted(e plan.Effect) string {
	if e.Value == nil {
		return e.Does
	}
	return "wanted as " + shown(e.Value)
}

// shown is a value as it stands in a table.
func shown(v any) string {
	switch v := v.(type) {
	case nil:
		return "not set"
	case string:
		return fmt.Sprintf("%q", v)
	}
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(text)
}

func orNone(text string) string { return cmp.Or(text, "not there") }

func sameSpecs(a, b *v1alpha1.AmbientEdgeSpec) bool { return equality.Semantic.DeepEqual(a, b) }

// approvedEdge is the AmbientEdge to apply: of one that is there, the approval, what was applied of it before, and the spec unless that is somebody else's.
func approvedEdge(there *v1alpha1.AmbientEdge, then *planDocument) (*unstructured.Unstructured, error) {
	u := &unstructured.Unstructured{Object: map[string]any{}}
	u.SetAPIVersion(v1alpha1.GroupVersion().String())
	u.SetKind("AmbientEdge")
	u.SetNamespace(then.Namespace)
	u.SetName(then.Name)
	labels, annotations := then.Edge.Labels, map[string]string{}
	if there == nil {
		maps.Copy(annotations, then.Edge.Annotations)
	} else {
		u.SetUID(there.UID)
		var err error
		if labels, annotations, err = heldMetadata(there); err != nil {
			return nil, err
		}
	}
	if len(labels) > 0 {
		u.SetLabels(labels)
	}
	annotations[v1alpha1.AnnotationPlan] = then.approval()
	u.SetAnnotations(annotations)
	if there != nil && sameSpecs(&there.Spec, &then.Edge.Spec) {
		if ours, err := holdsSpec(there); err != nil || !ours {
			return u, err
		}
	}
	text, err := json.Marshal(then.Edge.Spec)
	if err != nil {
		return nil, err
	}
	var spec map[string]any
	if err := json.Unmarshal(text, &spec); err != nil {
		return nil, err
	}
	u.Object["spec"] = spec
	return u, nil
}
