package main

import (
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/check"
)

// kindFile is that of a finding about a part of a file that is no object.
const kindFile = "File"

// unread are findings about what could not be read, and is left out: parts of files, and then objects.
func (w *world) unread() (list []checkFinding) {
	for i := range w.broken {
		p := &w.broken[i]
		list = append(list, checkFinding{
			Code: check.CodeFault, Severity: v1alpha1.SeverityError, Object: checkObject{Kind: kindFile, Name: p.file}, File: p.file, Line: p.line,
			Message: p.Error(), Fix: p.next,
		})
	}
	for _, f := range w.Faults() {
		if f.Severity == v1alpha1.SeverityError {
			list = append(list, w.finding(&f))
		}
	}
	return list
}

// unreadError is an error about what could not be read: the first of it, and how many parts there are. Nil: all could be.
func (w *world) unreadError() error {
	list := w.unread()
	if len(list) == 0 {
		return nil
	}
	first := &list[0]
	f := &failure{what: first.Object.String() + " is malformed", where: first.place(), err: errors.New(first.Message), next: first.Fix}
	if first.Object.Kind == kindFile {
		f = w.broken[0].failure
	}
	if n := w.Unread() + len(w.broken); n > 1 {
		f = &failure{what: fmt.Sprintf("%s, and %s more cannot be read", f.what, thousands(n-1)), where: f.where, err: f.err, next: f.next + "; isthmus check -f tells of all"}
	}
	return f
}

// noteFaults notes the fields of files that are not known, for who shows no findings.
func (w *world) noteFaults() {
	for _, f := range w.Faults() {
		at := w.finding(&f)
		w.notes = append(w.notes, fmt.Sprintf("%s, %s: %s; %s", at.place(), at.Object, at.Message, at.Fix))
	}
}

// edgeNote says that files alone do not tell what AmbientEdges in them name; empty: there are none.
func (w *paperWorld) edgeNote() string {
	list := w.of(schema.GroupKind{Group: v1alpha1.GroupVersion().Group, Kind: "AmbientEdge"})
	switch len(list) {
	case 0:
		return ""
	case 1:
		return fmt.Sprintf("what AmbientEdge %s/%s names was looked for in the files alone: --against-cluster, or isthmus plan -f, asks the cluster", list[0].GetNamespace(), list[0].GetName())
	}
	return fmt.Sprintf("what %s name was looked for in the files alone: --against-cluster, or isthmus plan -f, asks the cluster", count(len(list), "AmbientEdge"))
}

// refused are the values of an AmbientEdge that the API server would refuse.
func refused(u *unstructured.Unstructured) []check.Fault {
	text, err := u.MarshalJSON()
	if err == nil {
		err = offered(text)
	}
	if err == nil {
		return nil
	}
	f := check.Fault{Message: err.Error() + ". The API server refuses it, and this AmbientEdge counts for nothing here", Fix: "correct the field; docs/ambientedge.md has every one", Unread: true}
	if v, is := errors.AsType[*valueError](err); is {
		f.Field = v.field
	}
	return []check.Fault{f}
}
