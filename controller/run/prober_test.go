package run

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/isthmus-mesh/isthmus/identity/identitytest"
)

// TestAWaypointThatDoesNotListenIsToldBriefly: an address once, and no advice that is for workloads.
func TestAWaypointThatDoesNotListenIsToldBriefly(t *testing.T) {
	id := spiffeid.RequireFromString("spiffe://cluster.local/ns/isthmus-system/sa/isthmus-controller")
	refused := func(_ context.Context, network, address string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(address)), Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	}
	p := &HBONEProber{Identity: identitytest.NewCA(id.TrustDomain()).Source(id), NetDial: refused}
	at := netip.MustParseAddrPort("10.0.0.7:15008")
	peers := []spiffeid.ID{spiffeid.RequireFromString("spiffe://cluster.local/ns/shop/sa/waypoint")}
	for name, err := range map[string]error{
		"answers": p.Answers(t.Context(), at, peers, at.String()),
		"serves":  p.Serves(t.Context(), at, peers, "10.96.0.1:80", nil),
	} {
		if err == nil || !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("%s: got %v", name, err)
		}
		if said := err.Error(); said != "10.0.0.7:15008: connect: connection refused" || strings.Contains(said, "dataplane-mode") {
			t.Errorf("%s: it says %q", name, said)
		}
	}
}
