package plan

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
)

// setting is a field that is to have a value: a string or a bool.
type setting struct {
	path  []string
	value any
}

func labelled(key, value string, at ...string) setting {
	if len(at) == 0 {
		at = []string{"metadata"}
	}
	return setting{append(slices.Clone(at), "labels", key), value}
}

func annotated(key, value string, at ...string) setting {
	if len(at) == 0 {
		at = []string{"metadata"}
	}
	return setting{append(slices.Clone(at), "annotations", key), value}
}

func (s setting) field() string { return edge.Field(s.path) }

// managed is the path as managed fields have it.
func (s setting) managed() []string {
	path := make([]string, len(s.path))
	for i, p := range s.path {
		path[i] = "f:" + p
	}
	return path
}

func (s setting) String() string { return fmt.Sprint(s.value) }

// carrier is an object that settings go to.
type carrier struct {
	apiVersion, kind string
	object           metav1.Object
}

func (c carrier) String() string { return object(c.kind, keyOf(c.object)) }

// group is that of apiVersion.
func (c carrier) group() string {
	group, _, ok := strings.Cut(c.apiVersion, "/")
	if !ok {
		return ""
	}
	return group
}

// value is what a field of an object is, and whether it is set.
func value(o metav1.Object, path []string) (any, bool) {
	if u, ok := o.(*unstructured.Unstructured); ok {
		v, set, err := unstructured.NestedFieldNoCopy(u.Object, path...)
		return v, set && err == nil
	}
	key := path[len(path)-1]
	v, set := texts(o, path[:len(path)-1])[key]
	return v, set
}

// texts are labels or annotations of a typed object: its own, those of its pod template, or those of its infrastructure.
func texts(o metav1.Object, path []string) map[string]string {
	var template *metav1.ObjectMeta
	switch o := o.(type) {
	case *appsv1.Deployment:
		template = &o.Spec.Template.ObjectMeta
	case *appsv1.DaemonSet:
		template = &o.Spec.Template.ObjectMeta
	}
	switch strings.Join(path, ".") {
	case "metadata.labels":
		return o.GetLabels()
	case "metadata.annotations":
		return o.GetAnnotations()
	case "spec.template.metadata.labels":
		if template != nil {
			return template.Labels
		}
	case "spec.template.metadata.annotations":
		if template != nil {
			return template.Annotations
		}
	case "spec.infrastructure.labels":
		if g, ok := o.(*gatewayv1.Gateway); ok && g.Spec.Infrastructure != nil {
			return plainTexts(g.Spec.Infrastructure.Labels)
		}
	case "spec.infrastructure.annotations":
		if g, ok := o.(*gatewayv1.Gateway); ok && g.Spec.Infrastructure != nil {
			return plainTexts(g.Spec.Infrastructure.Annotations)
		}
	}
	return nil
}

func plainTexts[K, V ~string](m map[K]V) map[string]string {
	out := make(map[string]string, len(m))
	for k, v := range m {
		out[string(k)] = string(v)
	}
	return out
}

// state says how a setting stands to what is there.
func (m *maker) state(o metav1.Object, s setting) field {
	is, set := value(o, s.path)
	return fieldState(o, fmt.Sprint(is), set, m.Edge.FieldOwner(), s.String(), s.managed())
}

