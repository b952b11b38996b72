package hbone_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/hbone/hbonetest"
	"golang.org/x/net/http2"
)

// forwarding has a server connect to where its tunnels want to go.
func forwarding(s *hbone.Server) {
	s.Connect = nil
	s.Forward = func(_ context.Context, r *hbone.ConnectRequest) (netip.AddrPort, error) { return r.Target, nil }
}

// ways are those in which a server reaches an application: by itself, by a connection whose descriptor it takes, and by one that is none of
// package net's.
func ways() map[string]func(*hbone.Server) {
	dial := func(wrap func(net.Conn) net.Conn) func(*hbone.Server) {
		return func(s *hbone.Server) {
			s.Connect = func(ctx context.Context, r *hbone.ConnectRequest) (net.Conn, error) {
				c, err := new(net.Dialer).DialContext(ctx, "tcp", r.Target.String())
				if err != nil {
					return nil, err
				}
				return wrap(c), nil
			}
		}
	}
	return map[string]func(*hbone.Server){
		"address":    forwarding,
		"connection": dial(func(c net.Conn) net.Conn { return c }),
		"wrapped":    dial(func(c net.Conn) net.Conn { return struct{ *net.TCPConn }{c.(*net.TCPConn)} }),
	}
}

func TestServersForward(t *testing.T) {
	for name, edit := range ways() {
		for _, optimistic := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				m := newMesh(t, echo, edit)
				m.dialer.Optimistic = optimistic
				want := make([]byte, 5<<20)
				_, _ = rand.Read(want)
				c := m.dial(t)
				defer c.Close()
				sent := make(chan error, 1)
				go func() {
					_, err := c.Write(want)
					sent <- errors.Join(err, c.CloseWrite())
				}()
				if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%d bytes of %d came back: %v", len(got), len(want), err)
				}
				if err := <-sent; err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func TestAnApplicationThatIsNotThereIs503(t *testing.T) {
	for name, edit := range ways() {
		t.Run(name, func(t *testing.T) {
			m := newMesh(t, echo, edit)
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			m.app = l.Addr().(*net.TCPAddr).AddrPort() // nobody's, soon
			l.Close()
			_, err = m.dialer.DialContext(t.Context(), "tcp", "orders:80")
			wantDialError(t, err, 503)
		})
	}
}

func TestForwardDecides(t *testing.T) {
	tests := map[string]struct {
		addr   netip.AddrPort
		err    error
		check  bool // by CheckLocal
		status int
	}{
		"CheckLocal":    {status: 400, check: true}, // loopback
		"a refusal":     {status: 403, err: &hbone.Refusal{Status: 403}},
		"an error":      {status: 503, err: syscall.ENOTSUP},
		"no address":    {status: 503},
		"a wrong zone":  {status: 503, addr: netip.MustParseAddrPort("[fe80::1%none]:80")},
		"no such local": {status: 503, addr: netip.MustParseAddrPort("127.0.0.1:1")},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := newMesh(t, echo, func(s *hbone.Server) {
				s.Forward = func(_ context.Context, r *hbone.ConnectRequest) (netip.AddrPort, error) {
					if tt.check {
						return r.Target, r.CheckLocal()
					}
					return tt.addr, tt.err
				}
			})
			_, err := m.dialer.DialContext(t.Context(), "tcp", "orders:80")
			wantDialError(t, err, tt.status)
		})
	}
}

// Abort ends a forwarded tunnel at both ends, and Done tells of it.
func TestAbortEndsAForwardedTunnel(t *testing.T) {
	for name, edit := range ways() {
		t.Run(name, func(t *testing.T) {
			seen := make(chan error, 1)
			requests := make(chan *hbone.ConnectRequest, 1)
			m := newMesh(t, func(c net.Conn) {
				_, err := io.Copy(io.Discard, c)
				seen <- err
				c.Close()
			}, func(s *hbone.Server) {
				edit(s)
				if forward := s.Forward; forward != nil {
					s.Forward = func(ctx context.Context, r *hbone.ConnectRequest) (netip.AddrPort, error) {
						requests <- r
						return forward(ctx, r)
					}
					return
				}
				connect := s.Connect
				s.Connect = func(ctx context.Context, r *hbone.ConnectRequest) (net.Conn, error) {
					requests <- r
					return connect(ctx, r)
				}
			})
			c := m.dial(t)
			r := <-requests
			r.Abort()
			<-r.Done()
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the client read %v", err)
			}
			if err := <-seen; !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the application read %v", err)
			}
		})
	}
}

// TestAnAnswerArrivesThoughItsApplicationTakesNoMore: an application that answers and closes without having read all resets its connection, behind the answer. The server finds
// that when it has more for it, or the end, and before the client has let the answer come.
func TestAnAnswerArrivesThoughItsApplicationTakesNoMore(t *testing.T) {
	for name, edit := range ways() {
		for what, frames := range map[string][]hbonetest.Frame{
			"more":             {hbonetest.Data{Stream: 1, Bytes: []byte("more")}},
			"the end":          {hbonetest.Data{Stream: 1, End: true}},
			"more and the end": {hbonetest.Data{Stream: 1, Bytes: []byte("more")}, hbonetest.Data{Stream: 1, End: true}},
		} {
			t.Run(name+", "+what, func(t *testing.T) {
				closed := make(chan struct{})
				m := newMesh(t, func(c net.Conn) {
					_, _ = io.ReadFull(c, make([]byte, 3))
					_, _ = io.WriteString(c, "the answer")
					c.Close() // with four bytes that it has not read
					close(closed)
				}, edit)
				nc, err := net.Dial("tcp", m.addr.String())
				if err != nil {
					t.Fatal(err)
				}
				p := hbonetest.DialTLS(t, nc, m.source, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
				p.Send(hbonetest.Open(1, m.app.String()), hbonetest.Data{Stream: 1, Bytes: []byte("request")})
				p.WantAnswer(1, 200)
				<-closed
				p.Send(frames...)
				p.WantQuiet()
				time.Sleep(20 * time.Millisecond) // a real clock: the kernel is part of this
				p.Send(hbonetest.WindowUpdate{Stream: 1, Increment: 100})
				p.WantData(1, []byte("the answer"))
				p.WantReset(1, http2.ErrCodeConnect)
			})
		}
	}
}
