package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"

	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"text/template"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/programs"
	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// envoyBinary is a real Envoy's path.
func envoyBinary(t *testing.T) string {
	t.Helper()
	set, err := programs.Ensure(t.Context(), []programs.Name{programs.Envoy}, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range set.Missing() { // Ensure fails with CI=true
		t.Skip(m.Reason)
	}
	return set.Path(programs.Envoy)
}

// envoyConfig is one listener: connect ends CONNECT in front of Target, tunnel sends plain TCP as CONNECT Authority to Target.
var envoyConfig = template.Must(template.New("envoy").Parse(`
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}
static_resources:
  listeners:
  - name: in
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
{{- if .Authority}}
    - filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: tunnel
          cluster: out
          tunneling_config: {hostname: "{{.Authority}}"}
{{- else}}
    - transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          common_tls_context: {{template "tls" .}}
      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: connect
          codec_type: HTTP2
          http2_protocol_options: {allow_connect: true, max_concurrent_streams: 100}
          upgrade_configs: [{upgrade_type: CONNECT}]
          http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {connect_matcher: {}}
                route: {cluster: out, timeout: 0s, upgrade_configs: [{upgrade_type: CONNECT, connect_config: {}}]}
{{- end}}
  clusters:
  - name: out
    type: STATIC
    connect_timeout: 5s
    load_assignment:
      cluster_name: out
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: {{.Target.Port}}}}}}]}]
{{- if .Authority}}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {allow_connect: true}}
    transport_socket:
      name: tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        common_tls_context: {{template "tls" .}}
{{- end}}
{{define "tls"}}
            tls_params: {tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}
            alpn_protocols: [h2]
            tls_certificates: [{certificate_chain: {filename: {{.Cert}}}, private_key: {filename: {{.Key}}}}]
            validation_context: {trusted_ca: {filename: {{.Root}}}}
{{- end}}
`))

type envoyValues struct {
	Authority       string
	Target          netip.AddrPort
	Cert, Key, Root string
}

// envoy is a running Envoy.
type envoy struct {
	cmd  *exec.Cmd
	addr netip.AddrPort
	log  *bytes.Buffer
	done chan struct{}
}

// startEnvoy runs one until the test ends.
func startEnvoy(t *testing.T, w *world, v envoyValues, shows spiffeid.ID) *envoy {
	t.Helper()
	binary := envoyBinary(t)
	dir := t.TempDir()
	v.Cert, v.Key = keyFiles(t, w.ca, shows)
	v.Root = filepath.Join(dir, "root.pem")
	if err := os.WriteFile(v.Root, identitytest.PEM(w.ca.Root), 0o600); err != nil {
		t.Fatal(err)
	}
	var config bytes.Buffer
	if err := envoyConfig.Execute(&config, v); err != nil {
		t.Fatal(err)
	}
	path, admin := filepath.Join(dir, "envoy.yaml"), filepath.Join(dir, "admin")
	if err := os.WriteFile(path, config.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	e := &envoy{log: new(bytes.Buffer), done: make(chan struct{})}
	e.cmd = exec.Command(binary, "-c", path, "--concurrency", "1", "--disable-hot-restart", "--log-level", "warn", "--admin-address-path", admin)
	e.cmd.Stderr = e.log
	if err := e.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = e.cmd.Wait(); close(e.done) }()
	t.Cleanup(func() { _ = e.cmd.Process.Kill(); <-e.done })
	deadline := time.Now().Add(30 * time.Second)
	for ; !e.addr.IsValid(); time.Sleep(20 * time.Millisecond) { // another process: only its admin tells
		select {
		case <-e.done:
			t.Fatalf("Envoy ended: %s", e.log)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatal("Envoy has no listener after 30 s")
		}
		e.addr = listenerOf(admin)
	}
	return e
}

// listenerOf asks Envoy's admin where its listener is; zero: not yet.
func listenerOf(admin string) netip.AddrPort {
	at, err := os.ReadFile(admin)
	if err != nil {
		return netip.AddrPort{}
	}
	ready, err := http.Get("http://" + string(at) + "/ready")
	if err != nil {
		return netip.AddrPort{}
	}
	ready.Body.Close()
	if ready.StatusCode != http.StatusOK {
		return netip.AddrPort{}
	}
	res, err := http.Get("http://" + string(at) + "/listeners?format=json")
	if err != nil {
		return netip.AddrPort{}
	}
	defer res.Body.Close()
	var list struct {
		Statuses []struct {
			Address struct {
				Socket struct {
					Address string `json:"address"`
					Port    uint16 `json:"port_value"`
				} `json:"socket_address"`
			} `json:"local_address"`
		} `json:"listener_statuses"`
	}
	if json.NewDecoder(res.Body).Decode(&list) != nil || len(list.Statuses) == 0 || list.Statuses[0].Address.Socket.Port == 0 {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), list.Statuses[0].Address.Socket.Port)
}

// terminator is Envoy as HBONE server in front of target.
func (w *world) terminator(t *testing.T, target netip.AddrPort) *envoy {
	return startEnvoy(t, w, envoyValues{Target: target}, orders)
}

// originator is Envoy as HBONE client: what connects to it is sent as CONNECT authority to target.
func (w *world) originator(t *testing.T, target netip.AddrPort, authority string) *envoy {
	return startEnvoy(t, w, envoyValues{Target: target, Authority: authority}, gateway)
}

