package carrier

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// ztunnelSizes are the DATA frames that ztunnel sends: small ones for the first 128 KiB of a tunnel, then as much as a TLS record holds.
func ztunnelSizes(sent int64) int {
	if sent < 128<<10 {
		return 1024
	}
	return 16320
}

func largeSizes(int64) int { return 64 << 10 }

// framesClient is an HTTP/2 client that only writes, in frames of chosen sizes. Each frame is one write to TLS, so that a frame
// that fits has a record of its own.
type framesClient struct {
	addr, target string
	id           *identity
	sizes        func(sent int64) int // the next frame's size

	mu   sync.Mutex // guards the field below, and the one handshake
	conn *framesConn
}

func (c *framesClient) Open(ctx context.Context) (net.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		config := c.id.tlsConfig()
		config.DynamicRecordSizingDisabled = true
		tc, err := dialTLS(ctx, c.addr, config)
		if err != nil {
			return nil, err
		}
		if c.conn, err = newFramesConn(tc, c.sizes); err != nil {
			return nil, err
		}
	}
	return c.conn.open(ctx, c.target)
}

// framesConn is its connection.
type framesConn struct {
	nc    net.Conn
	sizes func(int64) int

	mu      sync.Mutex // guards the fields below, and writes to nc
	change  sync.Cond
	fr      *http2.Framer
	enc     *hpack.Encoder
	block   bytes.Buffer
	nextID  uint32
	window  int64 // of the connection
	initial int64 // of a stream
	streams map[uint32]*framesStream
	err     error
	out     []byte
}

// framesStream is a tunnel that is only written to.
type framesStream struct {
	noDeadlines
	c        *framesConn
	id       uint32
	window   int64
	sent     int64
	answered chan struct{}
	over     bool
}

func newFramesConn(nc net.Conn, sizes func(int64) int) (*framesConn, error) {
	c := &framesConn{nc: nc, sizes: sizes, nextID: 1, window: 65535, initial: 65535, streams: map[uint32]*framesStream{}}
	c.change.L = &c.mu
	c.fr = http2.NewFramer(nc, nc)
	c.fr.SetMaxReadFrameSize(1 << 20)
	c.enc = hpack.NewEncoder(&c.block)
	if _, err := nc.Write([]byte(http2.ClientPreface)); err != nil {
		return nil, err
	}
	if err := c.fr.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 0}); err != nil {
		return nil, err
	}
	settled := make(chan struct{})
	go c.read(settled)
	<-settled
	c.mu.Lock()
	defer c.mu.Unlock()
	return c, c.err
}

// read follows what the server sends until the connection ends. settled is closed with its first frame.
func (c *framesConn) read(settled chan struct{}) {
	for first := true; ; first = false {
		f, err := c.fr.ReadFrame()
		c.mu.Lock()
		if err == nil {
			err = c.on(f)
		}
		if err != nil {
			c.err = err
			for _, s := range c.streams {
				s.finish()
			}
		}
		c.change.Broadcast()
		c.mu.Unlock()
		if first {
			close(settled)
		}
		if err != nil {
			return
		}
	}
}

// on follows one frame; mu is held.
func (c *framesConn) on(f http2.Frame) error {
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if f.IsAck() {
			return nil
		}
		if v, ok := f.Value(http2.SettingInitialWindowSize); ok {
			for _, s := range c.streams {
				s.window += int64(v) - c.initial
			}
			c.initial = int64(v)
		}
		return c.fr.WriteSettingsAck()
	case *http2.PingFrame:
		if f.IsAck() {
			return nil
		}
		return c.fr.WritePing(true, f.Data)
	case *http2.WindowUpdateFrame:
		if f.StreamID == 0 {
			c.window += int64(f.Increment)
		} else if s := c.streams[f.StreamID]; s != nil {
			s.window += int64(f.Increment)
		}
	case *http2.HeadersFrame:
		if s := c.streams[f.StreamID]; s != nil && !s.over {
			select {
			case <-s.answered:
			default:
				close(s.answered)
			}
		}
	case *http2.RSTStreamFrame:
		if s := c.streams[f.StreamID]; s != nil {
			s.finish()
		}
	case *http2.GoAwayFrame:
		return fmt.Errorf("the server sent GOAWAY %v %q", f.ErrCode, f.DebugData())
	}
	return nil
}

func (c *framesConn) open(ctx context.Context, target string) (net.Conn, error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return nil, c.err
	}
	s := &framesStream{c: c, id: c.nextID, window: c.initial, answered: make(chan struct{})}
	c.nextID += 2
	c.streams[s.id] = s
	c.block.Reset()
	err := errors.Join(
		c.enc.WriteField(hpack.HeaderField{Name: ":method", Value: "CONNECT"}),
		c.enc.WriteField(hpack.HeaderField{Name: ":authority", Value: target}),
		c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: s.id, BlockFragment: c.block.Bytes(), EndHeaders: true}))
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	select {
	case <-s.answered:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.over {
		return nil, fmt.Errorf("the tunnel did not open (%w)", errors.Join(c.err, net.ErrClosed))
	}
	return s, nil
}

// finish ends a stream; mu is held.
func (s *framesStream) finish() {
	if s.over {
		return
	}
	s.over = true
	delete(s.c.streams, s.id)
	select {
	case <-s.answered:
	default:
		close(s.answered)
	}
	s.c.change.Broadcast()
}

func (s *framesStream) Write(p []byte) (int, error) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for done := 0; ; {
		if done == len(p) {
			return done, nil
		}
		n := min(c.sizes(s.sent), len(p)-done)
		for min(s.window, c.window) < int64(n) && !s.over && c.err == nil {
			c.change.Wait()
		}
		if s.over || c.err != nil {
			return done, errors.Join(c.err, net.ErrClosed)
		}
		c.out = append(c.out[:0], byte(n>>16), byte(n>>8), byte(n), byte(http2.FrameData), 0)
		c.out = binary.BigEndian.AppendUint32(c.out, s.id)
		c.out = append(c.out, p[done:done+n]...)
		if _, err := c.nc.Write(c.out); err != nil {
			return done, err
		}
		s.window -= int64(n)
		c.window -= int64(n)
		s.sent += int64(n)
		done += n
	}
}

// Read is not for this client.
func (s *framesStream) Read([]byte) (int, error) { return 0, errors.ErrUnsupported }

func (s *framesStream) Close() error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.over {
		return nil
	}
	s.finish()
	return errors.Join(s.c.fr.WriteData(s.id, true, nil), s.c.fr.WriteRSTStream(s.id, http2.ErrCodeNo))
}
