package run

import (
	"bytes"

	corev1 "k8s.io/api/core/v1"
)

// trimJSON is a list without metadata.managedFields and the copy of the whole object, appended to out. It says whether the page was a list that it can read.
func trimJSON(out, page []byte) ([]byte, bool) {
	t := jsonTrimmer{in: page, out: out}
	if !t.value(inList) || !t.end() {
		return nil, false
	}
	return append(t.out, t.in[t.from:]...), true
}

// jsonPlace is where in a list a JSON value is.
type jsonPlace int

const (
	elsewhere jsonPlace = iota
	inList
	inItems
	inItem
	inMeta
	inAnnotations
	unwanted
)

// below is where the value of a member is.
func (p jsonPlace) below(name []byte) jsonPlace {
	switch {
	case p == inList && string(name) == "items":
		return inItems
	case p == inItem && string(name) == "metadata":
		return inMeta
	case p == inMeta && string(name) == "annotations":
		return inAnnotations
	case p == inMeta && string(name) == "managedFields", p == inAnnotations && string(name) == corev1.LastAppliedConfigAnnotation:
		return unwanted
	}
	return elsewhere
}

// jsonTrimmer goes over JSON, and copies what is wanted. It finds out about mistakes only as far as it has to.
type jsonTrimmer struct {
	in   []byte
	at   int // in in
	from int // what stands from here to at is not copied yet
	out  []byte
}

// blank goes on to what is no white space, and returns it; 0 at the end.
func (t *jsonTrimmer) blank() byte {
	for ; t.at < len(t.in); t.at++ {
		switch c := t.in[t.at]; c {
		case ' ', '\t', '\r', '\n':
		default:
			return c
		}
	}
	return 0
}

// end says whether nothing follows.
func (t *jsonTrimmer) end() bool { return t.blank() == 0 && t.at == len(t.in) }

// value goes behind a value.
func (t *jsonTrimmer) value(p jsonPlace) bool {
	switch c := t.blank(); {
	case c == '{' && p != elsewhere && p != inItems && p != unwanted:
		return t.members(p)
	case c == '[' && p == inItems:
		return t.items()
	default:
		return t.skip()
	}
}

// items goes behind the list of objects.
func (t *jsonTrimmer) items() bool {
	t.at++
	if t.blank() == ']' {
		t.at++
		return true
	}
	for {
		if !t.value(inItem) {
			return false
		}
		c := t.blank()
		t.at++
		if c != ',' {
			return c == ']'
		}
	}
}

// members goes behind an object, and leaves out what is unwanted with the comma before it, or behind it.
func (t *jsonTrimmer) members(p jsonPlace) bool {
	t.at++
	if t.blank() == '}' {
		t.at++
		return true
	}
	kept, comma := false, 0 // whether there is a member that is kept, and where the comma before this one is
	for {
		start := t.at
		if t.blank() != '"' {
			return false
		}
		name := t.at + 1
		if !t.text() {
			return false
		}
		below := p.below(t.in[name : t.at-1])
		if t.blank() != ':' {
			return false
		}
		t.at++
		if !t.value(below) {
			return false
		}
		c := t.blank()
		if c != ',' && c != '}' {
			return false
		}
		switch {
		case below != unwanted:
			kept = true
		case kept:
			t.cut(comma, t.at)
		case c == ',': // the next one takes its place
			t.cut(start, t.at+1)
		default:
			t.cut(start, t.at)
		}
		comma = t.at
		t.at++
		if c == '}' {
			return true
		}
	}
}

// cut leaves out what stands between two places. They are behind all that was cut before.
func (t *jsonTrimmer) cut(from, to int) {
	if from > t.from {
		t.out = append(t.out, t.in[t.from:from]...)
	}
	t.from = to
}

// text goes behind a text.
func (t *jsonTrimmer) text() bool {
	for t.at++; ; t.at++ {
		n := bytes.IndexByte(t.in[t.at:], '"')
		if n < 0 {
			return false
		}
		t.at += n
		escapes := 0
		for t.in[t.at-1-escapes] == '\\' {
			escapes++
		}
		if escapes%2 == 0 {
			t.at++
			return true
		}
	}
}

// skip goes behind a value whose inside does not matter.
func (t *jsonTrimmer) skip() bool {
	depth := 0
	for t.at < len(t.in) {
		switch t.in[t.at] {
		case '"':
			if !t.text() {
				return false
			}
			if depth == 0 {
				return true
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth <= 0 {
				if depth == 0 {
					t.at++
				}
				return true // below zero: a number before the end of what it is in
			}
		case ',':
			if depth == 0 {
				return true
			}
		}
		t.at++
	}
	return depth == 0
}
