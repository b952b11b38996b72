package hbone

import (
	"crypto/tls"
	"net"
	"testing"

	"github.com/isthmus-mesh/isthmus/identity/identitytest"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// spec/hbone: TLS 1.3, ALPN h2, no SNI, no resumption, the post-quantum hybrid where both have it.
func TestHandshakesAreWhatThePeersExpect(t *testing.T) {
	orders := spiffeid.RequireFromString("spiffe://cluster.local/ns/shop/sa/orders")
	ca := identitytest.NewCA(orders.TrustDomain())
	id := ca.Source(orders)
	svid, err := ownSVID(id)
	if err != nil {
		t.Fatal(err)
	}
	server := serverTLS(id)
	var sni string
	var curves []tls.CurveID
	server.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		sni, curves = hello.ServerName, hello.SupportedCurves
		return nil, nil
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	client := tls.Client(a, clientTLS(id, svid, []spiffeid.ID{orders}))
	far := tls.Server(b, server)
	done := make(chan error, 1)
	go func() { done <- far.HandshakeContext(t.Context()) }()
	if err := client.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	cs := client.ConnectionState()
	if cs.Version != tls.VersionTLS13 || cs.NegotiatedProtocol != "h2" || cs.CurveID != tls.X25519MLKEM768 || cs.DidResume || sni != "" {
		t.Errorf("TLS %x, protocol %q, curve %v, resumed %v, SNI %q, offered %v", cs.Version, cs.NegotiatedProtocol, cs.CurveID, cs.DidResume, sni, curves)
	}
}
