package hbone_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/hbone/hbonetest"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/net/nettest"
)

// kind makes both ends of a tunnel, anew with each call.
type kind func(t *testing.T) func() (near, far net.Conn, stop func(), err error)

// over is a tunnel whose connection is made by listen and dial.
func over(listen func() (net.Listener, error), dial func(ctx context.Context, network, address string) (net.Conn, error), hops int, optimistic bool) kind {
	return func(t *testing.T) func() (net.Conn, net.Conn, func(), error) {
		l, err := listen()
		if err != nil {
			t.Fatal(err)
		}
		ca := identitytest.NewCA(td)
		apps := make(chan net.Conn, 1)
		inner := &hbone.Server{Identity: ca.Source(sa("shop", "orders"))}
		inner.Connect = func(ctx context.Context, r *hbone.ConnectRequest) (net.Conn, error) {
			if r.Authority == l.Addr().String() { // a hop on the way
				return dial(ctx, "tcp", l.Addr().String())
			}
			near, far := hbonetest.Pipe()
			apps <- far
			return near, nil
		}
		go inner.Serve(l)
		d := &hbone.Dialer{Identity: ca.Source(sa("edge", "gateway")), NetDial: dial, Optimistic: optimistic}
		t.Cleanup(func() { d.Close(); inner.Close() })
		hop := hbone.Hop{Addr: l.Addr().(*net.TCPAddr).AddrPort(), Authority: l.Addr().String(), Peers: []spiffeid.ID{sa("shop", "orders")}}
		route := hbone.Route{}
		for range hops - 1 {
			route.Hops = append(route.Hops, hop)
		}
		hop.Authority = "orders:80"
		route.Hops = append(route.Hops, hop)
		return func() (net.Conn, net.Conn, func(), error) {
			near, err := d.DialRoute(t.Context(), route)
			if err != nil {
				return nil, nil, nil, err
			}
			far := <-apps
			return near, far, func() { near.Close(); far.Close() }, nil
		}
	}
}

// accepted is a tunnel whose far end is a Conn too.
func accepted(t *testing.T) func() (net.Conn, net.Conn, func(), error) {
	m := newMesh(t, echo, admitting)
	return func() (net.Conn, net.Conn, func(), error) {
		tun := m.dial2(t)
		return tun.near, tun.far, func() { tun.near.Close(); tun.far.Close() }, nil
	}
}

func listenTCP() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") }

// kinds are the tunnels that must behave alike. Each runs TLS over something: TCP, memory, or another tunnel.
func kinds() map[string]kind {
	network := new(hbonetest.Network)
	memory := func() (net.Listener, error) { return network.Listen(pipeAddr) }
	tcp := new(net.Dialer).DialContext
	return map[string]kind{
		"tcp":               over(listenTCP, tcp, 1, false),
		"tcp, optimistic":   over(listenTCP, tcp, 1, true),
		"accepted":          accepted,
		"memory":            over(memory, network.DialContext, 1, false),
		"tunnels in tunnel": over(listenTCP, tcp, 3, false),
		"all optimistic":    over(listenTCP, tcp, 3, true),
	}
}

func TestTunnelsBehaveLikeConnections(t *testing.T) {
	for name, k := range kinds() {
		t.Run(name, func(t *testing.T) {
			mk := k(t)
			nettest.TestConn(t, nettest.MakePipe(mk))
			for what, check := range behaviours {
				t.Run(what, func(t *testing.T) {
					near, far, stop, err := mk()
					if err != nil {
						t.Fatal(err)
					}
					defer stop()
					check(t, near.(*hbone.Conn), far)
				})
			}
		})
	}
}

