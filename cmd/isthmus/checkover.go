package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/controller/check"
)

// checkedOver is what is found anew when files are applied to a cluster.
func (a *app) checkedOver(ctx context.Context, f *checkFlags) (*checkDocument, error) {
	_, ns, err := f.world.kube.config()
	if err != nil {
		return nil, err
	}
	f.world.kube.namespace = ns              // as kubectl apply has it
	paper, err := a.readFiles(&f.world, nil) // they are laid over what the cluster has
	if err != nil {
		return nil, err
	}
	done := a.progress("reading the cluster")
	defer done()
	w, c, err := f.world.clusterWorld(ctx)
	if err != nil {
		return nil, err
	}
	before := check.Run(w.World, f.checks)
	ctx, cancel := context.WithTimeout(ctx, f.world.kube.timeout)
	defer cancel()
	placed, notes, err := applied(ctx, c, w, paper)
	if err != nil {
		return nil, err
	}
	over := w.Over(placed)
	after := check.Run(over, f.checks)
	w.broken, w.World, w.files, w.notes = paper.broken, over, paper.placed(), append(append(w.notes, paper.notes...), notes...)
	fresh, gone := compare(before, after)
	doc := newCheckDocument(w, f.checks, fresh)
	for i := range gone {
		doc.Gone = append(doc.Gone, w.finding(&gone[i]))
		doc.Notes = append(doc.Notes, fmt.Sprintf("goes away: %s at %s", gone[i].Code, gone[i].Object))
	}
	return doc, nil
}

// compare says which findings are new, and which are there no more.
func compare(before, after []check.Finding) (fresh, gone []check.Finding) {
	key := func(f *check.Finding) string {
		return strings.Join([]string{f.Code, f.Object.Group, f.Object.String(), f.Field, f.Message}, "\x00")
	}
	only := func(list, others []check.Finding) []check.Finding {
		there := make(map[string]bool, len(others))
		for i := range others {
			there[key(&others[i])] = true
		}
		return slices.DeleteFunc(slices.Clone(list), func(f check.Finding) bool { return there[key(&f)] })
	}
	return only(after, before), only(before, after)
}

// applied are the objects of files as the cluster would have them.
func applied(ctx context.Context, c client.Reader, w *world, paper *paperWorld) (list []check.Placed, notes []string, err error) {
	for _, o := range paper.objects {
		if w.Read(o.GroupVersionKind().GroupKind()) {
			list = append(list, check.Placed{Unstructured: o.Unstructured, Where: o.where, Faults: o.faults})
		}
	}
	errs := make([]error, len(list))
	next := make(chan int)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range next {
				errs[i] = onto(ctx, c, &list[i])
			}
		})
	}
	for i := range list {
		next <- i
	}
	close(next)
	wg.Wait()
	for i, err := range errs {
		switch {
		case err == nil:
		case apierrors.IsForbidden(err):
			notes = append(notes, fmt.Sprintf("you may not get %s, which is taken as the file has it", list[i].Name()))
		default:
			return nil, nil, explainKube("cannot read "+list[i].Name(), list[i].Where, err)
		}
	}
	return list, notes, nil
}

// onto lays an object over that of the cluster, if there is one.
func onto(ctx context.Context, c client.Reader, o *check.Placed) error {
	live := &unstructured.Unstructured{}
	live.SetGroupVersionKind(o.GroupVersionKind())
	err := c.Get(ctx, client.ObjectKeyFromObject(o.Unstructured), live)
	if apierrors.IsNotFound(err) || meta.IsNoMatchError(err) {
		return nil
	}
	if err != nil {
		return err
	}
	o.Unstructured = check.Applied(live, o.Unstructured)
	return nil
}
