package run

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	cr "sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/isthmus-mesh/isthmus/controller/edge"
)

// How soon the API server is asked which kinds it has, beyond at once.
const (
	unknowing = time.Second      // while it did not say
	unwatched = 30 * time.Second // while CRDs cannot be watched; and a kind that may be listed, and not watched
	asleep    = 10 * time.Minute // while they are
)

// doubtful is how long the API server must say that a watched kind has gone.
const doubtful = 5 * time.Second

// retried is how often a kind that may not be read is tried again.
const retried = 2 * time.Second

// retries are how long after a CRD has changed the API server may take to tell of it.
func retries() []time.Duration {
	return []time.Duration{0, 200 * time.Millisecond, time.Second, 5 * time.Second}
}

// resources tells which kinds the API server has in a group and version.
type resources interface {
	ServerResourcesForGroupVersionWithContext(ctx context.Context, groupVersion string) (*metav1.APIResourceList, error)
}

// feed watches the objects of families: from when their CRD comes, in the newest version that is served, until it goes. It is a source of a
// controller, which ends with the context of Start.
type feed struct {
	cache  cache.Cache
	server resources
	watch  watch
	ready  chan struct{} // closed when it was found out for the first time which kinds there are
	wake   chan struct{} // has room for one: a CRD has changed
	look   chan struct{} // has room for one: a kind may not be read

	rules  atomic.Bool // ruleFamilies are wanted, from now on
	passed atomic.Bool // and it was found out which of them there are

	listed  map[edge.Kind]bool      // those that may be listed, and not watched, when they were refused; only run asks for it
	doubted map[edge.Kind]time.Time // by the first kind of a watched family: since when the API server says that it has gone; only run asks for it

	mu               sync.RWMutex // guards the fields below; not held across I/O
	watched          map[edge.Kind]span
	blind, blindTold bool // CRDs may not be read, and that is in the log
}

// span is how long a kind is watched.
type span struct {
	ended context.Context // of the watch
	end   context.CancelFunc

	begun   time.Time
	synced  func() bool // it has been read
	refused bool        // the API server has refused to have it read, since it is watched
	hidden  bool        // it has, now or by the watch before, and nothing is known since
	told    bool        // those whom that concerns
}

func newSpan() span {
	var s span
	s.ended, s.end = context.WithCancel(context.Background())
	return s
}

func newFeed(c cache.Cache, server resources, w watch) *feed {
	return &feed{
		cache: c, server: server, watch: w, ready: make(chan struct{}), wake: make(chan struct{}, 1), look: make(chan struct{}, 1),
		doubted: map[edge.Kind]time.Time{}, listed: map[edge.Kind]bool{}, watched: map[edge.Kind]span{},
	}
}

// Start begins to watch, and does not block.
func (f *feed) Start(ctx context.Context, q queue) error {
	go f.run(ctx, q)
	return nil
}

// WaitForSync waits until it is known which kinds there are. What there is of them is waited for by whoever reads it.
func (f *feed) WaitForSync(ctx context.Context) error {
	select {
	case <-f.ready:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("find out which kinds of routes and gateways the API server knows: %w", ctx.Err())
	}
}

func (f *feed) String() string { return "kinds that come and go" }

// kind is that of a family which is watched: the newest, while two are.
func (f *feed) kind(of family) (edge.Kind, bool) {
	k, _, is := f.present(of)
	return k, is
}

// present is kind, with the span of its watch.
func (f *feed) present(of family) (edge.Kind, span, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	for _, k := range of {
		if s, is := f.watched[k]; is {
			return k, s, true
		}
	}
	return edge.Kind{}, span{}, false
}

// wantRules has ruleFamilies be watched from now on, and says whether it is known which of them there are. Whoever wants them is told when it is.
func (f *feed) wantRules() bool {
	if !f.rules.Swap(true) {
		select {
		case f.wake <- struct{}{}:
		default: // it is awake
		}
	}
	return f.passed.Load()
}

func (f *feed) watches(k edge.Kind) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	_, is := f.watched[k]
	return is
}

func (f *feed) run(ctx context.Context, q queue) {
	synced := f.watchCRDs(ctx)
	first := sync.OnceFunc(func() { close(f.ready) })
	known := false
	for i := 0; ; i++ {
		wait := asleep
		switch {
		case i < len(retries()):
			wait = retries()[i]
		case !known:
			wait = unknowing
		case len(f.doubted) > 0:
			wait = doubtful
		case !synced():
			wait = unwatched
		}
		switch f.rest(ctx, q, wait) {
		case restEnded:
			return
		case restWoken:
			i = 0
		case restOver:
		}
		err := f.pass(ctx, q)
		if known = err == nil; known {
			first()
		} else if ctx.Err() == nil {
			log.FromContext(ctx).Info("it is not known which kinds there are", "reason", err.Error())
		}
	}
}

// crdResource is that of CRDs.
func crdResource() schema.GroupResource {
	return schema.GroupResource{Group: "apiextensions.k8s.io", Resource: "customresourcedefinitions"}
}

