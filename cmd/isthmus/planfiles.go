package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	ctl "github.com/isthmus-mesh/isthmus/controller/run"
)

// planFiles plans by what files say alone. e is that of -f, or nil.
func (a *app) planFiles(ctx context.Context, f *planFlags, e *v1alpha1.AmbientEdge, args []string) (*planDocument, error) {
	w := &paperWorld{
		namespace: cmp.Or(f.kube.namespace, "default"), flag: "--from", strict: true, tooLong: "leave out what the AmbientEdge has nothing to do with",
	}
	for _, path := range f.from {
		if err := w.read(a.stdin, path); err != nil {
			return nil, err
		}
	}
	w.settle()
	if e == nil {
		var err error
		if e, err = w.edge(args, f.from); err != nil {
			return nil, err
		}
	} else if e.Namespace == "" {
		e.Namespace = w.namespace
	}
	if e.CreationTimestamp.IsZero() {
		e.CreationTimestamp = metav1.NewTime(time.Now())
	}
	w.imply(e)
	scheme, err := ctl.Scheme()
	if err != nil {
		return nil, err
	}
	mesh := f.config.assumed()
	r := &paperReader{world: w, scheme: scheme}
	if is, err := ctl.ReadMesh(ctx, r, f.config.istiod); err == nil {
		notes, err := f.config.settle(is)
		if err != nil {
			return nil, err
		}
		mesh, w.notes = is, append(w.notes, notes...)
	} else {
		lack := "is not in the files"
		if !apierrors.IsNotFound(err) {
			lack = fmt.Sprintf("cannot be read (%v)", err)
		}
		w.note("the mesh's configuration %s: trust domain %s and root namespace %s are assumed", lack, mesh.TrustDomain, mesh.RootNamespace)
	}
	s, err := ctl.Observe(ctx, r, e)
	if told, is := errors.AsType[*failure](err); is {
		return nil, told
	} else if err != nil {
		return nil, &failure{what: "these files cannot be planned for", where: strings.Join(f.from, ", "), err: err, next: "correct the object that is named"}
	}
	s.TrustDomain, s.TrustDomainAliases, s.RootNamespace, s.Paper = mesh.TrustDomain, mesh.TrustDomainAliases, mesh.RootNamespace, true
	w.note("no API server was asked: it may refuse an AmbientEdge that is planned for here")
	return newPlanDocument(e, s, w.notes), nil
}

// edge is the one AmbientEdge, or that which an argument names.
func (w *paperWorld) edge(args, from []string) (*v1alpha1.AmbientEdge, error) {
	var found []paperObject
	for _, o := range w.objects {
		if isEdge(o.Unstructured) && (len(args) == 0 || edgeKey(args[0], w.namespace).String() == o.GetNamespace()+"/"+o.GetName()) {
			found = append(found, o)
		}
	}
	where := strings.Join(from, ", ")
	switch {
	case len(found) == 0 && len(args) > 0:
		return nil, &failure{what: "there is no AmbientEdge " + edgeKey(args[0], w.namespace).String(), where: where, next: "name one that is there, or a file with -f"}
	case len(found) == 0:
		return nil, &failure{what: "there is no AmbientEdge", where: where, next: "name a file with -f; samples are in manifests/samples"}
	case len(found) > 1:
		var names []string
		for _, o := range found {
			names = append(names, o.GetNamespace()+"/"+o.GetName())
		}
		return nil, &failure{what: "there is more than one AmbientEdge: " + strings.Join(names, ", "), where: where, next: "name one of them as an argument"}
	}
	e := &v1alpha1.AmbientEdge{}
	text, err := found[0].MarshalJSON()
	if err == nil {
		err = strict(text, e)
	}
	if err != nil {
		return nil, err
	}
	if err := offered(text); err != nil {
		return nil, &failure{what: "the API server would refuse AmbientEdge " + e.Namespace + "/" + e.Name, where: found[0].where, err: err, next: "correct the field; kubectl explain ambientedge.spec says what there is"}
	}
	return e, nil
}