// behaviours are what nettest does not look at.
var behaviours = map[string]func(t *testing.T, near *hbone.Conn, far net.Conn){
	"each direction ends alone, ours first": func(t *testing.T, near *hbone.Conn, far net.Conn) {
		say(t, near, "up")
		wantAll(t, far, "up")
		say(t, far, "down")
		wantAll(t, near, "down")
	},
	"each direction ends alone, theirs first": func(t *testing.T, near *hbone.Conn, far net.Conn) {
		say(t, far, "down")
		wantAll(t, near, "down")
		say(t, near, "up")
		wantAll(t, far, "up")
	},
	"after CloseWrite no Write": func(t *testing.T, near *hbone.Conn, far net.Conn) {
		say(t, near, "up")
		if _, err := near.Write([]byte("more")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("write gave %v", err)
		}
		wantAll(t, far, "up")
	},
	"a reset of ours is seen": func(t *testing.T, near *hbone.Conn, far net.Conn) {
		opened(t, near, far)
		near.Reset()
		if _, err := io.ReadAll(far); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read gave %v", err)
		}
		if _, err := near.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("our own read gave %v", err)
		}
	},
	"a reset of theirs is seen": func(t *testing.T, near *hbone.Conn, far net.Conn) {
		opened(t, near, far)
		far.(interface{ Reset() }).Reset()
		if _, err := io.ReadAll(near); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read gave %v", err)
		}
	},
	"Close ends what is blocked": func(t *testing.T, near *hbone.Conn, far net.Conn) {
		opened(t, near, far)
		read := hbonetest.Go(func() (int, error) { return near.Read(make([]byte, 1)) })
		started := make(chan struct{})
		write := hbonetest.Go(func() (int64, error) { // far reads nothing
			return near.ReadFrom(io.MultiReader(signal(started), endless{}))
		})
		<-started
		near.Close()
		if _, err := read.Wait(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read gave %v", err)
		}
		if _, err := write.Wait(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write gave %v", err)
		}
	},
	"deadlines come while it blocks": func(t *testing.T, near *hbone.Conn, far net.Conn) {
		opened(t, near, far)
		read := hbonetest.Go(func() (int, error) { return near.Read(make([]byte, 1)) })
		write := hbonetest.Go(func() (int64, error) { return near.ReadFrom(endless{}) })
		_ = near.SetDeadline(time.Now().Add(20 * time.Millisecond))
		for _, err := range []error{second(read.Wait()), second(write.Wait())} {
			if ne, ok := errors.AsType[net.Error](err); !ok || !ne.Timeout() || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		}
		_ = near.SetDeadline(time.Time{})
		say(t, far, "on")
		wantAll(t, near, "on")
	},
	"many bytes both ways by ReadFrom and WriteTo": func(t *testing.T, near *hbone.Conn, far net.Conn) {
		data := make([]byte, 3<<20+1)
		rand.Read(data)
		up := hbonetest.Go(func() (int64, error) {
			n, err := near.ReadFrom(bytes.NewReader(data))
			return n, errors.Join(err, near.CloseWrite())
		})
		back := hbonetest.Go(func() (int64, error) { // the other end echoes
			n, err := io.Copy(far, far)
			return n, errors.Join(err, far.(interface{ CloseWrite() error }).CloseWrite())
		})
		var got bytes.Buffer
		if _, err := near.WriteTo(&got); err != nil || !bytes.Equal(got.Bytes(), data) {
			t.Errorf("%d bytes came back, %v", got.Len(), err)
		}
		if n, err := up.Wait(); n != int64(len(data)) || err != nil {
			t.Errorf("up: %d, %v", n, err)
		}
		if n, err := back.Wait(); n != int64(len(data)) || err != nil {
			t.Errorf("back: %d, %v", n, err)
		}
	},
}

// signal is an empty reader that closes itself when it is read.
type signal chan struct{}

func (s signal) Read([]byte) (int, error) { close(s); return 0, io.EOF }

// endless gives zeroes.
type endless struct{}

func (endless) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func second[T any](_ T, err error) error { return err }

// opened makes sure that both ends have it.
func opened(t *testing.T, near, far net.Conn) {
	t.Helper()
	if _, err := near.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(far, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := far.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(near, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

// say writes text and ends that direction.
func say(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
}

func wantAll(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if b, err := io.ReadAll(c); string(b) != text || err != nil {
		t.Fatalf("read %q, %v, want %q", b, err, text)
	}
}
