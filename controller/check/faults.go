package check

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// CodeFault is the code of what an object has that its kind does not.
const CodeFault = "ISM130"

// Fault is a field or value of an object that its kind does not have.
type Fault struct {
	// Field is the path of it. Empty: the whole object.
	Field string
	// Message says what is wrong, and Fix what to write instead.
	Message, Fix string
	// Unread says that the object cannot be read, and counts for nothing. Else it counts without the field.
	Unread bool
}

func faultChecks() []Check {
	return []Check{{
		Code: CodeFault, Title: "a field or value that the kind does not have",
		Severities: []v1alpha1.Severity{v1alpha1.SeverityError, v1alpha1.SeverityWarning},
		Matter: "An object in a file has a field that its kind does not have, or a value that the field does not take. Of Istio's policies and of AmbientEdges this is " +
			"an Error, and so is a value of the wrong type anywhere: the object is left out of all else that is told, the exit code is 3, and no annotation has it " +
			"ignored. A field of another kind that is not known here is a Warning, as the API of the cluster may be newer: the object counts without it.",
		Harm: "The API server refuses the object, or, where nobody asks it to validate, drops the field: what is meant to deny or to allow does nothing.",
		Fix:  "Write the field as the kind has it; the nearest one is named.",
		Find: func(w *World, found func(Finding)) {
			for _, f := range w.faults {
				found(f)
			}
		},
	}}
}

// Unread is how many objects could not be read, and are left out.
func (w *World) Unread() int { return len(w.unread) }

// Faults are findings about objects that are not as their kinds are: an Error is about one that is left out.
func (w *World) Faults() []Finding { return slices.Clone(w.faults) }

// Fault notes what is wrong with an object that stands at where, and says whether the object is to be added all the same.
func (b *Builder) Fault(u *unstructured.Unstructured, where string, faults []Fault) (readable bool) {
	o := (&Placed{Unstructured: u}).key()
	readable = true
	for _, f := range faults {
		finding := Finding{Object: o, Field: f.Field, Message: f.Message, Fix: f.Fix, Severity: v1alpha1.SeverityWarning}
		if f.Unread {
			finding.Severity, readable = v1alpha1.SeverityError, false
		}
		b.w.faults = append(b.w.faults, finding)
	}
	if !readable {
		b.w.unread[o], b.w.where[o] = true, where
	}
	return readable
}

// Faults are the fields and values of an object that its kind does not have, as far as kinds are known here. It is for what people wrote: what a cluster has may be newer.
func Faults(u *unstructured.Unstructured) []Fault {
	gk := u.GroupVersionKind().GroupKind()
	o := shape(gk)
	if o == nil {
		return nil
	}
	r := faultReader{kind: gk.Kind, strict: gk.Group == "security.istio.io" || gk.Group == v1alpha1.GroupVersion().Group}
	r.value("", u.Object, reflect.TypeOf(o).Elem())
	slices.SortStableFunc(r.faults, func(a, b Fault) int { return strings.Compare(a.Field, b.Field) })
	return r.faults
}

// shape is an empty object of a kind whose fields are known here, or nil.
func shape(gk schema.GroupKind) metav1.Object {
	if gk == (schema.GroupKind{Group: gatewayv1.GroupName, Kind: "GRPCRoute"}) {
		return &gatewayv1.GRPCRoute{}
	}
	return typed(gk)
}

// faultReader compares an object with its type.
type faultReader struct {
	kind   string
	strict bool // a field that is not known makes the object unreadable
	faults []Fault
}

