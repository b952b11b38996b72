package rules

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// bareField is the Field of a rule that only has Unknown fields, or nothing.
const bareField = "spec"

// maxUnknown fields are listed of an object, and how many more there are.
const maxUnknown = 32

// doc is an object that is read. What nobody reads of it is unknown.
type doc struct {
	ref     Ref
	by      Ref // what attaches it, if that is another
	targets []Target
	how     standing
	bare    string // Field of what belongs to no rule; empty means spec

	opened  []*fields
	unknown []string
	rules   []Rule
	stands  []standing
}

// fields are those of one level of an object. A nil one has none.
type fields struct {
	doc  *doc
	path string
	m    map[string]any
	seen []string // of those that are there
}

func (d *doc) open(path string, m map[string]any) *fields {
	f := &fields{doc: d, path: path, m: m}
	d.opened = append(d.opened, f)
	return f
}

// spec is where policies begin.
func (d *doc) spec(object map[string]any) *fields {
	m, ok := object["spec"].(map[string]any)
	if !ok && object["spec"] != nil {
		d.unknown = append(d.unknown, "spec")
	}
	return d.open("spec", m)
}

// add adds a rule that stands in f, of a part of the doc's family.
func (d *doc) add(f *fields, part string, r Rule) {
	if f == nil { // what should stand in the object does not
		d.unknown = append(d.unknown, "spec")
		return
	}
	r.Field = cmp.Or(r.Field, f.path)
	d.addAt(part, r)
}

func (d *doc) addAt(part string, r Rule) {
	r.Object, r.By, r.Targets = d.ref, d.by, d.targets
	how := d.how
	how.part = part
	d.rules, d.stands = append(d.rules, r), append(d.stands, how)
}

// finish gives what nobody has read to the rules that it belongs to.
func (d *doc) finish() ([]Rule, []standing) {
	for _, f := range d.opened {
		for name, v := range f.m {
			if v != nil && !f.wasRead(name) {
				d.unknown = append(d.unknown, f.at(name))
			}
		}
	}
	slices.Sort(d.unknown)
	d.unknown = slices.Compact(d.unknown)
	var bare []string
	for _, field := range d.unknown {
		if len(d.rules) > 0 && strings.HasPrefix(field, "spec.target") || field == "spec.mergeType" { // nobody can be sure where any of them holds
			for i := range d.rules {
				d.rules[i].Unknown = bounded(d.rules[i].Unknown, field)
				if field != "spec.mergeType" {
					d.stands[i].family = "" // it may hold elsewhere, and replaces nothing
				}
			}
		} else if near := d.nearest(field); near != "" {
			for i := range d.rules {
				if d.rules[i].Field == near {
					d.rules[i].Unknown = bounded(d.rules[i].Unknown, field)
				}
			}
		} else {
			bare = bounded(bare, field)
		}
	}
	if len(bare) > 0 || len(d.rules) == 0 {
		field := cmp.Or(d.bare, bareField)
		if len(bare) > 0 && strings.HasPrefix(bare[0], "metadata.") {
			field = "metadata"
		}
		d.addAt("", Rule{Field: field, Unknown: bare})
	}
	return d.rules, d.stands
}

// nearest is the Field of the rules that a field belongs to, if it belongs to any.
func (d *doc) nearest(field string) string {
	best := ""
	for i := range d.rules {
		if at := d.rules[i].Field; len(at) > len(best) && within(field, at) {
			best = at
		}
	}
	return best
}

