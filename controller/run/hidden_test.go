package run

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr/funcr"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// forbidden is what the API server says, as a reflector hands it on.
func forbidden(group, resource string) error {
	return fmt.Errorf("failed to list %s: %w", resource, apierrors.NewForbidden(schema.GroupResource{Group: group, Resource: resource}, "", errors.New("no")))
}

// sync has the informer of a kind be full.
func (c *informers) sync(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.of[name].synced.Store(true)
}

func (c *informers) times(entry string) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.log {
		if l == entry {
			n++
		}
	}
	return n
}

// TestAKindThatMayNotBeReadIsHidden: whoever waits for it is told at once, and so are the edges; it is tried again, and seen when the right is there.
func TestAKindThatMayNotBeReadIsHidden(t *testing.T) {
	const version, group = "gateway.envoyproxy.io/v1alpha1", "gateway.envoyproxy.io"
	const name = version + " BackendTrafficPolicy"
	fam := family{edge.Kind{Group: group, Version: "v1alpha1", Kind: "BackendTrafficPolicy", Resource: "backendtrafficpolicies"}}
	s := &kindsServer{has: map[string][]string{version: {"backendtrafficpolicies"}}}
	c := &informers{of: map[string]*informer{}}
	feeding(t, s, c, func(t *testing.T, f *feed, q queue) {
		if err := f.WaitForSync(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		taken(q)
		d := newDenied()
		d.tell(f.refused)
		begin := time.Now()
		answer := make(chan error, 1)
		v := &vendors{feed: f}
		go func() {
			_, err := v.read(t.Context(), unfilled{}, fam)
			answer <- err
		}()
		time.Sleep(time.Second)
		if !d.refused(forbidden(group, "backendtrafficpolicies")) {
			t.Error("a plan can be made without it, and it is said that none can")
		}
		err := <-answer
		if _, is := errors.AsType[*hiddenError](err); !is || time.Since(begin) != time.Second {
			t.Errorf("who waited was told after %v: %v", time.Since(begin), err)
		}
		hidden := func() bool {
			_, err := v.read(t.Context(), unread{}, fam)
			_, is := errors.AsType[*hiddenError](err)
			return is
		}
		synctest.Wait()
		if n := taken(q); n != 1 || !hidden() {
			t.Errorf("%d edges were told that it is hidden, which it is: %v", n, hidden())
		}
		for range 5 { // refused each time
			time.Sleep(retried + time.Millisecond)
			synctest.Wait()
			d.refused(forbidden(group, "backendtrafficpolicies"))
			time.Sleep(time.Millisecond)
		}
		synctest.Wait()
		if n, again := taken(q), c.times("+"+name); n != 0 || !hidden() || again < 4 || again > 8 {
			t.Errorf("refused again and again: %d edges were told, it was watched %d times, hidden %v", n, again, hidden())
		}
		time.Sleep(2 * retried) // nothing is refused now, and nothing has come
		synctest.Wait()
		if !hidden() {
			t.Error("nobody has read it yet, and it is not hidden")
		}
		c.sync(name)
		time.Sleep(retried + time.Millisecond)
		synctest.Wait()
		if n := taken(q); n != 1 || hidden() {
			t.Errorf("%d edges were told that it may be read, and it is hidden: %v", n, hidden())
		}
		again := c.times("+" + name)
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := taken(q); n != 0 || c.times("+"+name) != again {
			t.Errorf("with the right there: %d edges were told, and it was watched anew %d times", n, c.times("+"+name)-again)
		}
	})
}

// TestAKindThatMayBeListedAlone: it is not listed again and again; and that CRDs may not be read is in the log, once.
func TestAKindThatMayBeListedAlone(t *testing.T) {
	const version, group = "gateway.envoyproxy.io/v1alpha1", "gateway.envoyproxy.io"
	s := &kindsServer{has: map[string][]string{version: {"backendtrafficpolicies"}}}
	c := &informers{of: map[string]*informer{}, synced: true}
	var said bytes.Buffer
	feeding(t, s, c, func(t *testing.T, f *feed, q queue) {
		if err := f.WaitForSync(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		d := newDenied()
		d.tell(f.refused)
		before := c.times("+" + version + " BackendTrafficPolicy")
		for range 300 { // each second, as its watch fails at once
			d.refused(forbidden(group, "backendtrafficpolicies"))
			if !d.refused(forbidden("apiextensions.k8s.io", "customresourcedefinitions")) {
				t.Error("no plan can be made without CRDs, it is said")
			}
			time.Sleep(time.Second)
			synctest.Wait()
		}
		if n := c.times("+"+version+" BackendTrafficPolicy") - before; n < 8 || n > 11 {
			t.Errorf("it was listed %d times in five minutes", n)
		}
	}, funcr.New(func(_, args string) { said.WriteString(args + "\n") }, funcr.Options{}))
	for _, want := range []string{"objects may be listed and not watched", "CRDs may not be read: give the rights to list and watch them"} {
		if n := strings.Count(said.String(), want); n != 1 {
			t.Errorf("the log says %d times %q:\n%s", n, want, said.String())
		}
	}
}

// TestARefusalOfSomethingElseHidesNothing: of another kind, or of another nature.
func TestARefusalOfSomethingElseHidesNothing(t *testing.T) {
	fam := family{edge.Kind{Group: "gateway.envoyproxy.io", Version: "v1alpha1", Kind: "EnvoyProxy", Resource: "envoyproxies"}}
	f := newFeed(&informers{of: map[string]*informer{}, synced: true}, nil, watch{&reconciler{}})
	if err := f.begin(t.Context(), fam[0], nil); err != nil {
		t.Fatal(err)
	}
	d := newDenied()
	d.tell(f.refused)
	for _, err := range []error{forbidden("gateway.envoyproxy.io", "backendtrafficpolicies"), forbidden("", "envoyproxies"), errors.New("away"), apierrors.NewUnauthorized("who?")} {
		d.refused(err)
		if _, s, _ := f.present(fam); s.hidden {
			t.Errorf("%v hides EnvoyProxies", err)
		}
	}
	d.refused(forbidden("gateway.envoyproxy.io", "envoyproxies"))
	if _, s, _ := f.present(fam); !s.hidden {
		t.Error("it is not hidden")
	}
}

// TestWithoutACacheWhatMayNotBeReadIsHidden: from who is lenient alone.
func TestWithoutACacheWhatMayNotBeReadIsHidden(t *testing.T) {
	uses := edge.Uses()
	k := uses[slices.IndexFunc(uses, func(u edge.Use) bool { return u.Patch })].Kind // what undo reads
	r := unread{forbidden(k.Group, k.Resource)}
	s := &plan.Snapshot{Edge: deleted()}
	if err := (&vendors{lenient: true}).observe(t.Context(), r, s); err != nil || !slices.Contains(s.Hidden, k) {
		t.Errorf("hidden are %v, %v", s.Hidden, err)
	}
	if err := new(vendors).observe(t.Context(), r, &plan.Snapshot{Edge: deleted()}); !apierrors.IsForbidden(err) {
		t.Errorf("got %v, want what the API server said", err)
	}
}

// deleted is an AmbientEdge that is being deleted.
func deleted() *v1alpha1.AmbientEdge {
	now := metav1.Now()
	return &v1alpha1.AmbientEdge{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &now}}
}

// reviewer answers whether whoever asks has a right.
type reviewer struct {
	client.Client
	without []string // verb resource
	in      string   // the one namespace in which AmbientEdges may be read; empty: all
	mute    bool     // it does not answer

	mu    sync.Mutex
	asked int
}

func (r *reviewer) Create(_ context.Context, o client.Object, _ ...client.CreateOption) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mute {
		return errors.New("no answer")
	}
	switch o := o.(type) {
	case *authorizationv1.SelfSubjectAccessReview:
		r.asked++
		a := o.Spec.ResourceAttributes
		o.Status.Allowed = !slices.Contains(r.without, a.Verb+" "+a.Resource) && (a.Resource != "ambientedges" || r.in == "" || a.Namespace == r.in)
	case *authenticationv1.SelfSubjectReview:
		o.Status.UserInfo.Username = "system:serviceaccount:isthmus-system:isthmus-controller"
	default:
		return fmt.Errorf("%T is not known here", o)
	}
	return nil
}

