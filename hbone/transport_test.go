package hbone_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone"
)

// webMesh is a pipeMesh whose tunnels end in an HTTP server that speaks HTTP/1.1 and h2c.
type webMesh struct {
	*pipeMesh
	mu    sync.Mutex
	asked []string // what the resolver was asked for
	conns map[string]int
}

// authorityKey is a request's context's key of the authority of its tunnel.
type authorityKey struct{}

func newWebMesh(t *testing.T, handler http.HandlerFunc) *webMesh {
	t.Helper()
	w := &webMesh{conns: map[string]int{}}
	w.pipeMesh = newQuietMesh(t, nil)
	route := hbone.Route{Hops: []hbone.Hop{w.hop()}}
	w.dialer.Resolver = hbone.ResolverFunc(func(_ context.Context, _, address string) (hbone.Route, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.asked = append(w.asked, address)
		return route, nil
	})
	web := &http.Server{Handler: handler, Protocols: new(http.Protocols), ConnContext: func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, authorityKey{}, c.(*hbone.Conn).Request().Authority)
	}}
	web.Protocols.SetHTTP1(true)
	web.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan struct{})
	go func() { defer close(done); _ = web.Serve(w.server) }()
	t.Cleanup(func() { web.Close(); <-done })
	return w
}

func get(t *testing.T, tr http.RoundTripper, ctx context.Context, url string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := tr.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func protocol(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto, " ", r.Host) }

func h2cFor(host string) func(*http.Request) bool {
	return func(r *http.Request) bool { return r.URL.Hostname() == host }
}

func TestTransportSpeaksBothProtocols(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWebMesh(t, protocol)
		tr := &hbone.Transport{Dialer: w.dialer, H2C: h2cFor("grpc")}
		defer tr.CloseIdleConnections()
		for range 3 {
			if b := get(t, tr, t.Context(), "http://orders:81/"); b != "HTTP/1.1 orders:81" {
				t.Errorf("got %q", b)
			}
			if b := get(t, tr, t.Context(), "http://grpc/"); b != "HTTP/2.0 grpc" {
				t.Errorf("got %q", b)
			}
		}
		if got := strings.Join(w.asked, " "); got != "orders:81 grpc:80" {
			t.Errorf("the resolver was asked for %s", got)
		}
	})
}

func TestAContextChoosesWhereARequestGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWebMesh(t, protocol)
		tr := &hbone.Transport{Dialer: w.dialer, H2C: h2cFor("10.0.0.9")}
		defer tr.CloseIdleConnections()
		for address, want := range map[string]string{"10.0.0.8:81": "HTTP/1.1 www.example.com", "10.0.0.9:82": "HTTP/2.0 www.example.com"} {
			w.asked = nil
			if b := get(t, tr, hbone.WithAddress(t.Context(), address), "http://www.example.com/"); b != want {
				t.Errorf("got %q, want %q", b, want)
			}
			if got := strings.Join(w.asked, " "); got != address {
				t.Errorf("the resolver was asked for %s", got)
			}
		}
		r, err := http.NewRequestWithContext(hbone.WithAddress(t.Context(), "10.0.0.8:81"), http.MethodGet, "https://www.example.com/", nil)
		if err != nil {
			t.Fatal(err)
		}
		if res, err := tr.RoundTrip(r); err == nil {
			res.Body.Close()
			t.Error("https went elsewhere")
		}
	})
}

func TestH2CConnectionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		w := newWebMesh(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/wait" {
				<-release
			}
			fmt.Fprint(w, "done")
		})
		tr := &hbone.Transport{Dialer: w.dialer, H2C: h2cFor("grpc"), H2CMaxStreams: 3, H2CMaxAge: time.Minute}
		defer tr.CloseIdleConnections()
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if b := get(t, tr, t.Context(), "http://grpc/wait"); b != "done" {
					t.Errorf("got %q", b)
				}
			})
		}
		synctest.Wait()
		if n := len(w.asked); n != 4 {
			t.Errorf("%d tunnels for 10 requests of 3 each", n)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		get(t, tr, t.Context(), "http://grpc/")
		if n := len(w.asked); n != 5 {
			t.Errorf("%d tunnels: old ones take requests", n)
		}
		close(release)
		wg.Wait()
		synctest.Wait()
		if st := w.dialer.Stats(); st.Tunnels != 1 {
			t.Errorf("%d tunnels are left of the old", st.Tunnels)
		}
	})
}

func TestARequestLeavesALostH2CConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWebMesh(t, protocol)
		tr := &hbone.Transport{Dialer: w.dialer, H2C: h2cFor("grpc")}
		defer tr.CloseIdleConnections()
		for range 3 {
			get(t, tr, t.Context(), "http://grpc/")
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			w.dialer.Retire(ended, func(hbone.Route) bool { return true })
		}
	})
}

// What may have been acted on is not sent twice.
func TestARequestThatMayHaveBeenActedOnIsNotRepeated(t *testing.T) {
	for _, host := range []string{"orders", "grpc"} {
		t.Run(host, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var posts atomic.Int64
				var w *webMesh
				w = newWebMesh(t, func(_ http.ResponseWriter, r *http.Request) {
					if r.Method == http.MethodPost {
						posts.Add(1)
						_, _ = io.Copy(io.Discard, r.Body)
						ended, cancel := context.WithCancel(context.Background())
						cancel()
						w.dialer.Retire(ended, func(hbone.Route) bool { return true })
						<-r.Context().Done()
					}
				})
				tr := &hbone.Transport{Dialer: w.dialer, H2C: h2cFor("grpc")}
				defer tr.CloseIdleConnections()
				get(t, tr, t.Context(), "http://"+host+"/") // the connection stands
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+host+"/", strings.NewReader("order"))
				if err != nil {
					t.Fatal(err)
				}
				if res, err := tr.RoundTrip(r); err == nil {
					res.Body.Close()
					t.Error("the lost request succeeded")
				}
				if n := posts.Load(); n != 1 {
					t.Errorf("it was sent %d times", n)
				}
			})
		})
	}
}

func TestTLSInsideTheTunnel(t *testing.T) {
	backend := httptest.NewUnstartedServer(http.HandlerFunc(protocol))
	backend.EnableHTTP2 = true
	backend.StartTLS()
	defer backend.Close()
	m := newMesh(t, nil, func(s *hbone.Server) {
		s.Connect = func(ctx context.Context, _ *hbone.ConnectRequest) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", backend.Listener.Addr().String())
		}
	})
	roots := x509.NewCertPool()
	roots.AddCert(backend.Certificate())
	tr := &hbone.Transport{Dialer: m.dialer, Configure: func(b *http.Transport) {
		b.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}}
	defer tr.CloseIdleConnections()
	if b := get(t, tr, t.Context(), "https://example.com/"); b != "HTTP/2.0 example.com" {
		t.Errorf("got %q", b)
	}
}
