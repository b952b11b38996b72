package hbone_test

import (
	"net"
	"testing"

	"github.com/isthmus-mesh/isthmus/hbone"
)

// A warm open, one byte each way and the close, both sides together.
func BenchmarkOpen(b *testing.B) {
	for name, optimistic := range map[string]bool{"answered": false, "optimistic": true} {
		b.Run(name, func(b *testing.B) {
			m := newMesh(b, echo, admitting)
			m.dialer.Optimistic = optimistic
			route := hbone.Route{Hops: []hbone.Hop{m.hop()}}
			go func() {
				buf := make([]byte, 1)
				for {
					c, err := m.server.Accept()
					if err != nil {
						return
					}
					serveOne(c, buf)
				}
			}()
			buf := make([]byte, 1)
			open := func() {
				c, err := m.dialer.DialRoute(b.Context(), route)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := c.Write(buf); err != nil {
					b.Fatal(err)
				}
				if _, err := c.Read(buf); err != nil {
					b.Fatal(err)
				}
				c.Close()
			}
			open()
			b.ReportAllocs()
			for b.Loop() {
				open()
			}
		})
	}
}

func serveOne(c net.Conn, buf []byte) {
	if _, err := c.Read(buf); err == nil {
		_, _ = c.Write(buf)
	}
	c.Close()
}
