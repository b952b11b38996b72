package run

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// listTimeout is how long a cache may take to fill with objects of a kind: without the right to list them it never does, and says nothing.
const listTimeout = 30 * time.Second

// absentFor is how long a kind counts as missing that the API server did not know, where nobody watches for its CRD.
const absentFor = 30 * time.Second

// vendors reads the kinds of families. The zero value asks the API server, and knows of no missing kind.
type vendors struct {
	feed    *feed // of the cache that is read; nil: there is none
	lenient bool  // where there is none, what may not be read is hidden, and no error

	mu     sync.Mutex // guards the field below; not held across I/O
	absent map[edge.Kind]time.Time
}

// observe adds to a snapshot the objects of all families: all of them, as there are few, or as nobody knows whom they concern. Where the edge is being
// deleted it is half: undo asks for nothing but what may have been written.
func (v *vendors) observe(ctx context.Context, r client.Reader, s *plan.Snapshot) error {
	undo := s.Edge.DeletionTimestamp != nil
	read := func(f family) ([]*unstructured.Unstructured, error) {
		list, err := v.read(ctx, r, f)
		if hidden, is := errors.AsType[*hiddenError](err); is {
			s.Hidden = append(s.Hidden, hidden.kind)
			return nil, nil
		}
		return list, err
	}
	for _, f := range callers() {
		if undo {
			break
		}
		list, err := read(f)
		if err != nil {
			return err
		}
		for _, o := range list {
			s.Callees = append(s.Callees, plan.CalleesOf(o)...)
		}
	}
	for _, more := range []struct {
		families []family
		to       *[]*unstructured.Unstructured
	}{{[]family{serviceEntries()}, &s.ServiceEntries}, {otherRoutes(), &s.OtherRoutes}, {listenerSets(), &s.ListenerSets}, {extensions(), &s.Extensions}} {
		for _, f := range more.families {
			list, err := read(f)
			if err != nil {
				return err
			}
			*more.to = append(*more.to, list...)
		}
		slices.SortFunc(*more.to, byKind)
	}
	for _, u := range edge.Uses() {
		if undo && !u.Patch {
			continue
		}
		list, err := read(family{u.Kind})
		if err != nil {
			return err
		}
		s.Objects = append(s.Objects, list...)
	}
	if !undo && s.Edge.ReadsRules() {
		if err := v.rules(ctx, r, s); err != nil {
			return err
		}
	}
	slices.SortFunc(s.Callees, func(a, b plan.Callee) int {
		return cmp.Or(cmp.Compare(a.Service.String(), b.Service.String()), cmp.Compare(a.By, b.By))
	})
	slices.SortFunc(s.Objects, byKind)
	return nil
}

// rules adds what says what gateways do to requests.
func (v *vendors) rules(ctx context.Context, r client.Reader, s *plan.Snapshot) error {
	if v.feed != nil && !v.feed.wantRules() {
		return errors.New("list objects that say what gateways do to requests: they have just begun to be watched")
	}
	for _, f := range ruleFamilies() {
		list, err := v.read(ctx, r, f)
		if hidden, is := errors.AsType[*hiddenError](err); is {
			s.RulesHidden = append(s.RulesHidden, hidden.kind)
			continue
		}
		if err != nil {
			return err
		}
		s.Rules = append(s.Rules, list...)
	}
	slices.SortFunc(s.Rules, byKind)
	return nil
}

func byKind(a, b *unstructured.Unstructured) int {
	return cmp.Or(cmp.Compare(a.GetKind(), b.GetKind()), compareObjects(a, b))
}

// hiddenError says that objects of a kind may not be read.
type hiddenError struct{ kind edge.Kind }

func (e *hiddenError) Error() string {
	return fmt.Sprintf("list objects of kind %s: the right to do so is missing", e.kind.Kind)
}

// read reads the objects of a family, none where the API server knows it in no version. What may not be read is an error of type *hiddenError where there is
// a feed, or v is lenient.
func (v *vendors) read(ctx context.Context, r client.Reader, f family) ([]*unstructured.Unstructured, error) {
	if v.feed != nil {
		k, watch, watched := v.feed.present(f)
		if !watched {
			return nil, nil
		}
		if watch.hidden {
			return nil, &hiddenError{k}
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(watch.ended, cancel)()
		list, there, err := v.list(ctx, r, k)
		if k, now, is := v.feed.present(f); is && now.hidden {
			return nil, &hiddenError{k} // what there was may not be what there is
		}
		if err == nil && !there || err != nil && watch.ended.Err() != nil { // that is not to say that there are none
			err = fmt.Errorf("list objects of kind %s: the watch of %s has just ended", k.Kind, k.APIVersion())
		}
		return list, err
	}
	for _, k := range f {
		if v.missing(k) {
			continue
		}
		list, there, err := v.list(ctx, r, k)
		if v.lenient && apierrors.IsForbidden(err) {
			return nil, &hiddenError{k}
		}
		if there || err != nil {
			return list, err
		}
		v.miss(k)
	}
	return nil, nil
}

// list reads the objects of a kind, and reports whether the API server knows it.
func (v *vendors) list(ctx context.Context, r client.Reader, k edge.Kind) (objects []*unstructured.Unstructured, there bool, err error) {
	list := &unstructured.UnstructuredList{}
	list.SetAPIVersion(k.APIVersion())
	list.SetKind(k.Kind + "List")
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	err = r.List(ctx, list, client.UnsafeDisableDeepCopy) // plans change nothing of what they are made of
	if unknown(err) {
		return nil, false, nil
	}
	if err != nil {
		return nil, true, fmt.Errorf("list objects of kind %s: %w", k.Kind, err)
	}
	for i := range list.Items {
		objects = append(objects, &list.Items[i])
	}
	return objects, true, nil
}

// unknown says whether the API server does not know a kind, or knows it no more, or the cache has let go of it for that.
func unknown(err error) bool {
	_, noKind := errors.AsType[*meta.NoKindMatchError](err)
	_, notCached := errors.AsType[*cache.ErrResourceNotCached](err)
	return noKind || notCached || meta.IsNoMatchError(err) || apierrors.IsNotFound(err)
}

func (v *vendors) missing(k edge.Kind) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return time.Now().Before(v.absent[k])
}

func (v *vendors) miss(k edge.Kind) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.absent == nil {
		v.absent = map[edge.Kind]time.Time{}
	}
	v.absent[k] = time.Now().Add(absentFor)
}
