package hbone_test

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

func TestRetireEndsWhatWalksPastANewWaypoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newPipeMesh(t, nil)
		along := func(service string) hbone.Route {
			return hbone.Route{Hops: []hbone.Hop{{Kind: hbone.HopWorkload, Addr: pipeAddr, Authority: "10.0.0.7:80", Peers: []spiffeid.ID{sa("shop", "orders")}}}, Service: service}
		}
		dial := func(r hbone.Route) *hbone.Conn {
			c, err := m.dialer.DialRoute(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			works(t, c)
			return c
		}
		old := func(r hbone.Route) bool { return r.Service == "orders" }
		peaceful, stubborn, other := dial(along("orders")), dial(along("orders")), dial(along("cart"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		done := make(chan int, 1)
		start := time.Now()
		go func() { done <- m.dialer.Retire(ctx, old) }()
		synctest.Wait()
		works(t, peaceful)
		peaceful.Close()
		if n := <-done; n != 1 || time.Since(start) != time.Minute {
			t.Errorf("%d tunnels were reset after %v", n, time.Since(start))
		}
		if _, err := stubborn.Read(make([]byte, 1)); err == nil {
			t.Error("a tunnel past the waypoint lives")
		}
		works(t, other)
		if m.dialled.Load() != 1 {
			t.Error("the connection that others use was replaced")
		}
	})
}

func TestRetireClosesIdleConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newPipeMesh(t, nil)
		c := m.open(t)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if n := m.dialer.Retire(ended, func(hbone.Route) bool { return false }); n != 0 {
			t.Errorf("%d tunnels were reset", n)
		}
		works(t, c)
		c.Close()
		synctest.Wait()
		m.dialer.Retire(ended, func(hbone.Route) bool { return true })
		synctest.Wait()
		if st := m.pool.Stats(); st.Conns != 0 {
			t.Errorf("%+v", st)
		}
		c = m.open(t)
		if n := m.dialer.Retire(ended, func(hbone.Route) bool { return true }); n != 1 {
			t.Errorf("%d tunnels were reset", n)
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read gave %v", err)
		}
	})
}
