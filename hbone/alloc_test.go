package hbone_test

import (
	"net"
	"sync"
	"testing"

	"github.com/isthmus-mesh/isthmus/hbone"
)

// opener gives a function that makes a warm open, sends one byte each way and closes; the server is in the same process.
func opener(tb testing.TB, optimistic bool) func(buf []byte) {
	m := newMesh(tb, echo, admitting)
	m.dialer.Optimistic = optimistic
	route := hbone.Route{Hops: []hbone.Hop{m.hop()}}
	go func() {
		for {
			c, err := m.server.Accept()
			if err != nil {
				return
			}
			go serveOne(c)
		}
	}()
	open := func(buf []byte) {
		c, err := m.dialer.DialRoute(tb.Context(), route)
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

var oneByte = sync.Pool{New: func() any { return new([1]byte) }}

func serveOne(c net.Conn) {
	buf := oneByte.Get().(*[1]byte)
	if _, err := c.Read(buf[:]); err == nil {
		_, _ = c.Write(buf[:])
	}
	c.Close()
	oneByte.Put(buf)
}

func BenchmarkOpen(b *testing.B) {
	for name, optimistic := range map[string]bool{"answered": false, "optimistic": true} {
		b.Run(name+"/1", func(b *testing.B) {
			open := opener(b, optimistic)
			b.ReportAllocs()
			buf := make([]byte, 1)
			for b.Loop() {
				open(buf)
			}
		})
		b.Run(name+"/64", func(b *testing.B) {
			open := opener(b, optimistic)
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
