package hbone_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/hbone/hbonetest"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
	"golang.org/x/net/http2"
)

// script is a dialer whose peer does what the test says, in memory and on synctest's clock.
type script struct {
	*pipeMesh
	network *hbonetest.Network
	l       *hbonetest.Listener
	orders  *identitytest.Source
}

const target = "10.0.0.7:80"

func newScript(t *testing.T) *script {
	t.Helper()
	s := &script{pipeMesh: &pipeMesh{ca: identitytest.NewCA(td), pool: &hbone.Pool{}}, network: new(hbonetest.Network)}
	s.source, s.orders = s.ca.Source(sa("edge", "gateway")), s.ca.Source(sa("shop", "orders"))
	var err error
	if s.l, err = s.network.Listen(pipeAddr); err != nil {
		t.Fatal(err)
	}
	s.dialer = &hbone.Dialer{Identity: s.source, Resolver: s.resolver(), NetDial: s.network.DialContext, Pool: s.pool}
	t.Cleanup(func() { s.pool.Close(); s.l.Close() })
	return s
}

// peer is the next connection's other end.
func (s *script) peer(t *testing.T, list ...http2.Setting) *hbonetest.Peer {
	t.Helper()
	return hbonetest.AcceptTLS(t, s.l, s.orders, list...)
}

// dial opens a tunnel beside the test.
func (s *script) dial(t *testing.T) *hbonetest.Call[net.Conn] {
	return hbonetest.Go(func() (net.Conn, error) { return s.dialer.DialContext(t.Context(), "tcp", "orders:80") })
}

func limit(n uint32) http2.Setting {
	return http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: n}
}

func got(t *testing.T, call *hbonetest.Call[net.Conn]) *hbone.Conn {
	t.Helper()
	c, err := call.Wait()
	if err != nil {
		t.Fatal(err)
	}
	return c.(*hbone.Conn)
}

func TestACONNECTThatWasNotProcessedIsMadeAgainElsewhere(t *testing.T) {
	tests := map[string]func(p *hbonetest.Peer, id uint32){
		"REFUSED_STREAM": func(p *hbonetest.Peer, id uint32) {
			p.Send(hbonetest.Reset{Stream: id, Code: http2.ErrCodeRefusedStream})
		},
		"GOAWAY below it": func(p *hbonetest.Peer, id uint32) { p.Send(hbonetest.GoAway{Last: id - 1}) },
	}
	for name, refuse := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScript(t)
				var again atomic.Int64
				s.dialer.Trace = &hbone.Trace{Refused: func(hbone.TraceTunnel) { again.Add(1) }}
				s.pool.MaxConns = 2
				call := s.dial(t)
				first := s.peer(t)
				refuse(first, first.WantConnect(target))
				second := s.peer(t)
				second.Send(hbonetest.Answer(second.WantConnect(target), 200))
				got(t, call).Close()
				if again.Load() != 1 {
					t.Errorf("the Trace was told of %d refusals", again.Load())
				}
			})
		})
	}
}

func TestRetriesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(t)
		s.pool.MaxConns = -1
		call := s.dial(t)
		p := s.peer(t)
		connects := 0
		for ; connects < 5; connects++ {
			p.Send(hbonetest.Reset{Stream: p.WantConnect(target), Code: http2.ErrCodeRefusedStream})
		}
		_, err := call.Wait()
		if e := wantDialError(t, err, 0); e.Sent || !hbone.SafeToRetry(err) {
			t.Errorf("the peer did not act on it: %v", err)
		}
	})
}

// Envoy closes the connection, and with it all tunnels, at the stream beyond its limit.
func TestThePeersLimitIsNeverExceeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(t)
		var peers []*hbonetest.Peer
		for tunnels := range 8 {
			call := s.dial(t)
			if tunnels%3 == 0 {
				peers = append(peers, s.peer(t, limit(3)))
			}
			p := peers[len(peers)-1]
			p.Send(hbonetest.Answer(p.WantConnect(target), 200))
			got(t, call)
			p.Sync()
		}
		for _, p := range peers {
			p.WantQuiet()
		}
		if n := s.l.Made(); n != 3 {
			t.Errorf("%d connections for 8 tunnels of 3 each", n)
		}
	})
}

