package hbone_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/isthmus-mesh/isthmus/hbone"
)

// turning is a Resolver whose answer can be changed.
type turning struct {
	mu      sync.Mutex
	route   hbone.Route
	err     error
	changed chan struct{}
	asked   int
}

func (r *turning) Resolve(context.Context, string, string) (hbone.Route, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	return r.route, r.err
}

func (r *turning) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

// turn changes the answer to a hop of that kind and authority, or to an error.
func (r *turning) turn(hop hbone.Hop, kind hbone.HopKind, authority string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	hop.Kind, hop.Authority = kind, authority
	r.route, r.err = hbone.Route{Hops: []hbone.Hop{hop}}, err
	close(r.changed)
	r.changed = make(chan struct{})
}

// A kept tunnel is not used past a waypoint that came after it was opened, not even under steady load.
func TestTransportFollowsTheWay(t *testing.T) {
	for _, protocol := range []string{"HTTP/1.1", "h2c"} {
		t.Run(protocol, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				w := newWebMesh(t, func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/long" {
						<-release
					}
					fmt.Fprint(w, r.Context().Value(authorityKey{}))
				})
				ways := &turning{changed: make(chan struct{})}
				const pod, vip = "10.0.0.7:8080", "10.96.0.1:80"
				ways.turn(w.hop(), hbone.HopWorkload, pod, nil)
				w.dialer.Resolver = ways
				tr := &hbone.Transport{Dialer: w.dialer, H2C: func(*http.Request) bool { return protocol == "h2c" }}
				defer tr.CloseIdleConnections()
				want := func(authority string) {
					t.Helper()
					if b := get(t, tr, t.Context(), "http://orders/"); b != authority {
						t.Errorf("it went to %s, want %s", b, authority)
					}
				}
				want(pod)
				asked := ways.asked
				want(pod)
				if ways.asked != asked {
					t.Error("the resolver is asked though nothing has changed")
				}
				long := make(chan string)
				go func() { long <- get(t, tr, t.Context(), "http://orders/long") }()
				synctest.Wait()
				want(pod)

				// Another pod of the same kind is no reason to give up what is kept.
				ways.turn(w.hop(), hbone.HopWorkload, "10.0.0.7:8081", nil)
				want(pod)

				ways.turn(w.hop(), hbone.HopWaypoint, vip, nil)
				for range 3 {
					want(vip)
				}
				close(release) // what was under way ends in peace
				if b := <-long; b != pod {
					t.Errorf("a long request ended with %q", b)
				}
				synctest.Wait()
				if n := w.dialer.Stats().Tunnels; n != 1 {
					t.Errorf("%d tunnels are open, want the new one only", n)
				}

				ways.turn(w.hop(), hbone.HopWaypoint, vip, errors.New("the waypoint has no pods"))
				r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://orders/", nil)
				if err != nil {
					t.Fatal(err)
				}
				if res, err := tr.RoundTrip(r); err == nil {
					res.Body.Close()
					t.Error("a request went where no way leads any more")
				}
			})
		})
	}
}
