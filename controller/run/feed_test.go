package run

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// kindsServer tells of resources, by group and version.
type kindsServer struct {
	mu   sync.Mutex
	has  map[string][]string
	err  error
	asks int
}

func (s *kindsServer) ServerResourcesForGroupVersionWithContext(_ context.Context, version string) (*metav1.APIResourceList, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asks++
	if s.err != nil {
		return nil, s.err
	}
	if s.has[version] == nil {
		return nil, apierrors.NewNotFound(schema.GroupResource{}, version)
	}
	list := &metav1.APIResourceList{}
	for _, name := range s.has[version] {
		list.APIResources = append(list.APIResources, metav1.APIResource{Name: name})
	}
	return list, nil
}

func (s *kindsServer) set(version string, resources ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.has[version] = resources
}

func (s *kindsServer) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *kindsServer) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asks
}

// informers are the part of a cache that a feed needs.
type informers struct {
	cache.Cache
	mu     sync.Mutex
	of     map[string]*informer // by apiVersion and kind
	synced bool
	err    error    // of whoever begins to watch a kind
	log    []string // what was begun and ended
}

type informer struct {
	cache.Informer
	handler toolscache.ResourceEventHandler
	synced  atomic.Bool
}

func newInformer(synced bool) *informer {
	i := &informer{}
	i.synced.Store(synced)
	return i
}

func (i *informer) AddEventHandler(h toolscache.ResourceEventHandler) (toolscache.ResourceEventHandlerRegistration, error) {
	i.handler = h
	return nil, nil
}

func (i *informer) HasSynced() bool { return i.synced.Load() }

func nameOf(o client.Object) string {
	version, kind := o.GetObjectKind().GroupVersionKind().ToAPIVersionAndKind()
	return version + " " + kind
}

func (c *informers) GetInformer(_ context.Context, o client.Object, _ ...cache.InformerGetOption) (cache.Informer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return nil, c.err
	}
	c.log = append(c.log, "+"+nameOf(o))
	i := newInformer(c.synced)
	c.of[nameOf(o)] = i
	return i, nil
}

func (c *informers) RemoveInformer(_ context.Context, o client.Object) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log = append(c.log, "-"+nameOf(o))
	delete(c.of, nameOf(o))
	return nil
}

func (c *informers) watched() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var names []string
	for name := range c.of {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

func (c *informers) handler(name string) toolscache.ResourceEventHandler {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.of[name].handler
}

const crds = "apiextensions.k8s.io/v1 CustomResourceDefinition"

// feeding runs a feed in a bubble of synctest, for a reconciler that knows of one edge, the ends of which are the test's.
func feeding(t *testing.T, s *kindsServer, c *informers, do func(t *testing.T, f *feed, q queue), loggers ...logr.Logger) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		q := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]())
		r := &reconciler{}
		r.concerns.note(types.NamespacedName{Namespace: "edge", Name: "public"}, newScope("edge.public", "edge"))
		f := newFeed(c, s, watch{r})
		ctx, cancel := context.WithCancel(t.Context())
		for _, l := range loggers {
			ctx = log.IntoContext(ctx, l)
		}
		if err := f.Start(ctx, q); err != nil {
			t.Fatal(err)
		}
		do(t, f, q)
		cancel()
		q.ShutDown()
		synctest.Wait()
	})
}

// taken takes what was asked for from a queue.
func taken(q queue) (n int) {
	for q.Len() > 0 {
		r, _ := q.Get()
		q.Done(r)
		n++
	}
	return n
}