func within(field, parent string) bool {
	rest, ok := strings.CutPrefix(field, parent)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

func bounded(list []string, field string) []string {
	if len(list) < maxUnknown {
		return append(list, field)
	}
	if len(list) == maxUnknown {
		return append(list, "more of them")
	}
	return list
}

// where is the path of the fields.
func (f *fields) where() string {
	if f == nil {
		return ""
	}
	return f.path
}

func (f *fields) at(name string) string {
	if f == nil || f.path == "" {
		return name
	}
	if strings.ContainsAny(name, "./") {
		return f.path + "[" + name + "]"
	}
	return f.path + "." + name
}

// take is a field, which counts as read.
func (f *fields) take(name string) (any, bool) {
	if f == nil {
		return nil, false
	}
	v := f.m[name]
	if v == nil {
		return nil, false
	}
	f.seen = append(f.seen, name)
	return v, true
}

func (f *fields) wasRead(name string) bool { return slices.Contains(f.seen, name) }

// has says whether there is a field. It does not count as read.
func (f *fields) has(name string) bool { return f != nil && f.m[name] != nil }

// skip leaves out fields that change nothing which is told here.
func (f *fields) skip(names ...string) {
	for _, name := range names {
		f.take(name)
	}
}

// unsure makes a field unknown, whatever is read of it. Empty: all of them here.
func (f *fields) unsure(name string) {
	if f == nil {
		return
	}
	at := f.path
	if name != "" {
		f.take(name)
		at = f.at(name)
	}
	f.doc.unknown = append(f.doc.unknown, at)
}

// wrong is a field that its schema would not allow.
func (f *fields) wrong(name string) { f.unsure(name) }

func (f *fields) str(name string) string {
	v, ok := f.take(name)
	s, is := v.(string)
	if ok && !is {
		f.wrong(name)
	}
	return s
}

func (f *fields) strs(name string) []string {
	v, ok := f.take(name)
	if !ok {
		return nil
	}
	list, is := v.([]any)
	if !is {
		f.wrong(name)
		return nil
	}
	var out []string
	for _, e := range list {
		s, is := e.(string)
		if !is {
			f.wrong(name)
			continue
		}
		out = append(out, s)
	}
	return out
}

// is answers a field that is true or false, or otherwise where it is not there.
func (f *fields) is(name string, otherwise bool) Answer {
	v, ok := f.take(name)
	if !ok {
		return answer(otherwise)
	}
	b, is := v.(bool)
	if !is {
		f.wrong(name)
		return Unsure
	}
	return answer(b)
}

// number is one of JSON or YAML, whichever decoder read it.
func (f *fields) number(name string) (int, bool) {
	v, ok := f.take(name)
	if !ok {
		return 0, false
	}
	switch n := v.(type) {
	case int64:
		if int64(int(n)) == n {
			return int(n), true
		}
	case int:
		return n, true
	case float64:
		if n == float64(int32(n)) {
			return int(n), true
		}
	case json.Number:
		if i, err := n.Int64(); err == nil && int64(int(i)) == i {
			return int(i), true
		}
	}
	f.wrong(name)
	return 0, false
}

func (f *fields) duration(name string) time.Duration {
	s := f.str(name)
	if s == "" {
		return 0
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		f.wrong(name)
		return 0
	}
	return d
}

// sub is what is below a field. Nil: nothing is.
func (f *fields) sub(name string) *fields {
	v, ok := f.take(name)
	if !ok {
		return nil
	}
	m, is := v.(map[string]any)
	if !is {
		f.wrong(name)
		return nil
	}
	return f.doc.open(f.at(name), m)
}

// item is one of a list of objects.
type item struct {
	path string
	m    map[string]any
}

// items are those of a list of objects, which count as read as a whole.
func (f *fields) items(name string) []item {
	v, ok := f.take(name)
	if !ok {
		return nil
	}
	list, is := v.([]any)
	if !is {
		f.wrong(name)
		return nil
	}
	var out []item
	for i, e := range list {
		at := fmt.Sprintf("%s[%d]", f.at(name), i)
		m, is := e.(map[string]any)
		if !is {
			f.doc.unknown = append(f.doc.unknown, at)
			continue
		}
		out = append(out, item{at, m})
	}
	return out
}

// each are the items of a list of objects, to be read one by one.
func (f *fields) each(name string) []*fields {
	var out []*fields
	for _, it := range f.items(name) {
		out = append(out, f.doc.open(it.path, it.m))
	}
	return out
}

// names are those of the fields.
func (f *fields) names() []string {
	if f == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(f.m))
}