// watchCRDs has changes of the CRDs of families wake the feed. Of CRDs nothing is kept but the name. The function that it returns says whether they
// are watched by now.
func (f *feed) watchCRDs(ctx context.Context) (synced func() bool) {
	names := map[string]bool{}
	for _, fam := range append(families(), ruleFamilies()...) {
		names[fam[0].Resource+"."+fam[0].Group] = true
	}
	crd := &metav1.PartialObjectMetadata{}
	crd.SetGroupVersionKind(schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"})
	informer, err := f.cache.GetInformer(ctx, crd, cache.BlockUntilSynced(false))
	if err != nil {
		log.FromContext(ctx).Info("CRDs are not watched", "reason", err.Error())
		return func() bool { return false }
	}
	changed := func(o any) {
		if gone, is := o.(toolscache.DeletedFinalStateUnknown); is {
			o = gone.Obj
		}
		if o, is := o.(client.Object); is && names[o.GetName()] {
			select {
			case f.wake <- struct{}{}:
			default: // it is awake
			}
		}
	}
	_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{AddFunc: changed, UpdateFunc: func(_, o any) { changed(o) }, DeleteFunc: changed})
	if err != nil {
		log.FromContext(ctx).Info("CRDs are not watched", "reason", err.Error())
		return func() bool { return false }
	}
	return informer.HasSynced
}

// pass begins to watch what has come, and ends what has gone. A family whose versions cannot be told stays as it is. So does one whose newest version
// cannot be watched; and one of which one answer alone says that it has gone: an API server may lag behind.
func (f *feed) pass(ctx context.Context, q queue) error {
	var errs []error
	known := map[string]map[string]bool{}
	changed, rules := false, f.rules.Load()
	all := families()
	if rules {
		all = append(all, ruleFamilies()...)
	}
	for _, fam := range all {
		want, there, err := f.served(ctx, fam, known)
		if err != nil {
			delete(f.doubted, fam[0])
			errs = append(errs, err)
			continue
		}
		if f.doubt(fam, there) {
			continue
		}
		if there && !f.watches(want) {
			if err := f.begin(ctx, want, q); err != nil {
				errs = append(errs, err)
				continue
			}
			changed = true
		}
		for _, k := range fam {
			if f.watches(k) && (!there || k != want) {
				changed = true
				if err := f.end(ctx, k); err != nil {
					errs = append(errs, err)
				}
			}
		}
	}
	if rules && len(errs) == 0 && !f.passed.Swap(true) {
		changed = true
	}
	if changed {
		f.watch.everybody(q)
	}
	return errors.Join(errs...)
}

// doubt says whether a family that is watched may be there still, although the API server has just said otherwise: until it has said so for some time.
func (f *feed) doubt(fam family, there bool) bool {
	if _, watched := f.kind(fam); there || !watched {
		delete(f.doubted, fam[0])
		return false
	}
	since, is := f.doubted[fam[0]]
	if !is {
		f.doubted[fam[0]] = time.Now()
		return true
	}
	if time.Since(since) < doubtful {
		return true
	}
	delete(f.doubted, fam[0])
	return false
}

// served is the newest version of a family that the API server has. known is what it was asked for before, by group and version.
func (f *feed) served(ctx context.Context, fam family, known map[string]map[string]bool) (edge.Kind, bool, error) {
	for _, k := range fam {
		version := k.APIVersion()
		if known[version] == nil {
			list, err := f.server.ServerResourcesForGroupVersionWithContext(ctx, version)
			if err != nil && !apierrors.IsNotFound(err) {
				return edge.Kind{}, false, fmt.Errorf("ask for the kinds of %s: %w", version, err)
			}
			known[version] = map[string]bool{}
			if err == nil {
				for i := range list.APIResources {
					known[version][list.APIResources[i].Name] = true
				}
			}
		}
		if known[version][k.Resource] {
			return k, true, nil
		}
	}
	return edge.Kind{}, false, nil
}

func typeOf(k edge.Kind) *unstructured.Unstructured {
	o := &unstructured.Unstructured{}
	o.SetAPIVersion(k.APIVersion())
	o.SetKind(k.Kind)
	return o
}

// begin to watch a kind.
func (f *feed) begin(ctx context.Context, k edge.Kind, q queue) error {
	informer, err := f.cache.GetInformer(ctx, typeOf(k), cache.BlockUntilSynced(false))
	if err != nil {
		return fmt.Errorf("watch objects of kind %s: %w", k.Kind, err)
	}
	_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc: func(o any) {
			if o, is := o.(client.Object); is {
				f.watch.Create(ctx, cr.CreateEvent{Object: o}, q)
			}
		},
		UpdateFunc: func(before, after any) {
			if before, is := before.(client.Object); is {
				if after, is := after.(client.Object); is {
					f.watch.Update(ctx, cr.UpdateEvent{ObjectOld: before, ObjectNew: after}, q)
				}
			}
		},
		DeleteFunc: func(o any) {
			if gone, is := o.(toolscache.DeletedFinalStateUnknown); is {
				o = gone.Obj
			}
			if o, is := o.(client.Object); is {
				f.watch.Delete(ctx, cr.DeleteEvent{Object: o}, q)
			}
		},
	})
	if err != nil {
		return errors.Join(fmt.Errorf("watch objects of kind %s: %w", k.Kind, err), f.cache.RemoveInformer(ctx, typeOf(k)))
	}
	s := newSpan()
	s.begun, s.synced = time.Now(), informer.HasSynced
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watched[k] = s
	return nil
}

// end the watch of a kind, and forget its objects. Who waits for them would wait in vain where they have not come yet, and is told.
func (f *feed) end(ctx context.Context, k edge.Kind) error {
	f.mu.Lock()
	s := f.watched[k]
	delete(f.watched, k)
	f.mu.Unlock()
	s.end()
	if err := f.cache.RemoveInformer(ctx, typeOf(k)); err != nil {
		return fmt.Errorf("end the watch of objects of kind %s: %w", k.Kind, err)
	}
	return nil
}

var _ source.TypedSyncingSource[reconcile.Request] = (*feed)(nil)
