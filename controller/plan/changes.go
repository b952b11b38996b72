package plan

import (
	"cmp"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/edge"
)

// Deed is what becomes of an object.
type Deed string

// The deeds.
const (
	DeedCreate  Deed = "Create"
	DeedChange  Deed = "Change"
	DeedDelete  Deed = "Delete"
	DeedRelease Deed = "Release" // it stays as it is, without our marks
)

// Change is what the steps of a plan that are left do to one object, all together: those that wait for others too.
type Change struct {
	APIVersion, Kind string
	Key              types.NamespacedName
	// UID is that of the object which the plan is about. Empty: it is to be made.
	UID  types.UID
	Deed Deed
	// Steps are the IDs of those that do it, in order.
	Steps []string
	// Fields are those that change, in order of their names. Of an object that goes they are those that are ours.
	Fields []FieldChange
}

func (c *Change) String() string { return object(c.Kind, c.Key) }

// FieldChange is what becomes of one field. A list counts as one.
type FieldChange struct {
	Path []string
	// Before and After are values as JSON has them. Nil: it is not set.
	Before, After any
}

// Field is the path for people.
func (f *FieldChange) Field() string { return edge.Field(f.Path) }

// Changes compares what is left to be written with the snapshot that p was made of. The objects come in the order of their first step.
func (p *Plan) Changes(s *Snapshot) []Change {
	var order []*changing
	byObject := map[string]*changing{}
	of := func(w *Write) *changing {
		c := byObject[w.String()]
		if c == nil {
			c = &changing{Change: Change{APIVersion: w.APIVersion, Kind: w.Kind, Key: w.Key, UID: w.UID, Deed: DeedChange}, after: map[string]leaf{}, kept: map[string]leaf{}}
			byObject[w.String()] = c
		}
		return c
	}
	for i := range p.Steps {
		step := &p.Steps[i]
		w := cmp.Or(step.Write, step.later)
		if w == nil {
			continue
		}
		c := of(w)
		if len(c.Steps) == 0 {
			order = append(order, c)
		}
		c.Steps = append(c.Steps, step.ID)
		switch {
		case w.Delete:
			c.Deed = DeedDelete
		case w.Release:
			c.Deed = DeedRelease
		case w.UID == "" && s.objectOf(w.APIVersion, w.Kind, w.Key) == nil:
			c.Deed = DeedCreate
		}
		if takesBack(step.part) && !w.Restore {
			clear(c.after) // what a step before leaves goes with this one
		}
		gather(plainTree(w.Fields), nil, c.after)
	}
	for i := range p.Steps {
		if p.Steps[i].wants == nil {
			continue
		}
		w := p.Steps[i].wants()
		if c := byObject[w.String()]; c != nil {
			gather(plainTree(w.Fields), nil, c.kept)
		}
	}
	var list []Change
	for _, c := range order {
		c.compare(s.objectOf(c.APIVersion, c.Kind, c.Key), s.Edge.FieldOwner())
		if len(c.Fields) > 0 || c.Deed != DeedChange {
			list = append(list, c.Change)
		}
	}
	return list
}

// changing is a Change in the making.
type changing struct {
	Change
	after map[string]leaf // what is written, by field
	kept  map[string]leaf // what its steps want of the object, done or not
}

// leaf is a field without fields of its own.
type leaf struct {
	path  []string
	value any
}

