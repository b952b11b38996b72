package main

import (
	"strconv"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"
)

// line is where a field of an object stands, or else the object: in the file, as editors count.
func (o *place) line(field string) int {
	if field == "" && o.item < 0 {
		return o.doc.first()
	}
	at, line := o.doc.tree(), o.doc.first()
	if at == nil {
		return line
	}
	if o.item >= 0 {
		items := entry(at, "items")
		if items == nil || o.item >= len(items.Content) {
			return line
		}
		at = items.Content[o.item]
		line = o.doc.line + at.Line - 1
	}
	if found := fieldLine(at, field); found > 0 {
		return o.doc.line + found - 1
	}
	return line
}

// nodes are a document with the lines that its parts are in, parsed when they are asked for first.
type nodes struct {
	once sync.Once
	root *yaml.Node
}

// tree is what a document says, or nil. It is not to be changed.
func (d *document) tree() *yaml.Node {
	d.nodes.once.Do(func() {
		var root yaml.Node
		if yaml.Unmarshal([]byte(d.text), &root) == nil && len(root.Content) > 0 {
			d.nodes.root = root.Content[0]
		}
	})
	return d.nodes.root
}

// first is the line of the first thing in a document, behind comments.
func (d *document) first() int {
	line := d.line
	for l := range strings.Lines(d.text) {
		if l = strings.TrimSpace(l); l != "" && l[0] != '#' && l != "---" {
			return line
		}
		line++
	}
	return d.line
}

// fieldLine follows a path, as spec.rules[0].to or metadata.labels[istio.io/use-waypoint], as far as it goes; 0: nothing of it is there.
func fieldLine(at *yaml.Node, path string) (line int) {
	for path != "" {
		if at.Kind == yaml.AliasNode {
			at = at.Alias
		}
		var next *yaml.Node
		if at.Kind == yaml.SequenceNode {
			inside, rest, ok := strings.Cut(strings.TrimPrefix(path, "["), "]")
			i, err := strconv.Atoi(inside)
			if !ok || err != nil || i < 0 || i >= len(at.Content) {
				return line
			}
			next, path, line = at.Content[i], rest, at.Content[i].Line
		} else if next, line, path = step(at, path, line); next == nil {
			return line
		}
		at, path = next, strings.TrimPrefix(path, ".")
	}
	return line
}

// step goes to the entry of a mapping whose key the path begins with: of several the longest, as keys have dots.
func step(at *yaml.Node, path string, line int) (next *yaml.Node, of int, rest string) {
	of = line
	if at.Kind != yaml.MappingNode {
		return nil, of, ""
	}
	longest := ""
	for i := 0; i+1 < len(at.Content); i += 2 {
		key := at.Content[i].Value
		for _, form := range []string{key, "[" + key + "]", `["` + key + `"]`, "['" + key + "']"} {
			after, begins := strings.CutPrefix(path, form)
			if begins && (after == "" || after[0] == '.' || after[0] == '[') && len(form) > len(longest) {
				next, of, rest, longest = at.Content[i+1], at.Content[i].Line, after, form
			}
		}
	}
	return next, of, rest
}

// entry is the value of a key in a mapping, or nil.
func entry(at *yaml.Node, key string) *yaml.Node {
	for i := 0; at.Kind == yaml.MappingNode && i+1 < len(at.Content); i += 2 {
		if at.Content[i].Value == key {
			return at.Content[i+1]
		}
	}
	return nil
}
