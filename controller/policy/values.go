package policy

import "slices"

// Values is what is known of an attribute: one of a few values, or that it is absent. The zero value knows nothing.
type Values[T any] struct {
	list          []T
	known, absent bool
}

// Of is an attribute that is one of values. Of nothing it knows nothing.
func Of[T any](values ...T) Values[T] {
	return Values[T]{list: slices.Clip(values), known: len(values) > 0}
}

// Absent is an attribute that is not there: a source without identity, a header that is not sent, a request without token.
func Absent[T any]() Values[T] { return Values[T]{known: true, absent: true} }

// OrAbsent is v, or absent. What knows nothing goes on knowing nothing.
func (v Values[T]) OrAbsent() Values[T] {
	v.absent = v.known
	return v
}

// Known reports whether anything is known.
func (v Values[T]) Known() bool { return v.known }

// tri is what may be so: no, yes, or both.
type tri uint8

const (
	no tri = 1 << iota
	yes
	maybe = no | yes
)

func is(b bool) tri {
	if b {
		return yes
	}
	return no
}

func (t tri) not() tri       { return t>>1 | t<<1&yes }
func (t tri) and(o tri) tri  { return (t|o)&no | t&o&yes }
func (t tri) or(o tri) tri   { return (t|o)&yes | t&o&no }
func (t tri) has(o tri) bool { return t&o != 0 }
func (t tri) flip(b bool) tri {
	if b {
		return t.not()
	}
	return t
}
