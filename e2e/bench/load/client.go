package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Opener makes tunnels to an App.
type Opener interface {
	Open(ctx context.Context) (net.Conn, error)
}

// Kind is a load.
type Kind string

// The loads.
const (
	Up     Kind = "up"     // bytes from client to application
	Down   Kind = "down"   // bytes from application to client
	Echo   Kind = "echo"   // messages there and back, one at a time on each tunnel
	Open   Kind = "open"   // open a tunnel, send a byte, get it back, close
	Idle   Kind = "idle"   // open tunnels and leave them alone
	Beside Kind = "beside" // echo on one tunnel, and Bulk on another
)

// Spec is a load and its size.
type Spec struct {
	Kind    Kind
	Tunnels int   // how many at once
	Flow    int64 // bytes after which an Up takes a new tunnel; zero: never
	Bulk    Kind  // Up or Down, of Beside
	// Every is the time between the beginnings of two tunnels, the first of which work already. Zero: all open, then all begin.
	Every time.Duration
}

// message is how long a message of Echo is.
const message = 100

// Client runs one load at a time.
type Client struct {
	Counters
	opener Opener

	cancel context.CancelFunc
	stop   atomic.Bool
	wg     sync.WaitGroup

	mu    sync.Mutex // guards the fields below
	conns map[net.Conn]struct{}
	idle  []net.Conn
	err   error // of the first worker that failed
}

// NewClient makes a client that opens its tunnels by o.
func NewClient(o Opener) *Client { return &Client{opener: o, conns: map[net.Conn]struct{}{}} }

// Start begins s. It returns when every tunnel that s keeps is open.
func (c *Client) Start(s Spec) error {
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	c.stop.Store(false)
	c.err = nil
	if s.Kind == Idle {
		return c.openIdle(ctx, s.Tunnels)
	}
	if s.Kind == Open {
		for i := range s.Tunnels {
			c.wg.Go(func() { c.fail(c.opens(ctx, i%shards)) })
		}
		return nil
	}
	kinds := make([]Kind, s.Tunnels)
	for i := range kinds {
		kinds[i] = s.Kind
	}
	if s.Kind == Beside {
		kinds = []Kind{Echo, s.Bulk}
	}
	if err := c.begins(ctx, kinds, s); err != nil {
		return errors.Join(err, c.Stop())
	}
	return nil
}

// begins opens a tunnel for each kind and puts a worker on it.
func (c *Client) begins(ctx context.Context, kinds []Kind, s Spec) error {
	start := func(i int, nc net.Conn) {
		c.wg.Go(func() { c.fail(c.work(ctx, kinds[i], nc, i%shards, s.Flow)) })
	}
	if s.Every > 0 {
		for i, k := range kinds {
			nc, err := c.begin(ctx, k)
			if err != nil {
				return err
			}
			start(i, nc)
			time.Sleep(s.Every)
		}
		return nil
	}
	conns, err := c.open(ctx, kinds)
	if err != nil {
		return err
	}
	for i, nc := range conns {
		start(i, nc)
	}
	return nil
}

// openers is how many tunnels are opened at once.
const openers = 64

// open opens a tunnel for each kind and tells the application.
func (c *Client) open(ctx context.Context, kinds []Kind) ([]net.Conn, error) {
	conns := make([]net.Conn, len(kinds))
	return conns, parallel(len(kinds), func(i int) error {
		nc, err := c.begin(ctx, kinds[i])
		conns[i] = nc
		return err
	})
}

// parallel calls f for 0 to n-1 and returns the first error.
func parallel(n int, f func(i int) error) error {
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make(chan error, openers)
	for range min(n, openers) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				if err := f(int(i)); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}

// begin opens a tunnel of one kind.
func (c *Client) begin(ctx context.Context, k Kind) (net.Conn, error) {
	nc, err := c.opener.Open(ctx)
	if err != nil {
		return nil, fmt.Errorf("open a tunnel: %w", err)
	}
	c.active.Add(1)
	c.mu.Lock()
	c.conns[nc] = struct{}{}
	c.mu.Unlock()
	mode := map[Kind]byte{Up: modeSink, Down: modeSource, Echo: modeEcho}[k]
	b := []byte{mode}
	if _, err := nc.Write(b); err != nil {
		return nil, fmt.Errorf("write the first byte: %w", err)
	}
	if k == Echo {
		if _, err := io.ReadFull(nc, b); err != nil {
			return nil, fmt.Errorf("read the first byte: %w", err)
		}
	}
	return nc, nil
}

func (c *Client) end(nc net.Conn) {
	nc.Close()
	c.mu.Lock()
	_, mine := c.conns[nc]
	delete(c.conns, nc)
	c.mu.Unlock()
	if mine {
		c.active.Add(-1)
	}
}

// fail keeps an error that is not the consequence of Stop.
func (c *Client) fail(err error) {
	if err == nil || c.stop.Load() {
		return
	}
	c.shard[0].errs.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
}

// Stop ends the load, waits for its workers, and returns what went wrong before.
func (c *Client) Stop() error {
	c.stop.Store(true)
	c.mu.Lock()
	open := make([]net.Conn, 0, len(c.conns))
	for nc := range c.conns {
		open = append(open, nc)
	}
	c.mu.Unlock()
	grace := time.AfterFunc(stopGrace, func() {
		for _, nc := range open {
			nc.Close()
		}
	})
	c.wg.Wait()
	grace.Stop()
	if c.cancel != nil {
		c.cancel()
	}
	for _, nc := range open {
		c.end(nc)
	}
	for _, nc := range c.idle {
		if nc != nil {
			nc.Close()
			c.active.Add(-1)
		}
	}
	clear(c.idle)
	c.idle = c.idle[:0]
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// stopGrace is how long workers have to see that they should stop, before their tunnels close under them.
const stopGrace = 200 * time.Millisecond
