package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
)

// shop is a server of HBONE in front of an application, and the files of a gateway's identity.
type shop struct {
	app   string // HOST:PORT to dial
	flags []string
}

func account(namespace, name string) spiffeid.ID {
	return spiffeid.RequireFromPath(spiffeid.RequireTrustDomainFromString("cluster.local"), "/ns/"+namespace+"/sa/"+name)
}

// newShop starts both; connect is the server's decision, nil forwards.
func newShop(t *testing.T, app string, connect func(context.Context, *hbone.ConnectRequest) (net.Conn, error), opts ...identitytest.Option) *shop {
	t.Helper()
	ca := identitytest.NewCA(spiffeid.RequireTrustDomainFromString("cluster.local"))
	if connect == nil {
		connect = func(ctx context.Context, r *hbone.ConnectRequest) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", r.Target.String())
		}
	}
	srv := &hbone.Server{Identity: ca.Source(account("shop", "orders")), Connect: connect}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	svid := ca.SVID(account("edge", "gateway"), opts...)
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return &shop{app: app, flags: []string{
		"--via", l.Addr().String(), "--peer", account("shop", "orders").String(),
		"--cert", write("chain.pem", identitytest.PEM(svid.Certificates...)),
		"--key", write("key.pem", identitytest.KeyPEM(svid.PrivateKey)),
		"--roots", write("roots.pem", identitytest.PEM(ca.Root)),
		"--timeout", "5s",
	}}
}

func (s *shop) dial(t *testing.T, more ...string) result {
	t.Helper()
	return isthmus(t, append(append([]string{"dial", s.app}, s.flags...), more...)...)
}

func orders(t *testing.T) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/forbidden" {
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, "RBAC: access denied") // as Envoy says it, without an end of line
			return
		}
		w.Header().Set("X-Seen", r.Host+" "+r.Header.Get("X-Test")+" "+r.Method)
		_, _ = io.WriteString(w, "three orders\n")
	}))
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

func TestDialSendsARequestAndShowsTheWay(t *testing.T) {
	s := newShop(t, orders(t), nil)
	r := s.dial(t, "--http", "/orders")
	r.want(t, exitOK, r.stderr, "to        "+s.app, "through   workload at 127.0.0.1:", "spiffe://cluster.local/ns/shop/sa/orders", "why",
		"we are    spiffe://cluster.local/ns/edge/sa/gateway", "answered  spiffe://cluster.local/ns/shop/sa/orders", "HTTP/1.1 200 OK")
	if r.stdout != "three orders\n" {
		t.Errorf("standard output is %q", r.stdout)
	}
	r = s.dial(t, "--http", "/orders", "-o", "json", "--header", "Host: shop.example", "--header", "x-test: yes", "--method", "PUT")
	d := decode[dialDocument](t, r.stdout)
	if r.stderr != "" || d.Response == nil || d.Response.Status != 200 || d.Response.Body != "three orders\n" || d.Route.Transport != "hbone" ||
		d.Response.Header.Get("X-Seen") != "shop.example yes PUT" || d.Connection.Peer != account("shop", "orders").String() {
		t.Errorf("got %+v", d)
	}
	d = decode[dialDocument](t, s.dial(t, "-o", "json").stdout)
	if d.Response != nil || d.Connection == nil || len(d.Route.Hops) != 1 {
		t.Errorf("got %+v", d)
	}
	d = decode[dialDocument](t, s.dial(t, "--route", "-o", "json").stdout)
	if d.Connection != nil || len(d.Route.Hops) != 1 || d.Route.Hops[0].Authority != s.app {
		t.Errorf("got %+v", d)
	}
	r = s.dial(t, "--explain-only")
	r.want(t, exitOK, r.stdout, "through   workload at")
}

func TestDialFailsWhereTheApplicationRefuses(t *testing.T) {
	s := newShop(t, orders(t), nil)
	r := s.dial(t, "--http", "/forbidden")
	r.want(t, exitFailed, r.stderr, "403 Forbidden", "where:", "workload at", "next:")
	if !strings.Contains(r.stderr, "403 Forbidden\n\nerror: ") { // on a screen the body stands between
		t.Errorf("the error does not begin a line of its own: %q", r.stderr)
	}
	if !strings.Contains(r.stdout, "RBAC") {
		t.Errorf("the body is missing: %q", r.stdout)
	}
	r = s.dial(t, "--http", "/forbidden", "-o", "json")
	if d := decode[dialDocument](t, r.stdout); d.Response.Status != 403 {
		t.Errorf("got %+v", d)
	}
	if e := decode[errorDocument](t, r.stderr); e.ExitCode != exitFailed || e.Where == "" || e.Next == "" {
		t.Errorf("got %+v", e)
	}
}

