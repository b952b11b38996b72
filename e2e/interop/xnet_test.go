//nolint:staticcheck // x/net's own server and transport are what these tests are about, deprecated or not
package interop

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone"
	"golang.org/x/net/http2"
)

// xnetServer is a handler of golang.org/x/net's server that forwards CONNECT.
func (w *world) xnetServer(t *testing.T, streams uint32) netip.AddrPort {
	t.Helper()
	server := &http2.Server{MaxConcurrentStreams: streams}
	config := w.serverTLS(t)
	return listen(t, func(nc net.Conn) {
		tc := tls.Server(nc, config)
		defer tc.Close()
		if tc.Handshake() != nil {
			return
		}
		server.ServeConn(tc, &http2.ServeConnOpts{Handler: http.HandlerFunc(forward)})
	})
}

func forward(rw http.ResponseWriter, r *http.Request) {
	backend, err := net.Dial("tcp", r.Host)
	if err != nil {
		rw.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	defer backend.Close()
	rw.WriteHeader(http.StatusOK)
	flush := rw.(http.Flusher)
	flush.Flush()
	go func() {
		_, _ = io.Copy(backend, r.Body)
		_ = backend.(*net.TCPConn).CloseWrite()
	}()
	buf := make([]byte, 32<<10)
	for {
		n, err := backend.Read(buf)
		if n > 0 {
			if _, err := rw.Write(buf[:n]); err != nil {
				return
			}
			flush.Flush()
		}
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			panic(http.ErrAbortHandler) // RST_STREAM
		}
	}
}

func TestOurDialerAndXNetsServer(t *testing.T) {
	w := newWorld(t, echo)
	d := w.dialer(t, w.xnetServer(t, 10))
	if err := exchange(w.dial(t, d), random(1, megabytes<<20)); err != nil {
		t.Error(err)
	}
	for i := range 25 { // at 10 a connection
		if err := exchange(w.dial(t, d), random(uint64(i), 10_000)); err != nil {
			t.Errorf("tunnel %d: %v", i, err)
		}
	}
	if _, err := d.DialContext(t.Context(), "tcp", closedPort(t)); status(err) != http.StatusServiceUnavailable {
		t.Errorf("a closed port gave %v", err)
	}
	t.Run("the application resets", func(t *testing.T) {
		w := newWorld(t, resets)
		c := w.dial(t, w.dialer(t, w.xnetServer(t, 10)))
		_, _ = c.Write([]byte("x"))
		if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read gave %v, want ECONNRESET", err)
		}
	})
}

// resets is an application that aborts after its first byte.
func resets(c *net.TCPConn) {
	_, _ = c.Read(make([]byte, 1))
	_ = c.SetLinger(0)
	c.Close()
}

func status(err error) int {
	if e, ok := errors.AsType[*hbone.DialError](err); ok {
		return e.Status
	}
	return 0
}

// xnetTunnel opens a tunnel with x/net's transport.
func (w *world) xnetTunnel(t *testing.T, tr *http2.Transport, addr netip.AddrPort, authority string) (*http.Response, *io.PipeWriter, error) {
	t.Helper()
	pr, pw := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodConnect, "https://"+addr.String(), pr)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = authority
	res, err := tr.RoundTrip(r)
	return res, pw, err
}

func TestXNetsTransportAndOurServer(t *testing.T) {
	w := newWorld(t, echo)
	addr := w.ours(t)
	tr := &http2.Transport{TLSClientConfig: w.clientTLS(t)}
	defer tr.CloseIdleConnections()
	res, pw, err := w.xnetTunnel(t, tr, addr, w.app.String())
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("got %v, %v", res, err)
	}
	defer res.Body.Close()
	data := random(1, megabytes<<20)
	go func() { _, _ = pw.Write(data); pw.Close() }()
	got, err := io.ReadAll(res.Body)
	if err != nil || string(got) != string(data) {
		t.Errorf("%d bytes came back, %v", len(got), err)
	}
	for authority, want := range map[string]int{closedPort(t): http.StatusServiceUnavailable, "10.0.0.7:0": http.StatusBadRequest} {
		res, _, err := w.xnetTunnel(t, tr, addr, authority)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%s gave %v, want %d", authority, res.Status, want)
		}
	}
	t.Run("a GET is refused", func(t *testing.T) {
		res, err := (&http.Client{Transport: tr, Timeout: 10 * time.Second}).Get(fmt.Sprintf("https://%s/", addr))
		if err != nil || res.StatusCode != http.StatusBadRequest {
			t.Fatalf("got %v, %v", res, err)
		}
		res.Body.Close()
	})
	t.Run("the application resets", func(t *testing.T) {
		w := newWorld(t, resets)
		tr := &http2.Transport{TLSClientConfig: w.clientTLS(t)}
		res, pw, err := w.xnetTunnel(t, tr, w.ours(t), w.app.String())
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		_, _ = pw.Write([]byte("x"))
		_, err = io.ReadAll(res.Body)
		var se http2.StreamError
		if !errors.As(err, &se) || se.Code != http2.ErrCodeConnect {
			t.Errorf("read gave %v, want RST_STREAM CONNECT_ERROR", err)
		}
	})
}

func TestOurDialerAndOurServerHalfClose(t *testing.T) {
	halfClose(t, func(t *testing.T, app func(*net.TCPConn)) halfCloser {
		w := newWorld(t, app)
		return w.dial(t, w.dialer(t, w.ours(t))).(halfCloser)
	})
}
