package carrier

import (
	"context"
	"net"

	istio "istio.io/istio/pkg/hbone"
	istiolog "istio.io/istio/pkg/log"
)

// istioClient is Istio's dialer, as it is.
type istioClient struct {
	d      istio.Dialer
	target string
}

func newIstio(id *identity, cfg Config, addr string) (Client, error) {
	silence()
	return istioClient{istio.NewDialer(istio.Config{ProxyAddress: addr, TLS: id.tlsConfig()}), cfg.Target}, nil
}

func (c istioClient) Open(ctx context.Context) (net.Conn, error) {
	return c.d.DialContext(ctx, "tcp", c.target)
}

// serveIstio is Istio's server, as it is; it forwards to what a CONNECT names.
func serveIstio(l net.Listener, id *identity) error {
	silence()
	s := istio.NewServer()
	s.TLSConfig = id.tlsConfig()
	s.Protocols.SetHTTP2(true)
	return s.ServeTLS(l, "", "")
}

// silence stops the lines that Istio logs for every tunnel.
func silence() {
	if s := istiolog.FindScope("hbone"); s != nil {
		s.SetOutputLevel(istiolog.NoneLevel)
	}
}
