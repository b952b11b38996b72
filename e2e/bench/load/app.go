// Package load has what runs at the two ends of tunnels in a benchmark: the loads of a client, and the application that
// answers them. The first byte of a tunnel names the load to the application.
package load

import (
	"io"
	"net"
	"sync/atomic"
)

// The first byte of a tunnel.
const (
	modeSink   = 'u' // the application reads
	modeSource = 'd' // the application writes
	modeEcho   = 'e' // the application sends everything back, the mode too
)

const (
	readSize  = 64 << 10
	writeSize = 256 << 10
)

// App answers loads. The zero value is ready.
type App struct {
	Counters
	next atomic.Int64
	kept []net.Conn
}

// Keep holds a tunnel and does nothing with it. It must not be called by two goroutines at once.
func (a *App) Keep(c net.Conn) {
	if a.kept == nil {
		a.kept = make([]net.Conn, 0, 1<<17) // before anybody weighs this process
	}
	a.kept = append(a.kept, c)
	a.active.Add(1)
}

// Handle serves one tunnel to its end and closes it.
func (a *App) Handle(c net.Conn) {
	a.active.Add(1)
	defer a.active.Add(-1)
	defer c.Close()
	var mode [1]byte
	if _, err := io.ReadFull(c, mode[:]); err != nil {
		return
	}
	shard := int(a.next.Add(1) % shards)
	switch mode[0] {
	case modeSink:
		a.sink(c, shard)
	case modeSource:
		a.source(c, shard)
	case modeEcho:
		a.echo(c)
	}
}

func (a *App) sink(c net.Conn, shard int) {
	in := &a.shard[shard].in
	buf := make([]byte, readSize)
	for {
		n, err := c.Read(buf)
		in.Add(int64(n))
		if err != nil {
			return
		}
	}
}

// source writes until the other end has gone, which some peers show as the end of what they send only.
func (a *App) source(c net.Conn, shard int) {
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		var b [1]byte
		_, _ = c.Read(b[:]) // whatever it is, it is the end
		c.Close()
	}()
	out := &a.shard[shard].out
	buf := make([]byte, writeSize)
	for {
		n, err := c.Write(buf)
		out.Add(int64(n))
		if err != nil {
			break
		}
	}
	c.Close()
	<-gone
}

func (a *App) echo(c net.Conn) {
	buf := make([]byte, 512)
	buf[0] = modeEcho
	n := 1
	for {
		if _, err := c.Write(buf[:n]); err != nil {
			return
		}
		var err error
		if n, err = c.Read(buf); err != nil {
			return
		}
	}
}
