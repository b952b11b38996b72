package run

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
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
}

type informer struct {
	cache.Informer
	handler toolscache.ResourceEventHandler
	synced  bool
}

func (i *informer) AddEventHandler(h toolscache.ResourceEventHandler) (toolscache.ResourceEventHandlerRegistration, error) {
	i.handler = h
	return nil, nil
}

func (i *informer) HasSynced() bool { return i.synced }

func nameOf(o client.Object) string {
	version, kind := o.GetObjectKind().GroupVersionKind().ToAPIVersionAndKind()
	return version + " " + kind
}

func (c *informers) GetInformer(_ context.Context, o client.Object, _ ...cache.InformerGetOption) (cache.Informer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := &informer{synced: c.synced}
	c.of[nameOf(o)] = i
	return i, nil
}

func (c *informers) RemoveInformer(_ context.Context, o client.Object) error {
	c.mu.Lock()
	defer c.mu.Unlock()
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
func feeding(t *testing.T, s *kindsServer, c *informers, do func(t *testing.T, f *feed, q queue)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		q := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]())
		r := &reconciler{}
		r.concerns.note(types.NamespacedName{Namespace: "edge", Name: "public"}, newScope("edge.public", "edge"))
		f := newFeed(c, s, watch{r})
		ctx, cancel := context.WithCancel(t.Context())
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