// value compares a value with a Go type, as encoding/json has it.
func (r *faultReader) value(path string, v any, t reflect.Type) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if v == nil {
		return
	}
	if m, is := reflect.New(t).Interface().(proto.Message); is {
		r.message(path, v, m.ProtoReflect().Descriptor())
		return
	}
	if readsItself(t) {
		return
	}
	switch t.Kind() {
	case reflect.Struct:
		if fields, is := r.fields(path, v); is {
			known := fieldsOf(t)
			for _, name := range slices.Sorted(maps.Keys(fields)) {
				of, there := known[name]
				switch {
				case path == "" && name == "status": // controllers write it, and newer ones write more
				case !there:
					r.unknown(path, name, slices.Sorted(maps.Keys(known)))
				default:
					r.value(below(path, name), fields[name], of)
				}
			}
		}
	case reflect.Map:
		if fields, is := r.fields(path, v); is {
			for _, name := range slices.Sorted(maps.Keys(fields)) {
				r.value(path+"["+name+"]", fields[name], t.Elem())
			}
		}
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return
		}
		r.items(path, v, func(path string, v any) { r.value(path, v, t.Elem()) })
	case reflect.String:
		r.text(path, v)
	case reflect.Bool:
		r.boolean(path, v)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if typeName(v) != aNumber {
			r.wrong(path, aNumber, v)
		}
	}
}

// message compares a value with a message of Istio's API. Its custom resources have fields under their JSON names alone.
func (r *faultReader) message(path string, v any, of protoreflect.MessageDescriptor) {
	if of.ParentFile().Package() == "google.protobuf" {
		return // these have forms of their own
	}
	fields, is := r.fields(path, v)
	if !is {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		fd := of.Fields().ByJSONName(name)
		if name == "jwks_uri" { // the one that goes by its other name too
			fd = of.Fields().ByName("jwks_uri")
		}
		v, at := fields[name], below(path, name)
		switch {
		case fd == nil:
			known := make([]string, of.Fields().Len())
			for i := range known {
				known[i] = of.Fields().Get(i).JSONName()
			}
			slices.Sort(known)
			r.unknown(path, name, known)
		case v == nil:
		case fd.IsMap():
			if entries, is := r.fields(at, v); is {
				for _, key := range slices.Sorted(maps.Keys(entries)) {
					r.single(at+"["+key+"]", entries[key], fd.MapValue())
				}
			}
		case fd.IsList():
			r.items(at, v, func(path string, v any) { r.single(path, v, fd) })
		default:
			r.single(at, v, fd)
		}
	}
}

// single compares a value with what a field of a message takes.
func (r *faultReader) single(path string, v any, fd protoreflect.FieldDescriptor) {
	if v == nil {
		return
	}
	switch fd.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		r.message(path, v, fd.Message())
	case protoreflect.StringKind:
		r.text(path, v)
	case protoreflect.BoolKind:
		r.boolean(path, v)
	case protoreflect.EnumKind:
		values := fd.Enum().Values()
		name, is := v.(string)
		if !is {
			r.wrong(path, "a text", v)
			return
		}
		if values.ByName(protoreflect.Name(name)) != nil {
			return
		}
		known := make([]string, values.Len())
		for i := range known {
			known[i] = string(values.Get(i).Name())
		}
		f := Fault{Field: path, Message: fmt.Sprintf("%s is %q, and takes %s", path, name, eachOf(known, "or")), Fix: "write " + eachOf(known, "or"), Unread: true}
		if near := nearest(name, known); near != "" {
			f.Fix = "write " + near
		}
		f.Message += r.leftOut()
		r.faults = append(r.faults, f)
	}
}

// What values are called.
const (
	aNumber = "a number"
	aList   = "a list"
	aStruct = "fields of its own"
)

func typeName(v any) string {
	switch v.(type) {
	case string:
		return "a text"
	case bool:
		return "true or false"
	case []any:
		return aList
	case map[string]any:
		return "fields"
	}
	return aNumber
}

func (r *faultReader) fields(path string, v any) (map[string]any, bool) {
	m, is := v.(map[string]any)
	if !is {
		r.wrong(path, aStruct, v)
	}
	return m, is
}

func (r *faultReader) items(path string, v any, item func(path string, v any)) {
	list, is := v.([]any)
	if !is {
		r.wrong(path, aList, v)
	}
	for i, v := range list {
		item(path+"["+strconv.Itoa(i)+"]", v)
	}
}