func TestWhatNoPlanCanDoWithoutIsAwaited(t *testing.T) {
	for _, c := range []struct {
		name    string
		refused error
		without []string
		in      string
		spaces  []string
		mute    bool
		want    string
	}{
		{"two rights on two kinds", forbidden("apps", "daemonsets"), []string{"list daemonsets", "watch gateways"}, "", nil, false, "list daemonsets.apps, watch gateways.gateway.networking.k8s.io"},
		{"an API server that had not read its roles yet", forbidden("apps", "daemonsets"), nil, "", nil, false, ""},
		{"a kind of vendors", forbidden("gateway.envoyproxy.io", "envoyproxies"), []string{"list daemonsets"}, "", nil, false, ""},
		{"an API server that does not say more", forbidden("apps", "daemonsets"), nil, "", nil, true, "list daemonsets.apps, watch daemonsets.apps"},
		{"AmbientEdges of one namespace", forbidden("apps", "daemonsets"), []string{"list daemonsets"}, "edge", []string{"edge"}, false, "list daemonsets.apps"},
		{"AmbientEdges of another namespace", forbidden("isthmus.dev", "ambientedges"), nil, "edge", []string{"edge", "other"}, false, "list ambientedges.isthmus.dev in namespace other, watch ambientedges.isthmus.dev in namespace other"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDenied(c.spaces...)
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(time.Minute, func() { cancel(nil) })
				begin := time.Now()
				d.refused(c.refused)
				d.refused(c.refused)
				d.Guard(ctx, &reviewer{without: c.without, in: c.in, mute: c.mute}, cancel)
				err := context.Cause(ctx)
				select {
				case <-d.over:
				default:
					t.Error("caches keep waiting")
				}
				if c.want == "" {
					if !errors.Is(err, context.Canceled) || time.Since(begin) != time.Minute {
						t.Fatalf("got %v after %v, and nothing is missing", err, time.Since(begin))
					}
					return
				}
				missing, is := errors.AsType[*MissingReadsError](err)
				if !is || strings.Join(missing.Rights, ", ") != c.want || time.Since(begin) != settled {
					t.Errorf("got %v after %v", err, time.Since(begin))
				}
				if err != nil && !c.mute && !strings.HasPrefix(err.Error(), "system:serviceaccount:isthmus-system:isthmus-controller may not ") {
					t.Errorf("it does not say who: %v", err)
				}
			})
		})
	}
}

// TestWhatIsNeededIsWhatIsCached: a kind that is watched with its Go type and not among those that are needed would keep the controller waiting in silence.
func TestWhatIsNeededIsWhatIsCached(t *testing.T) {
	if have, want := len(neededResources()), len(kinds())+1; have != want {
		t.Errorf("%d resources are needed, %v; and %d kinds are watched", have, neededResources(), want)
	}
	for _, f := range families() {
		if needed(schema.GroupResource{Group: f[0].Group, Resource: f[0].Resource}) {
			t.Errorf("%s may be hidden, and is needed", f[0].Kind)
		}
	}
}

var _ cache.Cache = (*informers)(nil)
