package hbone_test

import (
	"context"
	"net"
	"testing"

	"github.com/isthmus-mesh/isthmus/hbone"
)

// opener gives a function that makes a warm open, along a route or by what a Resolver says, sends one byte each way and closes; the server is in the same process.
func opener(tb testing.TB, optimistic, byName bool) func(buf []byte) {
	m := newMesh(tb, echo, admitting)
	m.dialer.Optimistic = optimistic
	route := hbone.Route{Hops: []hbone.Hop{m.hop()}}
	m.dialer.Resolver = hbone.ResolverFunc(func(context.Context, string, string) (hbone.Route, error) { return route, nil })
	dial := func() (net.Conn, error) { return m.dialer.DialRoute(tb.Context(), route) }
	if byName {
		dial = func() (net.Conn, error) { return m.dialer.DialContext(tb.Context(), "tcp", "orders:80") }
	}
	serving := make(chan net.Conn)
	for range 64 {
		go func() {
			buf := make([]byte, 1)
			for c := range serving {
				if _, err := c.Read(buf); err == nil {
					_, _ = c.Write(buf)
				}
				c.Close()
			}
		}()
	}
	go func() {
		defer close(serving)
		for {
			c, err := m.server.Accept()
			if err != nil {
				return
			}
			serving <- c
		}
	}()
	open := func(buf []byte) {
		c, err := dial()
		if err != nil {
			tb.Error(err)
			return
		}
		if _, err := c.Write(buf); err != nil {
			tb.Error(err)
		}
		if _, err := c.Read(buf); err != nil {
			tb.Error(err)
		}
		c.Close()
	}
	open(make([]byte, 1))
	return open
}

// BenchmarkOpenAllocations fails when a warm open with one byte each way and its close allocates more than it did, both ends together: a Conn at
// each end, the ConnectRequest and a goroutine's closure; the rest is crypto/tls's, one for each batch that arrives. It is a benchmark since the
// race detector, which tests run with, adds its own.
func BenchmarkOpenAllocations(b *testing.B) {
	for _, optimistic := range []bool{false, true} {
		for _, byName := range []bool{false, true} {
			b.Run(openName(optimistic, byName), func(b *testing.B) {
				open := opener(b, optimistic, byName)
				buf := make([]byte, 1)
				n := 1000.0
				for range 3 { // crypto/tls allocates for each read: how many records come at once is chance, which only adds
					n = min(n, testing.AllocsPerRun(300, func() { open(buf) }))
				}
				if n > 8 {
					b.Errorf("%v allocations an open", n)
				}
				for b.Loop() {
					open(buf)
				}
				b.ReportMetric(n, "allocs/open")
			})
		}
	}
}

func openName(optimistic, byName bool) string {
	name := "answered"
	if optimistic {
		name = "optimistic"
	}
	if byName {
		name += "/name"
	}
	return name
}

func BenchmarkOpen(b *testing.B) {
	for _, optimistic := range []bool{false, true} {
		for _, byName := range []bool{false, true} {
			name := openName(optimistic, byName)
			b.Run(name+"/1", func(b *testing.B) {
				open := opener(b, optimistic, byName)
				b.ReportAllocs()
				buf := make([]byte, 1)
				for b.Loop() {
					open(buf)
				}
			})
			b.Run(name+"/64", func(b *testing.B) {
				open := opener(b, optimistic, byName)
				b.ReportAllocs()
				b.SetParallelism(32)
				b.RunParallel(func(pb *testing.PB) {
					buf := make([]byte, 1)
					for pb.Next() {
						open(buf)
					}
				})
			})
		}
	}
}

// A cold dial: connect, handshake, CONNECT.
func BenchmarkHandshake(b *testing.B) {
	m := newMesh(b, echo, admitting)
	go func() {
		for {
			c, err := m.server.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	route := hbone.Route{Hops: []hbone.Hop{m.hop()}}
	b.ReportAllocs()
	for b.Loop() {
		d := &hbone.Dialer{Identity: m.source}
		c, err := d.DialRoute(b.Context(), route)
		if err != nil {
			b.Fatal(err)
		}
		c.Close()
		d.Close()
	}
}