func TestKindsAreWatchedWhileTheyAreThere(t *testing.T) {
	s := &kindsServer{has: map[string][]string{"gateway.networking.k8s.io/v1alpha2": {"tcproutes", "tlsroutes"}, "gateway.networking.k8s.io/v1": {"grpcroutes", "gateways"}}}
	c := &informers{of: map[string]*informer{}, synced: true}
	feeding(t, s, c, func(t *testing.T, f *feed, q queue) {
		if err := f.WaitForSync(t.Context()); err != nil {
			t.Fatal(err)
		}
		const v1, v1alpha2 = "gateway.networking.k8s.io/v1 ", "gateway.networking.k8s.io/v1alpha2 "
		is := func(when string, want ...string) {
			t.Helper()
			if got := c.watched(); got != strings.Join(want, ", ") {
				t.Errorf("%s: watched are %s, want %v", when, got, want)
			}
		}
		is("at first", crds, v1+"GRPCRoute", v1alpha2+"TCPRoute", v1alpha2+"TLSRoute")
		if k, ok := f.kind(otherRoutes()[2]); !ok || k.Version != "v1alpha2" {
			t.Errorf("TCPRoutes are %+v, %v", k, ok)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		taken(q)
		changed := func(name string) {
			crd := &metav1.PartialObjectMetadata{}
			crd.Name = name
			c.handler(crds).OnUpdate(crd, crd)
			time.Sleep(time.Millisecond)
			synctest.Wait()
		}
		before := s.asked()
		changed("orders.example.com")
		if s.asked() != before {
			t.Error("a CRD of no concern makes it ask")
		}
		s.set("gateway.networking.k8s.io/v1", "grpcroutes", "tcproutes", "listenersets")
		changed("tcproutes.gateway.networking.k8s.io")
		is("with a newer version", crds, v1+"GRPCRoute", v1+"ListenerSet", v1+"TCPRoute", v1alpha2+"TLSRoute")
		if n := taken(q); n != 1 {
			t.Errorf("%d edges are asked for, as kinds have changed", n)
		}
		s.set("gateway.networking.k8s.io/v1alpha2")
		s.set("gateway.networking.k8s.io/v1", "grpcroutes")
		c.handler(crds).OnDelete(toolscache.DeletedFinalStateUnknown{Obj: &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: "tlsroutes.gateway.networking.k8s.io"}}})
		time.Sleep(10 * time.Second)
		synctest.Wait()
		is("when they have gone", crds, v1+"GRPCRoute")
		if _, ok := f.kind(otherRoutes()[1]); ok {
			t.Error("TLSRoutes have gone, and are taken to be there")
		}
	})
}

func TestWhatIsNotKnownOfKindsStays(t *testing.T) {
	s := &kindsServer{has: map[string][]string{"gateway.networking.k8s.io/v1": {"grpcroutes"}}, err: errors.New("away")}
	c := &informers{of: map[string]*informer{}} // CRDs cannot be watched
	feeding(t, s, c, func(t *testing.T, f *feed, _ queue) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := f.WaitForSync(ctx); err == nil {
			t.Error("it is ready, and knows nothing")
		}
		s.fail(nil)
		begin := time.Now()
		if err := f.WaitForSync(t.Context()); err != nil || time.Since(begin) > 10*time.Second {
			t.Errorf("it is ready after %v, %v", time.Since(begin), err)
		}
		synctest.Wait()
		s.fail(errors.New("away"))
		time.Sleep(2 * time.Minute)
		if _, ok := f.kind(otherRoutes()[0]); !ok {
			t.Error("the API server is away, and a kind is taken to have gone")
		}
		s.fail(nil)
		s.set("gateway.networking.k8s.io/v1", "grpcroutes", "udproutes")
		time.Sleep(unwatched + 10*time.Second)
		if _, ok := f.kind(otherRoutes()[3]); !ok {
			t.Error("a kind that has come is not seen, as CRDs are not watched")
		}
	})
}

// crdChanged has a feed ask which kinds there are, and waits until it has done so once.
func crdChanged(c *informers, name string) {
	crd := &metav1.PartialObjectMetadata{}
	crd.Name = name
	c.handler(crds).OnUpdate(crd, crd)
	time.Sleep(time.Millisecond)
	synctest.Wait()
}

func (c *informers) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}