// Envoy answers 200 before it knows whether it can reach the target.
func TestATunnelThatCouldNotBeCarriedSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(t)
		call := s.dial(t)
		p := s.peer(t)
		id := p.WantConnect(target)
		p.Send(hbonetest.Answer(id, 200))
		c := got(t, call)
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		p.WantData(id, []byte("hello"))
		p.Send(hbonetest.Reset{Stream: id, Code: http2.ErrCodeConnect})
		_, err := c.Read(make([]byte, 1))
		e, ok := errors.AsType[*hbone.TunnelError](err)
		if !ok || !errors.Is(err, syscall.ECONNRESET) || !strings.Contains(e.Error(), "could not reach the target") {
			t.Errorf("got %v", err)
		}
	})
}

// Envoy sends a body with its refusal, and a reset behind it.
func TestARefusalIsItsStatusWhateverComesBehind(t *testing.T) {
	for name, optimistic := range map[string]bool{"dial": false, "optimistic": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScript(t)
				s.dialer.Optimistic, s.dialer.RetryWithin = optimistic, -1
				call := s.dial(t)
				p := s.peer(t)
				id := p.WantConnect(target)
				p.Send(hbonetest.Answer(id, 503), hbonetest.Data{Stream: id, Bytes: []byte("upstream connect error"), End: true},
					hbonetest.Reset{Stream: id, Code: http2.ErrCodeConnect})
				p.Sync()
				c, err := call.Wait()
				if optimistic {
					if err != nil {
						t.Fatal(err)
					}
					defer c.Close()
					_, err = c.Read(make([]byte, 1))
				}
				if e := wantDialError(t, err, 503); !e.Sent {
					t.Errorf("the peer did act on it: %v", err)
				}
			})
		})
	}
}

// Envoy ends the other direction with NO_ERROR when the application has sent all: that is an end, and only for what we send.
func TestAResetBehindTheEndEndsOnlyWhatWeSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(t)
		call := s.dial(t)
		p := s.peer(t)
		id := p.WantConnect(target)
		p.Send(hbonetest.Answer(id, 200), hbonetest.Data{Stream: id, Bytes: []byte("all"), End: true}, hbonetest.Reset{Stream: id})
		c := got(t, call)
		p.Sync()
		if b, err := io.ReadAll(c); string(b) != "all" || err != nil {
			t.Errorf("read %q, %v", b, err)
		}
		if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("write gave %v", err)
		}
		c.Close()
	})
}

func TestATruncatedTunnelIsNeverComplete(t *testing.T) {
	tests := map[string]func(p *hbonetest.Peer, id uint32){
		"RST_STREAM NO_ERROR": func(p *hbonetest.Peer, id uint32) { p.Send(hbonetest.Reset{Stream: id}) },
		"RST_STREAM CANCEL":   func(p *hbonetest.Peer, id uint32) { p.Send(hbonetest.Reset{Stream: id, Code: http2.ErrCodeCancel}) },
		"GOAWAY and the end":  func(p *hbonetest.Peer, id uint32) { p.Send(hbonetest.GoAway{Last: id}); p.Conn.Close() },
		"the end alone":       func(p *hbonetest.Peer, _ uint32) { p.Conn.Close() },
	}
	for name, end := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScript(t)
				call := s.dial(t)
				p := s.peer(t)
				id := p.WantConnect(target)
				p.Send(hbonetest.Answer(id, 200), hbonetest.Data{Stream: id, Bytes: []byte("half of")})
				c := got(t, call)
				p.Sync()
				end(p, id)
				b, err := io.ReadAll(c)
				if string(b) != "half of" || !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("read %q, %v", b, err)
				}
			})
		})
	}
}

func TestOptimisticDataGoesBehindTheCONNECT(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(t)
		s.dialer.Optimistic = true
		call := s.dial(t)
		p := s.peer(t)
		c := got(t, call) // before any answer
		id := p.WantConnect(target)
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		p.WantData(id, []byte("hello"))
		p.Send(hbonetest.Answer(id, 200), hbonetest.Data{Stream: id, Bytes: []byte("x"), End: true})
		if b, err := io.ReadAll(c); err != nil || string(b) != "x" {
			t.Errorf("read %q, %v", b, err)
		}
		if c.PeerIdentity() != sa("shop", "orders") {
			t.Error(c.PeerIdentity())
		}
		c.Close()
	})
}

