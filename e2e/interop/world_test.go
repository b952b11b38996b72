package interop

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// world is an authority, and an application on plain TCP that does what a test says.
type world struct {
	ca  *identitytest.CA
	app netip.AddrPort
}

var (
	orders  = sa("shop", "orders")
	gateway = sa("edge", "gateway")
)

func newWorld(t *testing.T, app func(*net.TCPConn)) *world {
	t.Helper()
	return &world{ca: identitytest.NewCA(td), app: listen(t, func(c net.Conn) { app(c.(*net.TCPConn)) })}
}

// listen serves TCP until the test ends; handle owns its connection.
func listen(t *testing.T, handle func(net.Conn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go handle(c)
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// echo sends back what it reads, and ends when that ends.
func echo(c *net.TCPConn) {
	defer c.Close()
	_, _ = io.Copy(c, struct{ io.Reader }{c})
}

// ours is our server in front of the application.
func (w *world) ours(t *testing.T) netip.AddrPort {
	t.Helper()
	server := &hbone.Server{Identity: w.ca.Source(orders), Connect: func(ctx context.Context, r *hbone.ConnectRequest) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", r.Authority)
	}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// dialer is ours, with a route through addr to the application.
func (w *world) dialer(t *testing.T, addr netip.AddrPort) *hbone.Dialer {
	t.Helper()
	d := &hbone.Dialer{Identity: w.ca.Source(gateway), Resolver: hbone.ResolverFunc(func(_ context.Context, _, address string) (hbone.Route, error) {
		return hbone.Route{Hops: []hbone.Hop{{Addr: addr, Authority: address, Peers: []spiffeid.ID{orders}}}}, nil
	})}
	t.Cleanup(func() { d.Close() })
	return d
}

func (w *world) dial(t *testing.T, d *hbone.Dialer) net.Conn {
	t.Helper()
	c, err := d.DialContext(t.Context(), "tcp", w.app.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	return c
}

// serverTLS is for servers that others wrote: they show orders and want a certificate.
func (w *world) serverTLS(t *testing.T) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}, ClientAuth: tls.RequireAnyClientCert, Certificates: []tls.Certificate{w.certificate(t, orders)}}
}

// clientTLS is for their clients.
func (w *world) clientTLS(t *testing.T) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}, InsecureSkipVerify: true, Certificates: []tls.Certificate{w.certificate(t, gateway)}}
}

func (w *world) certificate(t *testing.T, id spiffeid.ID) tls.Certificate {
	t.Helper()
	svid := w.ca.SVID(id)
	cert, err := tls.X509KeyPair(identitytest.PEM(svid.Certificates...), identitytest.KeyPEM(svid.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// random is n bytes that are the same for the same seed.
func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	return b
}

// exchange sends bytes through an echoing application and wants them back.
func exchange(c net.Conn, data []byte) error {
	sent := make(chan error, 1)
	go func() { _, err := c.Write(data); sent <- err }()
	got := make([]byte, len(data))
	if _, err := io.ReadFull(c, got); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	if err := <-sent; err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if !bytes.Equal(got, data) {
		return errors.New("other bytes came back")
	}
	return nil
}

// halfCloser is what keeps both directions apart.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// ends is an application that ends its direction first or last.
func ends(first bool, down []byte, got chan<- []byte) func(*net.TCPConn) {
	return func(c *net.TCPConn) {
		defer c.Close()
		if first {
			_, _ = c.Write(down)
			_ = c.CloseWrite()
		}
		up, _ := io.ReadAll(c)
		got <- up
		if !first {
			_, _ = c.Write(down)
			_ = c.CloseWrite()
		}
	}
}

// halfClose wants that each side may go on for as long as it likes after the other's end.
func halfClose(t *testing.T, dial func(t *testing.T, app func(*net.TCPConn)) halfCloser) {
	for _, first := range []bool{false, true} {
		t.Run(fmt.Sprintf("the application ends first: %t", first), func(t *testing.T) {
			up, down := random(1, 1<<20), random(2, 1<<20)
			got := make(chan []byte, 1)
			c := dial(t, ends(first, down, got))
			read := func() {
				if b, err := io.ReadAll(c); err != nil || !bytes.Equal(b, down) {
					t.Errorf("the client read %d bytes, %v", len(b), err)
				}
			}
			if first {
				read()
			}
			if _, err := c.Write(up); err != nil {
				t.Errorf("write: %v", err)
			}
			if err := c.CloseWrite(); err != nil {
				t.Errorf("close: %v", err)
			}
			select {
			case b := <-got:
				if !bytes.Equal(b, up) {
					t.Errorf("the application read %d bytes of %d", len(b), len(up))
				}
			case <-time.After(20 * time.Second):
				t.Error("the application sees no end")
			}
			if !first {
				read()
			}
		})
	}
}