func TestANewerVersionIsWatchedBeforeTheOldOneIsLeft(t *testing.T) {
	const v1, v1alpha2 = "gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1alpha2"
	s := &kindsServer{has: map[string][]string{v1alpha2: {"tcproutes"}}}
	c := &informers{of: map[string]*informer{}, synced: true}
	feeding(t, s, c, func(t *testing.T, f *feed, q queue) {
		if err := f.WaitForSync(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		taken(q)
		c.log = nil
		c.fail(errors.New("not now"))
		s.set(v1, "tcproutes")
		crdChanged(c, "tcproutes.gateway.networking.k8s.io")
		asked := s.asked()
		for range 30 {
			time.Sleep(time.Second)
			synctest.Wait()
			if n := taken(q); n > 0 {
				t.Error("edges are asked for, and nothing has changed")
				break
			}
		}
		if s.asked() == asked {
			t.Error("it does not try again")
		}
		if k, ok := f.kind(otherRoutes()[2]); !ok || k.Version != "v1alpha2" {
			t.Errorf("while the newer version cannot be watched, TCPRoutes are %+v, %v", k, ok)
		}
		c.fail(nil)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got, want := strings.Join(c.log, ", "), "+"+v1+" TCPRoute, -"+v1alpha2+" TCPRoute"; got != want {
			t.Errorf("it went %s, want %s", got, want)
		}
		if n := taken(q); n != 1 {
			t.Errorf("%d edges are asked for, as kinds have changed", n)
		}
	})
}

func TestOneAnswerDoesNotEndAWatch(t *testing.T) {
	const v1 = "gateway.networking.k8s.io/v1"
	s := &kindsServer{has: map[string][]string{v1: {"tcproutes"}}}
	c := &informers{of: map[string]*informer{}, synced: true}
	feeding(t, s, c, func(t *testing.T, f *feed, q queue) {
		if err := f.WaitForSync(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		taken(q)
		c.log = nil
		s.set(v1, "grpcroutes")
		crdChanged(c, "tcproutes.gateway.networking.k8s.io")
		time.Sleep(3 * time.Second) // it has asked three times
		s.set(v1, "tcproutes", "grpcroutes")
		time.Sleep(time.Hour)
		synctest.Wait()
		if got, want := strings.Join(c.log, ", "), "+"+v1+" GRPCRoute"; got != want {
			t.Errorf("after an API server that lagged: %s, want %s", got, want)
		}
		c.log = nil
		s.set(v1, "grpcroutes") // what nobody tells it
		time.Sleep(asleep + 2*doubtful)
		synctest.Wait()
		if got, want := strings.Join(c.log, ", "), "-"+v1+" TCPRoute"; got != want {
			t.Errorf("after it has gone: %s, want %s", got, want)
		}
	})
}

// TestAWatchThatHasJustEndedIsNotAnEmptyList: whoever reads in between must not take what there was to be gone.
func TestAWatchThatHasJustEndedIsNotAnEmptyList(t *testing.T) {
	k := otherRoutes()[2][0]
	f := newFeed(nil, nil, watch{})
	f.watched[k] = newSpan()
	v := &vendors{feed: f}
	r := unread{&cache.ErrResourceNotCached{}}
	if list, err := v.read(t.Context(), r, otherRoutes()[2]); err == nil || !strings.Contains(err.Error(), k.Kind) {
		t.Errorf("got %v, %v, want an error that names it", list, err)
	}
	if list, err := v.read(t.Context(), r, otherRoutes()[1]); err != nil || len(list) > 0 {
		t.Errorf("a kind that is not there: %v, %v", list, err)
	}
}

// TestAWatchThatEndsKeepsNobodyWaiting: a cache that has let go of a kind never fills with it, and whoever waits for that learns it from the feed.
func TestAWatchThatEndsKeepsNobodyWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fam := otherRoutes()[2]
		f := newFeed(&informers{of: map[string]*informer{}}, nil, watch{&reconciler{}})
		if err := f.begin(t.Context(), fam[0], nil); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		answer := make(chan error, 1)
		go func() {
			_, err := (&vendors{feed: f}).read(t.Context(), unfilled{}, fam)
			answer <- err
		}()
		time.Sleep(time.Second)
		if err := f.end(t.Context(), fam[0]); err != nil {
			t.Fatal(err)
		}
		if err := <-answer; err == nil || !strings.Contains(err.Error(), "has just ended") || time.Since(begin) != time.Second {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
		if err := f.begin(t.Context(), fam[0], nil); err != nil { // it comes again
			t.Fatal(err)
		}
		begin = time.Now()
		if _, err := (&vendors{feed: f}).read(t.Context(), unfilled{}, fam); err == nil || strings.Contains(err.Error(), "ended") || time.Since(begin) != listTimeout {
			t.Errorf("a cache that does not fill: after %v: %v", time.Since(begin), err)
		}
	})
}

// unfilled is a cache that waits for objects which do not come.
type unfilled struct{ client.Reader }

func (unfilled) List(ctx context.Context, _ client.ObjectList, _ ...client.ListOption) error {
	<-ctx.Done()
	return apierrors.NewTimeoutError("failed waiting for the informer to sync", 0)
}

// unread fails to list.
type unread struct{ err error }

func (u unread) Get(context.Context, client.ObjectKey, client.Object, ...client.GetOption) error {
	return u.err
}
func (u unread) List(context.Context, client.ObjectList, ...client.ListOption) error { return u.err }