// compare fills Fields. o is the object as it is, or nil; owner is our field manager.
func (c *changing) compare(o metav1.Object, owner string) {
	before, ours := map[string]leaf{}, map[string]bool{}
	if o != nil {
		tree := treeOf(o)
		for _, path := range held(o, owner, c.Deed == DeedDelete || c.Deed == DeedRelease) {
			name := edge.Field(path)
			ours[name] = true
			if is, set := valueAt(tree, path); set {
				before[name] = leaf{path, is}
			}
		}
		for name, x := range c.after {
			if is, set := valueAt(tree, x.path); set {
				before[name] = leaf{x.path, is}
			}
		}
	}
	fields := map[string]FieldChange{}
	for name, x := range before {
		after, written := c.after[name]
		_, kept := c.kept[name]
		switch {
		case c.Deed == DeedRelease || kept && !written:
		case written && !reflect.DeepEqual(x.value, after.value):
			fields[name] = FieldChange{Path: x.path, Before: x.value, After: after.value}
		case !written && ours[name] && (c.Deed == DeedDelete || !heldByOthers(o, owner, x.path)):
			fields[name] = FieldChange{Path: x.path, Before: x.value}
		}
	}
	for name, x := range c.after {
		if _, is := before[name]; !is {
			fields[name] = FieldChange{Path: x.path, After: x.value}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		c.Fields = append(c.Fields, fields[name])
	}
}

// objectOf is an object of the snapshot, or nil.
func (s *Snapshot) objectOf(apiVersion, kind string, key types.NamespacedName) metav1.Object {
	is := func(o metav1.Object) bool { return keyOf(o) == key }
	var o metav1.Object
	switch kind {
	case "Namespace":
		o = some(s.namespace(key.Name))
	case "Service":
		o = some(s.service(key))
	case "Gateway":
		o = some(s.gateway(key))
	case "Deployment":
		o = some(s.deployment(key))
	case "DaemonSet":
		o = some(s.daemonSet(key))
	case "Ingress":
		for i := range s.Ingresses {
			if is(&s.Ingresses[i]) {
				o = &s.Ingresses[i]
			}
		}
	case "AuthorizationPolicy":
		for _, x := range s.Policies {
			if is(x) {
				o = x
			}
		}
	default:
		for _, x := range s.Objects {
			if x.GetAPIVersion() == apiVersion && x.GetKind() == kind && is(x) {
				o = x
			}
		}
	}
	return o
}

// Field is what a field of an object is, as JSON has it, by the name that FieldChange.Field gives it; there says whether the object is.
func (s *Snapshot) Field(apiVersion, kind string, key types.NamespacedName, field string) (value any, there bool) {
	o := s.objectOf(apiVersion, kind, key)
	if o == nil {
		return nil, false
	}
	value, _ = valueAt(treeOf(o), pathOf(field))
	return value, true
}

// some is an object as an interface, which is nil where the object is.
func some[T any, P interface {
	*T
	metav1.Object
}](o P) metav1.Object {
	if o == nil {
		return nil
	}
	return o
}

// treeOf is an object as JSON has it, or nil.
func treeOf(o any) map[string]any {
	text, err := json.Marshal(o)
	if err != nil {
		return nil
	}
	var tree map[string]any
	if json.Unmarshal(text, &tree) != nil {
		return nil
	}
	return tree
}

// plainTree is a tree with numbers as JSON has them, so that it can be compared.
func plainTree(fields map[string]any) map[string]any { return treeOf(fields) }

// gather adds all fields below a tree that have none of their own. A list counts as one field.
func gather(tree map[string]any, at []string, to map[string]leaf) {
	for key, v := range tree {
		path := append(slices.Clone(at), key)
		if inner, is := v.(map[string]any); is && len(inner) > 0 {
			gather(inner, path, to)
			continue
		}
		to[edge.Field(path)] = leaf{path, v}
	}
}

// valueAt is a field of a tree, and whether it is set.
func valueAt(tree map[string]any, path []string) (any, bool) {
	for _, p := range path[:len(path)-1] {
		next, is := tree[p].(map[string]any)
		if !is {
			return nil, false
		}
		tree = next
	}
	v, set := tree[path[len(path)-1]]
	return v, set
}

// held are the paths of fields that a manager has applied, or created too with made. Lists are not looked into.
func held(o metav1.Object, manager string, made bool) (paths [][]string) {
	for _, m := range o.GetManagedFields() {
		applied := m.Operation == metav1.ManagedFieldsOperationApply
		if m.Manager != manager || m.Subresource != "" || m.FieldsV1 == nil || !applied && !made {
			continue
		}
		paths = append(paths, managedPaths(m.FieldsV1.GetRawBytes(), nil)...)
	}
	return paths
}

// managedPaths are the fields of managed fields that have none of their own.
func managedPaths(raw []byte, at []string) (paths [][]string) {
	var fields map[string]json.RawMessage
	if json.Unmarshal(raw, &fields) != nil {
		return nil // not what an API server writes
	}
	inner := false
	for key, below := range fields {
		if name, is := strings.CutPrefix(key, "f:"); is {
			inner = true
			paths = append(paths, managedPaths(below, append(slices.Clone(at), name))...)
		}
	}
	if !inner && len(at) > 0 {
		return [][]string{at}
	}
	return paths
}

// heldByOthers says whether somebody else has a field too, so that it stays.
func heldByOthers(o metav1.Object, owner string, path []string) bool {
	managed := setting{path: path}.managed()
	return slices.ContainsFunc(o.GetManagedFields(), func(f metav1.ManagedFieldsEntry) bool {
		return f.Manager != owner && f.FieldsV1 != nil && hasPath(f.FieldsV1.GetRawBytes(), managed)
	})
}
