package wds

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isthmus-mesh/isthmus/hbone/route"
	"github.com/isthmus-mesh/isthmus/hbone/wds/wdstest"
)

// each is how many workloads a Service has here.
const each = 10

func scaleConfig(istiod *wdstest.Istiod, wildcard bool) Config {
	return Config{
		Addresses: []string{istiod.Addr()}, Roots: istiod.Roots, Token: wdstest.Token, Wildcard: wildcard, MaxNames: 20_000,
		Node: Node{IP: netip.MustParseAddr("10.244.9.9"), Pod: "edge-1", Namespace: "edge"},
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// loaded is a client of a mesh, and what it took to load it.
func loaded(tb testing.TB, services int) (*Client, *wdstest.Istiod, time.Duration) {
	tb.Helper()
	istiod := wdstest.New(tb)
	istiod.Fill(services, each)
	start := time.Now()
	c, err := New(scaleConfig(istiod, true))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := c.Ready(ctx); err != nil {
		tb.Fatal(err)
	}
	took := time.Since(start)
	if st := c.Stats(); st.Services != services || st.Workloads != services*each {
		tb.Fatalf("%+v", st)
	}
	return c, istiod, took
}

// delta is what istiod sends when a workload has changed.
func delta(n, m, version int) *discovery.DeltaDiscoveryResponse {
	w := wdstest.FillWorkload(n, m)
	w.Capacity = uint32(1 + version%2)
	return &discovery.DeltaDiscoveryResponse{TypeUrl: addressType, Nonce: "n", Resources: []*discovery.Resource{{
		Name: w.UID, Version: strconv.Itoa(version), Aliases: []string{"/" + w.Addresses[0].String()},
		Resource: &anypb.Any{TypeUrl: addressType, Value: wdstest.EncodeWorkload(w)},
	}}}
}

func addressOf(n int) string { return wdstest.FillService(n).Hostname + ":80" }

// perWorkload is what a workload may take, its share of its Service included.
const perWorkload = 1024

func TestMemoryOfAWildcardClient(t *testing.T) {
	const services = 2000
	istiod := wdstest.New(t)
	istiod.Fill(services, each)
	before := heap()
	c, err := New(scaleConfig(istiod, true))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := (heap() - before) / (services * each); got > perWorkload {
		t.Errorf("%d bytes a workload", got)
	}
	runtime.KeepAlive(istiod)
}

// On demand a client holds what it was asked for, however large the mesh is.
func TestMemoryOnDemandIsOfWhatIsUsed(t *testing.T) {
	istiod := wdstest.New(t)
	istiod.Fill(3000, each)
	c, err := New(scaleConfig(istiod, false))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	before := heap()
	for n := range 100 {
		if _, err := c.Resolve(t.Context(), "tcp", addressOf(7*n)); err != nil {
			t.Fatal(err)
		}
	}
	// Each with its pods, its ways, and what the istiod of the test notes of it; ways that kept old tables alive took three times as much.
	if got := (heap() - before) / 100; got > 20*perWorkload {
		t.Errorf("%d bytes a name", got)
	}
	if st := c.Stats(); st.Services != 100 || st.Workloads != 100*each || st.Names != 101 {
		t.Errorf("%+v", st)
	}
}

// A look-up of what is known waits for no lock and allocates nothing, also after a change elsewhere.
func TestLookupsWaitForNobody(t *testing.T) {
	c, _, _ := loaded(t, 20)
	ctx, address := t.Context(), addressOf(7)
	resolve := func() {
		if _, err := c.Resolve(ctx, "tcp", address); err != nil {
			t.Fatal(err)
		}
	}
	for range 1000 { // each of its endpoints is chosen once
		resolve()
	}
	c.mu.Lock()
	got := testing.AllocsPerRun(100, resolve)
	c.mu.Unlock()
	if got != 0 {
		t.Errorf("%v allocations", got)
	}
}

// Readers beside a writer see all of a change or nothing of it.
func TestReadersSeeWholeChanges(t *testing.T) {
	c := idle(t)
	c.cfg.Wildcard = true
	standing := &route.Service{
		Name: "w", Namespace: "edge", Hostname: "w.edge.svc.cluster.local", Ports: []route.Port{{Service: 15008, Target: 15008}},
	}
	at := &route.Workload{UID: "w-1", Name: "w-1", Namespace: "edge", Addresses: []netip.Addr{netip.MustParseAddr("10.9.9.9")}, Services: []route.Member{{Service: standing.Key()}}}
	open := wdstest.FillService(1)
	guarded := *open
	guarded.Waypoint = &route.Gateway{Host: route.Host{Namespace: "edge", Hostname: standing.Hostname}, Port: 15008}
	res := func(removed []string, services []*route.Service, workloads ...*route.Workload) *discovery.DeltaDiscoveryResponse {
		m := map[string]msg{}
		for _, s := range services {
			m[s.Key()] = wdstest.EncodeService(s)
		}
		for _, w := range workloads {
			m[w.UID] = wdstest.EncodeWorkload(w)
		}
		return response(addressType, removed, m)
	}
	c.take(res(nil, []*route.Service{open}, wdstest.FillWorkload(1, 0), wdstest.FillWorkload(1, 1)))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if r, err := c.Resolve(t.Context(), "tcp", addressOf(1)); err != nil || len(r.Hops) != 1 {
					t.Errorf("%+v, %v", r, err)
					return
				}
			}
		})
	}
	for range 1000 {
		c.take(res(nil, []*route.Service{&guarded, standing}, at))
		c.take(res([]string{standing.Key(), at.UID}, []*route.Service{open}))
		c.take(delta(1, 1, rand.IntN(1000)))
	}
	close(stop)
	wg.Wait()
}
