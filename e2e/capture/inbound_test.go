package capture_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/e2e/capture"
	"github.com/isthmus-mesh/isthmus/e2e/node"
	"github.com/isthmus-mesh/isthmus/identity/istioca"
)

// plainly asks a pod on its own address from the node, outside of the mesh.
func (c *cluster) plainly(pod, port, path string) error {
	c.t.Helper()
	target := "http://" + net.JoinHostPort(c.Node.PodIP(c.ns, pod).String(), port) + path
	req, err := http.NewRequestWithContext(c.ctx(), http.MethodGet, target, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	res, err := (&http.Transport{DialContext: c.NS.DialContext, DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, res.Body)
	res.Body.Close()
	return err
}

// TestBypassLetsPlaintextInUnderStrict shows what ambient.istio.io/bypass-inbound-capture does to a real mesh's STRICT: the caller has it.
func TestBypassLetsPlaintextInUnderStrict(t *testing.T) {
	c := newCluster(t, "bypass")
	c.needNFTables()
	c.enrol(true)
	c.eventually("/", 200)
	c.apply(`
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: bypass}
spec: {mtls: {mode: STRICT}}
`)
	c.until("plaintext to orders is refused", func() bool { return c.plainly("orders", "8080", "/") != nil })
	s, err := c.Node.Sniff(c.ns, "caller", node.Filter{Peer: c.Istiod.XDS.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.plainly("caller", "8080", "/in-the-clear"); err != nil {
		t.Errorf("plaintext to the pod that bypasses: %v", err)
	}
	if _, err := s.Stop(); err != nil || !s.Saw([]byte("GET /in-the-clear")) {
		t.Errorf("the request was not seen in the clear: %v", err)
	}
	for _, e := range capture.Entries(c.Node.Tail(c.ns, "caller", "capture", 1000)) {
		if e.Direction == capture.Inbound {
			t.Errorf("its process carried %+v", e)
		}
	}
	c.eventually("/", 200) // outbound it is captured like any other
}

// TestWhatATunnelMayAskFor speaks CONNECT to a captured pod with an identity of the mesh.
func TestWhatATunnelMayAskFor(t *testing.T) {
	c := newCluster(t, "tunnel")
	orders, caller := c.Node.PodIP(c.ns, "orders"), c.Node.PodIP(c.ns, "caller")
	at := func(ip netip.Addr, port uint16) string { return netip.AddrPortFrom(ip, port).String() }
	tr := c.tunnels("caller")
	for name, tt := range map[string]struct {
		method, authority string
		want              int
	}{
		"its own address":             {http.MethodConnect, at(orders, 8080), http.StatusOK},
		"a port where nobody listens": {http.MethodConnect, at(orders, 9), http.StatusServiceUnavailable},
		"another pod":                 {http.MethodConnect, at(caller, 8080), http.StatusBadRequest},
		"an unknown address":          {http.MethodConnect, "192.0.2.1:80", http.StatusBadRequest},
		"loopback":                    {http.MethodConnect, "127.0.0.1:8080", http.StatusBadRequest},
		"IPv4 in IPv6":                {http.MethodConnect, "[::ffff:" + orders.String() + "]:8080", http.StatusBadRequest},
		"the outbound port":           {http.MethodConnect, at(orders, 15001), http.StatusServiceUnavailable},
		"the plaintext port":          {http.MethodConnect, at(orders, 15006), http.StatusServiceUnavailable},
		"the HBONE port":              {http.MethodConnect, at(orders, 15008), http.StatusServiceUnavailable},
		"no port":                     {http.MethodConnect, orders.String(), http.StatusBadRequest},
		"a port out of range":         {http.MethodConnect, orders.String() + ":70000", http.StatusBadRequest},
		"a method but CONNECT":        {http.MethodGet, at(orders, 8080), http.StatusBadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			body, w := io.Pipe()
			defer w.Close()
			req := (&http.Request{
				Method: tt.method, Host: tt.authority, Header: http.Header{}, Body: body,
				URL: &url.URL{Scheme: "https", Host: at(orders, 15008), Path: "/"},
			}).WithContext(c.ctx())
			if tt.method != http.MethodConnect {
				req.Body = nil
			}
			res, err := tr.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if res.StatusCode != tt.want {
				t.Errorf("%s %s: got %d, want %d", tt.method, tt.authority, res.StatusCode, tt.want)
			}
		})
	}
}

// tunnels makes HTTP/2 connections from the node, with a certificate that istiod issues to a service account.
func (c *cluster) tunnels(account string) *http.Transport {
	c.t.Helper()
	req := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{"istio-ca"}}}
	sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: c.ns, Name: account}}
	if err := c.Client().SubResource("token").Create(c.ctx(), sa, req); err != nil {
		c.t.Fatal(err)
	}
	id, err := istioca.New(c.ctx(), istioca.Config{
		Addresses: []string{c.Istiod.CA.String()}, ServerName: c.Istiod.ServerName, Roots: func() ([]byte, error) { return c.RootPEM, nil },
		Token:       func(context.Context) (string, error) { return req.Status.Token, nil },
		ID:          spiffeid.RequireFromSegments(spiffeid.RequireTrustDomainFromString("cluster.local"), "ns", c.ns, "sa", account),
		DialContext: c.NS.DialContext,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { id.Close() })
	svid, err := id.GetX509SVID()
	if err != nil {
		c.t.Fatal(err)
	}
	cert := tls.Certificate{PrivateKey: svid.PrivateKey}
	for _, x := range svid.Certificates {
		cert.Certificate = append(cert.Certificate, x.Raw)
	}
	cfg := &tls.Config{
		MinVersion:           tls.VersionTLS13,
		NextProtos:           []string{"h2"},
		InsecureSkipVerify:   true, // whom we ask is not what is tested
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil },
	}
	tr := &http.Transport{Protocols: &http.Protocols{}}
	tr.Protocols.SetHTTP2(true)
	tr.DialTLSContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		nc, err := c.NS.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		tc := tls.Client(nc, cfg)
		return tc, tc.HandshakeContext(ctx)
	}
	c.t.Cleanup(tr.CloseIdleConnections)
	return tr
}