// put makes the step that gives an object settings. all are those that this plan wants of the object in any step: what is held already of
// them stays in the write.
func (m *maker) put(c carrier, verb, how string, want, all []setting) Step {
	s := Step{Step: v1alpha1.Step{Verb: verb, Object: c.String(), State: v1alpha1.StepDone, Reason: how}}
	fields, former := map[string]any{}, formerOf(c.object)
	missing, taken := false, [][]string(nil)
	for _, x := range want {
		switch m.state(c.object, x) {
		case absent:
			missing = true
			nest(fields, x.path, x.value)
		case ours:
			nest(fields, x.path, x.value)
		case theirs:
			if s.Reason = "it is set already, not by us"; x.path[len(x.path)-2] == "labels" {
				s.Reason = "it is labelled already, not by us"
			}
		case foreign:
			is, _ := value(c.object, x.path)
			if verb == VerbSwitch && slices.Contains(m.Edge.Spec.TakeOver, x.field()) {
				missing, taken = true, append(taken, x.path)
				former[x.field()] = is
				nest(fields, x.path, x.value)
				continue
			}
			s.State = v1alpha1.StepBlocked
			m.foreign(s.Object, x.field(), fmt.Sprint(is), x.String(), othersHold(c.object, x.managed()...))
			switch {
			case x.field() == labelled(LabelUseWaypoint, "").field() && fmt.Sprint(is) != modeNone:
				m.plan.Findings[len(m.plan.Findings)-1].Fix += ", or use the waypoint that it names: spec.waypoint: {policy: Use}"
			case verb == VerbSwitch:
				m.plan.Findings[len(m.plan.Findings)-1].Fix += ", or name this field in spec.takeOver"
			}
		}
	}
	if s.State == v1alpha1.StepBlocked {
		return s
	}
	s.wants = func() *Write { return wanted(c, want, former) }
	if !missing {
		return s
	}
	s.State = v1alpha1.StepNext
	for _, x := range all {
		is, set := value(c.object, x.path)
		if !slices.ContainsFunc(want, func(w setting) bool { return w.field() == x.field() }) && set && holds(c.object, m.Edge.FieldOwner(), x.managed()...) {
			nest(fields, x.path, is)
		}
	}
	if len(former) > 0 {
		nest(fields, annotated(v1alpha1.AnnotationFormer, "").path, formerText(former))
	}
	key := keyOf(c.object)
	what := "change"
	if !slices.ContainsFunc(want, func(w setting) bool { return w.path[len(w.path)-2] != "labels" }) {
		what = "label"
	}
	if key.Namespace != "" && !m.ask(key.Namespace, c.group(), c.kind, what+" "+c.kind+" "+key.Name) {
		s.State, s.Reason = v1alpha1.StepBlocked, "no consent"
		return s
	}
	s.Write = &Write{APIVersion: c.apiVersion, Kind: c.kind, Key: key, UID: c.object.GetUID(), Fields: fields, TakeOver: taken}
	return s
}

// wanted is what a step wants of an object, whoever has set it.
func wanted(c carrier, want []setting, former map[string]any) *Write {
	w := &Write{APIVersion: c.apiVersion, Kind: c.kind, Key: keyOf(c.object), UID: c.object.GetUID(), Fields: map[string]any{}}
	for _, x := range want {
		nest(w.Fields, x.path, x.value)
	}
	if len(former) > 0 {
		nest(w.Fields, annotated(v1alpha1.AnnotationFormer, "").path, formerText(former))
	}
	return w
}

// takeBack is the write that takes what is ours from an object. Values of before come first: they are given back while the fields are ours, and not
// where somebody has changed them since.
func (m *maker) takeBack(c carrier) *Write {
	w := &Write{APIVersion: c.apiVersion, Kind: c.kind, Key: keyOf(c.object), UID: c.object.GetUID(), Fields: map[string]any{}}
	for name, was := range formerOf(c.object) {
		if x := (setting{pathOf(name), was}); holds(c.object, m.Edge.FieldOwner(), x.managed()...) {
			w.Restore = true
			nest(w.Fields, x.path, was)
		}
	}
	return w
}

// formerOf are the values that takeOver has replaced in an object, by field. It is never nil.
func formerOf(o metav1.Object) map[string]any {
	former := map[string]any{}
	text, ok := o.GetAnnotations()[v1alpha1.AnnotationFormer]
	if !ok || json.Unmarshal([]byte(text), &former) != nil || former == nil {
		return map[string]any{}
	}
	for name, was := range former {
		_, isText := was.(string)
		_, isBool := was.(bool)
		if !isText && !isBool || !switched(name) {
			delete(former, name) // we write no other: whoever may write annotations is not to choose what we write
		}
	}
	return former
}

func formerText(former map[string]any) string {
	text, err := json.Marshal(former)
	if err != nil {
		return "{}" // strings and bools can be encoded
	}
	return string(text)
}

// switchFields are the fields of all switches that can be written. It is asked for every field that we have in any object.
var switchFields = sync.OnceValue(func() map[string]bool {
	fields := map[string]bool{}
	for _, v := range edge.Vendors() {
		for _, s := range v.Switches {
			if s.Writable() {
				fields[s.Field()] = true
			}
		}
	}
	return fields
})

// switched says whether a field is that of a switch.
func switched(name string) bool { return switchFields()[name] }

// pathOf reads what edge.Field writes.
func pathOf(field string) []string {
	field, key, bracket := strings.Cut(field, "[")
	path := strings.Split(field, ".")
	if bracket {
		path = append(path, strings.TrimSuffix(key, "]"))
	}
	return path
}

// nest sets a field in a tree of maps.
func nest(tree map[string]any, path []string, v any) {
	for _, p := range path[:len(path)-1] {
		next, ok := tree[p].(map[string]any)
		if !ok {
			next = map[string]any{}
			tree[p] = next
		}
		tree = next
	}
	tree[path[len(path)-1]] = v
}