func TestOptimisticTunnelsReportARefusalAtFirstUse(t *testing.T) {
	uses := map[string]func(c net.Conn) error{
		"read": func(c net.Conn) error { _, err := c.Read(make([]byte, 1)); return err },
		"write": func(c net.Conn) error {
			_, err := c.Write([]byte("x"))
			return err
		},
		"copy": func(c net.Conn) error { _, err := io.Copy(io.Discard, c); return err },
	}
	for name, use := range uses {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScript(t)
				s.dialer.Optimistic = true
				call := s.dial(t)
				p := s.peer(t)
				c := got(t, call)
				id := p.WantConnect(target)
				refusal := hbonetest.Answer(id, 401)
				refusal.End = true
				p.Send(refusal, hbonetest.Reset{Stream: id})
				p.Sync()
				synctest.Wait()
				err := use(c)
				if e := wantDialError(t, err, 401); !e.Sent || !strings.Contains(e.Error(), "AuthorizationPolicy") {
					t.Errorf("got %v", err)
				}
				c.Close()
			})
		})
	}
}

func TestOptimisticDataIsSentAgainWhenThePeerDidNotActOnIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(t)
		s.dialer.Optimistic = true
		call := s.dial(t)
		first := s.peer(t)
		c := got(t, call)
		id := first.WantConnect(target)
		if _, err := c.Write([]byte("one ")); err != nil {
			t.Fatal(err)
		}
		first.WantData(id, []byte("one "))
		first.Send(hbonetest.GoAway{})
		read := hbonetest.Go(func() (string, error) { b, err := io.ReadAll(c); return string(b), err })
		second := s.peer(t)
		id = second.WantConnect(target)
		second.WantData(id, []byte("one "))
		if _, err := c.Write([]byte("two")); err != nil {
			t.Fatal(err)
		}
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if b := second.WantEnd(id); string(b) != "two" {
			t.Errorf("the peer got %q", b)
		}
		second.Send(hbonetest.Answer(id, 200), hbonetest.Data{Stream: id, Bytes: []byte("all"), End: true})
		if b, err := read.Wait(); b != "all" || err != nil {
			t.Errorf("read %q, %v", b, err)
		}
		c.Close()
	})
}

func TestTooMuchOptimisticDataIsNotSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(t)
		s.dialer.Optimistic = true
		call := s.dial(t)
		p := s.peer(t)
		c := got(t, call)
		id := p.WantConnect(target)
		if _, err := c.Write(make([]byte, 16<<10)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		p.Send(hbonetest.Reset{Stream: id, Code: http2.ErrCodeRefusedStream})
		_, err := c.Read(make([]byte, 1))
		if e := wantDialError(t, err, 0); e.Sent {
			t.Errorf("the peer did not act on it: %v", err)
		}
		c.Close()
	})
}

func TestDeadlinesAndCloseHoldWhileATunnelIsOpenedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(t)
		s.dialer.Optimistic = true
		call := s.dial(t)
		p := s.peer(t)
		c := got(t, call)
		p.WantConnect(target)
		ended := make(chan struct{})
		s.dialer.NetDial = func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			close(ended)
			return nil, ctx.Err()
		}
		p.Send(hbonetest.GoAway{})
		start := time.Now()
		_ = c.SetReadDeadline(start.Add(time.Second))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		_ = c.SetReadDeadline(time.Time{})
		read := hbonetest.Go(func() (int, error) { return c.Read(make([]byte, 1)) })
		synctest.Wait()
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := read.Wait(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a deadline that came while it waited: %v", err)
		}
		_ = c.SetReadDeadline(time.Time{})
		read = hbonetest.Go(func() (int, error) { return c.Read(make([]byte, 1)) })
		synctest.Wait()
		c.Close()
		if _, err := read.Wait(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
		<-ended
	})
}

// An answer of some size fits what the peer may send at once: not every peer keeps what waits for credit when its application is done.
func TestAnAnswerNeedsNoCreditToBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(t)
		call := s.dial(t)
		p := s.peer(t)
		id := p.WantConnect(target)
		p.Send(hbonetest.Answer(id, 200))
		c := got(t, call)
		const most = 2 << 20
		if n, ok := p.Setting(http2.SettingInitialWindowSize); !ok || n != most {
			t.Fatalf("the first window is %d, want %d", n, most)
		}
		for sent := 0; sent < most; sent += 16 << 10 {
			p.Send(hbonetest.Data{Stream: id, Bytes: make([]byte, 16<<10), End: sent+16<<10 == most})
		}
		if n, err := io.Copy(io.Discard, c); n != most || err != nil {
			t.Errorf("read %d bytes, %v", n, err)
		}
	})
}
