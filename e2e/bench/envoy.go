package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/bench/proc"
	"github.com/isthmus-mesh/isthmus/e2e/programs"
)

// envoy is a running Envoy that ends HBONE and forwards to one address.
type envoy struct {
	cmd  *exec.Cmd
	addr string
	dir  string
}

// envoyConfig is a listener that ends CONNECT streams in TCP connections. Limits are raised above what loads here need, windows are Envoy's own.
var envoyConfig = template.Must(template.New("envoy").Parse(`
static_resources:
  listeners:
  - name: hbone
    address: {socket_address: {address: 127.0.0.1, port_value: {{.Port}}}}
    filter_chains:
    - transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          common_tls_context:
            alpn_protocols: [h2]
            tls_params: {tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}
            tls_certificates: [{certificate_chain: {filename: {{.Dir}}/cert.pem}, private_key: {filename: {{.Dir}}/key.pem}}]
            validation_context: {trusted_ca: {filename: {{.Dir}}/root.pem}}
      filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: hbone
          codec_type: HTTP2
          stream_idle_timeout: 0s
          http2_protocol_options: {allow_connect: true, max_concurrent_streams: 2000}
          upgrade_configs: [{upgrade_type: CONNECT}]
          http_filters:
          - name: router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {connect_matcher: {}}
                route:
                  cluster: app
                  timeout: 0s
                  upgrade_configs: [{upgrade_type: CONNECT, connect_config: {}}]
  clusters:
  - name: app
    type: STATIC
    connect_timeout: 5s
    circuit_breakers:
      thresholds: [{max_connections: 100000, max_pending_requests: 100000, max_requests: 100000}]
    load_assignment:
      cluster_name: app
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: {{.Host}}, port_value: {{.AppPort}}}}}}]}]
`))

// envoyStart is how long Envoy has to listen.
const envoyStart = 15 * time.Second

// findEnvoy is the program to run, fetched where it is not given.
func (b *bench) findEnvoy(ctx context.Context) (string, error) {
	if b.envoyPath != "" {
		return b.envoyPath, nil
	}
	set, err := programs.Ensure(ctx, []programs.Name{programs.Envoy}, os.Stderr)
	if err != nil {
		return "", err
	}
	if b.envoyPath = set.Path(programs.Envoy); b.envoyPath == "" {
		return "", fmt.Errorf("there is no Envoy: %s", set.Missing()[0].Reason)
	}
	return b.envoyPath, nil
}

func (b *bench) startEnvoy(ctx context.Context, where proc.Placement, app string) (_ other, err error) {
	path, err := b.findEnvoy(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "isthmus-bench-envoy")
	if err != nil {
		return nil, err
	}
	e := &envoy{dir: dir}
	defer func() {
		if err != nil {
			e.Close()
		}
	}()
	if e.addr, err = freeAddr(ctx); err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(e.addr)
	if err != nil {
		return nil, err
	}
	host, appPort, err := net.SplitHostPort(app)
	if err != nil {
		return nil, err
	}
	var config strings.Builder
	if err := envoyConfig.Execute(&config, map[string]string{"Port": port, "Dir": dir, "Host": host, "AppPort": appPort}); err != nil {
		return nil, err
	}
	for name, content := range map[string][]byte{
		"envoy.yaml": []byte(config.String()), "cert.pem": b.serverID.Cert, "key.pem": b.serverID.Key, "root.pem": b.serverID.Root,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return nil, err
		}
	}
	e.cmd = exec.CommandContext(ctx, path, "-c", filepath.Join(dir, "envoy.yaml"), "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning")
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	e.cmd.Stdout, e.cmd.Stderr = log, log
	if err := proc.StartOn(e.cmd, where.CPUs); err != nil {
		e.cmd = nil
		return nil, err
	}
	if err := e.ready(ctx); err != nil {
		text, readErr := os.ReadFile(log.Name())
		return nil, errors.Join(fmt.Errorf("envoy does not listen: %w: its log: %s", err, text), readErr)
	}
	return e, nil
}

// ready waits until Envoy listens.
func (e *envoy) ready(ctx context.Context) error {
	for end := time.Now().Add(envoyStart); ; time.Sleep(20 * time.Millisecond) {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", e.addr)
		if err == nil {
			c.Close()
			return nil
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return err
		}
	}
}

// Addr is where it listens.
func (e *envoy) Addr() string { return e.addr }

// PID is the process.
func (e *envoy) PID() int { return e.cmd.Process.Pid }

// Close ends it and takes its files away.
func (e *envoy) Close() {
	if e.cmd != nil {
		_ = e.cmd.Process.Kill() // it may have gone by itself
		_ = e.cmd.Wait()         // it was killed: that is no news
	}
	os.RemoveAll(e.dir)
}

// freeAddr is an address nobody listens on.
func freeAddr(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