func TestDialRelays(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		all, _ := io.ReadAll(c) // needs the end of standard input
		_, _ = io.WriteString(c, strings.ToUpper(string(all)))
	}()
	s := newShop(t, l.Addr().String(), nil)
	r := isthmusWith(t, t.Context(), strings.NewReader("hello"), append([]string{"dial", s.app}, s.flags...)...)
	r.want(t, exitOK, r.stderr, "answered")
	if r.stdout != "HELLO" {
		t.Errorf("got %q", r.stdout)
	}
}

// serve is an application that does one thing with each connection.
func serve(t *testing.T, do func(*net.TCPConn)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			do(c.(*net.TCPConn))
			_ = c.Close()
		}
	}()
	return l.Addr().String()
}

func TestDialSaysThatNothingCameBack(t *testing.T) {
	s := newShop(t, serve(t, func(c *net.TCPConn) { _, _ = io.ReadAll(c) }), nil)
	r := isthmusWith(t, t.Context(), strings.NewReader("hello"), append([]string{"dial", s.app}, s.flags...)...)
	r.want(t, exitOK, r.stderr, "nothing came back", "--http")
	r = isthmusWith(t, t.Context(), strings.NewReader(""), append([]string{"dial", s.app}, s.flags...)...)
	if r.want(t, exitOK, r.stderr, "answered"); strings.Contains(r.stderr, "nothing came back") {
		t.Errorf("nothing was asked: %q", r.stderr)
	}
}

func TestDialSaysHowMuchCameBeforeAReset(t *testing.T) {
	s := newShop(t, serve(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "half")
		time.Sleep(200 * time.Millisecond) // until it has been forwarded: a reset overtakes what waits
		_ = c.SetLinger(0)
	}), nil)
	in, w := io.Pipe() // never ends
	defer w.Close()
	r := isthmusWith(t, t.Context(), in, append([]string{"dial", s.app}, s.flags...)...)
	r.want(t, exitFailed, r.stderr, "was reset after 4 bytes", "--http")
	if r.stdout != "half" {
		t.Errorf("got %q", r.stdout)
	}
}

func TestDialEndsWithItsContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.ReadFull(c, make([]byte, 1)) // the relay runs
		cancel()
		_, _ = io.ReadAll(c)
	}()
	s := newShop(t, l.Addr().String(), nil)
	in, w := io.Pipe() // never ends
	go io.WriteString(w, "x")
	start := time.Now()
	r := isthmusWith(t, ctx, in, append([]string{"dial", s.app}, s.flags...)...)
	r.want(t, exitFailed, r.stderr, "interrupted")
	if d := time.Since(start); d > 4*time.Second {
		t.Errorf("took %v", d)
	}
}

// TestRefusedAtAWaypoint: what is to be done next names the policy's finder, for this source and this request.
func TestRefusedAtAWaypoint(t *testing.T) {
	doc := &dialDocument{Connection: &connDetail{Local: "spiffe://cluster.local/ns/edge/sa/gateway"}}
	doc.Route = routeDetail{Service: "orders.shop.svc.cluster.local", Hops: []hopDetail{{Kind: string(hbone.HopWaypoint), Address: "10.0.0.9:15008"}}}
	req := httptest.NewRequest(http.MethodPost, "http://orders.shop.svc.cluster.local/o's/1?x=y", nil)
	err := badStatus("orders", doc, &http.Response{StatusCode: http.StatusForbidden, Status: "403 Forbidden", Request: req})
	f, ok := errors.AsType[*failure](err)
	const want = `isthmus explain --from spiffe://cluster.local/ns/edge/sa/gateway --to shop/orders --method POST --path '/o'\''s/1' --why-not`
	if !ok || !strings.HasSuffix(f.next, want) {
		t.Errorf("next is %q", f.next)
	}
}

// TestWhereIstiodIsNotKnown: who is outside the cluster is told how to get there.
func TestWhereIstiodIsNotKnown(t *testing.T) {
	m := &meshFlags{istiod: []string{"istiod.no.such.name.invalid:15012"}, getenv: func(string) string { return "" }}
	_, err := m.address(t.Context())
	if f, ok := errors.AsType[*failure](err); !ok || !strings.Contains(f.next, "kubectl -n istio-system port-forward deploy/istiod 15012") {
		t.Errorf("got %+v", err)
	}
}