func (r *faultReader) text(path string, v any) {
	if _, is := v.(string); !is {
		r.wrong(path, "a text", v)
	}
}

func (r *faultReader) boolean(path string, v any) {
	if _, is := v.(bool); !is {
		r.wrong(path, "true or false", v)
	}
}

func (r *faultReader) wrong(path, takes string, v any) {
	f := Fault{Field: path, Message: fmt.Sprintf("%s takes %s, and is %s", path, takes, typeName(v)), Fix: "write " + takes, Unread: true}
	if is := typeName(v); takes == "a text" && is == aNumber {
		f.Fix = "write it in quotes"
	} else if takes == "a text" && is == "true or false" {
		f.Fix = "write it in quotes: YAML reads Off, On, Yes, No, y and n as true or false"
	}
	f.Message += r.leftOut()
	r.faults = append(r.faults, f)
}

func (r *faultReader) leftOut() string {
	return ". The API server refuses it, and this " + r.kind + " counts for nothing here"
}

// unknown notes a field that is none of those that are known beside it.
func (r *faultReader) unknown(path, name string, known []string) {
	at := below(path, name)
	f := Fault{Field: at, Fix: "correct or remove it: there are " + eachOf(known, "and")}
	if near := nearest(name, known); near != "" {
		f.Fix = fmt.Sprintf("write %s for %s", near, name)
	}
	// Names and annotations do not decide what a policy does.
	if f.Unread = r.strict && path != "metadata"; f.Unread {
		f.Message = fmt.Sprintf("there is no field %s. The API server refuses it, or drops it where it is not asked to validate: the %s would not do what is meant, and counts for nothing here", at, r.kind)
	} else {
		f.Message = fmt.Sprintf("a field %s is not known here, and does not count. The API server refuses it, or drops it, unless its %s is newer", at, r.kind)
	}
	r.faults = append(r.faults, f)
}

func below(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// eachOf is "a, b and c".
func eachOf(list []string, last string) string {
	if len(list) < 2 {
		return strings.Join(list, "")
	}
	return strings.Join(list[:len(list)-1], ", ") + " " + last + " " + list[len(list)-1]
}

// nearest is the one of known that is most like name, or empty if none is.
func nearest(name string, known []string) (near string) {
	best := 1 + max(2, len(name)/3)
	for _, k := range known {
		if d := edits(strings.ToLower(name), strings.ToLower(k)); d < best && d < len(k) {
			near, best = k, d
		}
	}
	return near
}

// edits is how many letters have to be put in, taken out or changed to make b of a.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := last
			if a[i] != b[j] {
				change++
			}
			last, row[j+1] = row[j+1], min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// readsItself says whether a type has a JSON form of its own.
func readsItself(t reflect.Type) bool {
	return reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]())
}

// fieldTables remembers the fields of types: there is a fixed number of them.
var fieldTables sync.Map

// fieldsOf are the fields of a struct by the names that they have in JSON.
func fieldsOf(t reflect.Type) map[string]reflect.Type {
	if known, is := fieldTables.Load(t); is {
		return known.(map[string]reflect.Type)
	}
	all := map[string]reflect.Type{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-" || !f.IsExported():
		case f.Anonymous && name == "":
			of := f.Type
			if of.Kind() == reflect.Pointer {
				of = of.Elem()
			}
			maps.Copy(all, fieldsOf(of))
		case name == "":
			all[f.Name] = f.Type
		default:
			all[name] = f.Type
		}
	}
	fieldTables.Store(t, all)
	return all
}

// malformed is what is wrong with an object that cannot be read, in spite of its fields.
func malformed(err error) []Fault {
	if inner := errors.Unwrap(err); inner != nil {
		err = inner
	}
	return []Fault{{Message: "this cannot be read, and counts for nothing here: " + err.Error(), Fix: "correct the field", Unread: true}}
}