func TestOurDialerAndEnvoy(t *testing.T) {
	w := newWorld(t, echo)
	e := w.terminator(t, w.app)
	d := w.dialer(t, e.addr)
	if err := exchange(w.dial(t, d), random(1, megabytes<<20)); err != nil {
		t.Error(err)
	}
	t.Run("more tunnels than it takes on a connection", func(t *testing.T) {
		var wg sync.WaitGroup
		for i := range 250 { // the 101st on one connection would kill it and all the others
			c := w.dial(t, d)
			wg.Go(func() {
				for range 3 {
					if err := exchange(c, random(uint64(i), 5000)); err != nil {
						t.Errorf("tunnel %d: %v", i, err)
						return
					}
				}
			})
		}
		wg.Wait()
	})
	t.Run("a rollout ends tunnels, never cleanly", func(t *testing.T) {
		c := w.dial(t, d)
		if err := exchange(c, random(5, 5000)); err != nil {
			t.Fatal(err)
		}
		_ = e.cmd.Process.Signal(syscall.SIGTERM)
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read gave %v, want ECONNRESET", err)
		}
	})
}

func TestOurDialerAndEnvoysEndings(t *testing.T) {
	t.Run("a closed port", func(t *testing.T) {
		w := newWorld(t, echo)
		d := w.dialer(t, w.terminator(t, netip.MustParseAddrPort(closedPort(t))).addr)
		if _, err := d.DialContext(t.Context(), "tcp", w.app.String()); status(err) != http.StatusServiceUnavailable {
			t.Errorf("got %v, want 503 and not the reset behind it", err)
		}
	})
	t.Run("the application resets", func(t *testing.T) {
		w := newWorld(t, resets)
		c := w.dial(t, w.dialer(t, w.terminator(t, w.app).addr))
		_, _ = c.Write([]byte("x"))
		_, err := io.ReadAll(c)
		if e, ok := errors.AsType[*hbone.TunnelError](err); !ok || !errors.Is(e, syscall.ECONNRESET) {
			t.Errorf("read gave %v, want ECONNRESET", err)
		}
	})
	t.Run("the client ends first", func(t *testing.T) {
		got := make(chan []byte, 1)
		up, down := random(1, 1<<20), random(2, 1<<20)
		w := newWorld(t, ends(false, down, got))
		c := w.dial(t, w.dialer(t, w.terminator(t, w.app).addr)).(halfCloser)
		if _, err := c.Write(up); err != nil {
			t.Error(err)
		}
		if err := c.CloseWrite(); err != nil {
			t.Error(err)
		}
		if b, err := io.ReadAll(c); err != nil || !bytes.Equal(b, down) {
			t.Errorf("read %d bytes, %v", len(b), err)
		}
		if b := <-got; !bytes.Equal(b, up) {
			t.Errorf("the application read %d bytes", len(b))
		}
	})
	t.Run("the application ends first", func(t *testing.T) {
		// Envoy then resets with NO_ERROR: what came before is all there and ends cleanly, our writes fail and say so. It drops what it still holds for want
		// of a window, though, with INTERNAL_ERROR instead of an end: so this is less than a window.
		down := random(2, 128<<10)
		got := make(chan []byte, 1)
		w := newWorld(t, ends(true, down, got))
		c := w.dial(t, w.dialer(t, w.terminator(t, w.app).addr))
		if b, err := io.ReadAll(c); err != nil || !bytes.Equal(b, down) {
			t.Errorf("read %d bytes, %v", len(b), err)
		}
		var err error
		for range 1000 {
			if _, err = c.Write(make([]byte, 10_000)); err != nil {
				break
			}
		}
		if err == nil || !errors.Is(err, syscall.EPIPE) {
			t.Errorf("write gave %v, want EPIPE", err)
		}
	})
}

func TestEnvoyAndOurServer(t *testing.T) {
	w := newWorld(t, echo)
	e := w.originator(t, w.ours(t), w.app.String())
	dial := func(t *testing.T) net.Conn {
		t.Helper()
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", e.addr.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		return c
	}
	if err := exchange(dial(t), random(1, megabytes<<20)); err != nil {
		t.Error(err)
	}
	var wg sync.WaitGroup
	for i := range 300 { // more than we take on a connection
		c := dial(t)
		wg.Go(func() {
			if err := exchange(c, random(uint64(i), 5000)); err != nil {
				t.Errorf("tunnel %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	t.Run("half-close", func(t *testing.T) {
		halfClose(t, func(t *testing.T, app func(*net.TCPConn)) halfCloser {
			w := newWorld(t, app)
			e := w.originator(t, w.ours(t), w.app.String())
			c, err := net.Dial("tcp", e.addr.String())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			_ = c.SetDeadline(time.Now().Add(time.Minute))
			return c.(*net.TCPConn)
		})
	})
}

// A server that drains loses none of Envoy's tunnels: Envoy does not retry what a GOAWAY cuts off.
func TestEnvoyAndOurServersDrain(t *testing.T) {
	w := newWorld(t, echo)
	server := &hbone.Server{Identity: w.ca.Source(orders), Connect: func(ctx context.Context, r *hbone.ConnectRequest) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", r.Authority)
	}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(l)
	defer server.Close()
	e := w.originator(t, l.Addr().(*net.TCPAddr).AddrPort(), w.app.String())
	c, err := net.Dial("tcp", e.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if err := exchange(c, random(1, 5000)); err != nil {
		t.Fatal(err)
	}
	drainUnder(t, server, c)
}

// drainUnder drains our server while a connection through one of its tunnels is in use: that goes on, and the drain ends when it does.
func drainUnder(t *testing.T, server *hbone.Server, c net.Conn) {
	t.Helper()
	drained := make(chan error, 1)
	go func() { drained <- server.Shutdown(t.Context()) }()
	for i := range 20 {
		if err := exchange(c, random(uint64(i), 50_000)); err != nil {
			t.Fatalf("during the drain: %v", err)
		}
	}
	c.Close()
	select {
	case err := <-drained:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Error("the drain does not end")
	}
}
