package hbonetest_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/hbonetest"
	"golang.org/x/net/nettest"
)

var orders = netip.MustParseAddrPort("10.0.0.7:15008")

func TestNetConn(t *testing.T) {
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		a, b := hbonetest.Pipe()
		return a, b, func() { a.Close(); b.Close() }, nil
	})
}

func TestEndingsAreThoseOfTCP(t *testing.T) {
	tests := map[string]struct {
		end   func(a *hbonetest.Conn)
		read  error
		write error
	}{
		"CloseWrite":           {func(a *hbonetest.Conn) { _ = a.CloseWrite() }, nil, nil},
		"Close":                {func(a *hbonetest.Conn) { a.Close() }, nil, syscall.EPIPE},
		"Reset":                {func(a *hbonetest.Conn) { a.Reset() }, syscall.ECONNRESET, syscall.ECONNRESET},
		"linger 0":             {func(a *hbonetest.Conn) { _ = a.SetLinger(0); a.Close() }, syscall.ECONNRESET, syscall.ECONNRESET},
		"Close after a Cut":    {func(a *hbonetest.Conn) { a.Cut(); a.Close() }, os.ErrDeadlineExceeded, nil},
		"Reset after a Cut":    {func(a *hbonetest.Conn) { a.Cut(); a.Reset() }, os.ErrDeadlineExceeded, nil},
		"Close, unread bytes":  {func(a *hbonetest.Conn) { a.Close() }, syscall.ECONNRESET, syscall.ECONNRESET},
		"CloseWrite and Close": {func(a *hbonetest.Conn) { _ = a.CloseWrite(); a.Close() }, nil, syscall.EPIPE},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := hbonetest.Pipe()
				defer b.Close()
				if name == "Close, unread bytes" {
					_, _ = b.Write([]byte("x"))
				}
				tt.end(a)
				_ = b.SetReadDeadline(time.Now().Add(time.Hour))
				if _, err := io.ReadAll(b); !errors.Is(err, tt.read) {
					t.Errorf("read gave %v, want %v", err, tt.read)
				}
				if _, err := b.Write([]byte("y")); !errors.Is(err, tt.write) {
					t.Errorf("write gave %v, want %v", err, tt.write)
				}
			})
		})
	}
}

func TestWhatWasWrittenBeforeCloseArrives(t *testing.T) {
	a, b := hbonetest.Pipe()
	if _, err := a.Write([]byte("last words")); err != nil {
		t.Fatal(err)
	}
	a.Close()
	if got, err := io.ReadAll(b); err != nil || string(got) != "last words" {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestWriteBlocksWhenNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := hbonetest.Pipe()
		defer a.Close()
		defer b.Close()
		_ = a.SetWriteDeadline(time.Now().Add(time.Minute))
		n, err := a.Write(make([]byte, 1<<20))
		if n != 64<<10 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d bytes were taken, %v", n, err)
		}
	})
}

func TestNetwork(t *testing.T) {
	network := new(hbonetest.Network)
	if _, err := network.DialContext(t.Context(), "tcp", orders.String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("nobody listens: %v", err)
	}
	l, err := network.Listen(orders)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := network.Listen(orders); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a second listener: %v", err)
	}
	a, err := network.DialContext(t.Context(), "tcp", orders.String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if a.LocalAddr().String() != b.RemoteAddr().String() || a.RemoteAddr().String() != orders.String() {
		t.Errorf("addresses %v→%v and %v→%v", a.LocalAddr(), a.RemoteAddr(), b.LocalAddr(), b.RemoteAddr())
	}
	waiting, err := network.DialContext(t.Context(), "tcp", orders.String())
	if err != nil {
		t.Fatal(err)
	}
	if n := l.Made(); n != 2 {
		t.Errorf("%d connections were made, want 2", n)
	}
	l.Close()
	if _, err := waiting.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("nobody accepted: %v", err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept: %v", err)
	}
	if _, err := a.Write([]byte("still open")); err != nil {
		t.Error(err)
	}
	if got := make([]byte, 10); true {
		if _, err := io.ReadFull(b, got); err != nil || !bytes.Equal(got, []byte("still open")) {
			t.Errorf("read %q, %v", got, err)
		}
	}
	if l, err = network.Listen(orders); err != nil {
		t.Errorf("the address is not free: %v", err)
	}
	l.Close()
}

func TestVanishTellsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := new(hbonetest.Network)
		l, err := network.Listen(orders)
		if err != nil {
			t.Fatal(err)
		}
		a, err := network.DialContext(t.Context(), "tcp", orders.String())
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		l.Vanish()
		_ = a.SetReadDeadline(time.Now().Add(time.Hour))
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read gave %v; the news should not arrive", err)
		}
		if _, err := network.Listen(orders); err != nil {
			t.Errorf("the address is not free: %v", err)
		}
	})
}

func TestDialObeysItsContext(t *testing.T) {
	network := new(hbonetest.Network)
	l, err := network.Listen(orders)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 2000 { // beyond the backlog
		if _, err = network.DialContext(ctx, "tcp", orders.String()); err != nil {
			break
		}
	}
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
