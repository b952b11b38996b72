package run

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/isthmus-mesh/isthmus/hbone"
)

// settle is how long a tunnel must last to count as one that the waypoint carries.
const settle = 100 * time.Millisecond

// Prober asks waypoints. Its methods block until there is an answer or ctx ends.
type Prober interface {
	// Answers asks for a tunnel to authority, and verifies that the waypoint has one of the identities. Any status is an answer.
	Answers(ctx context.Context, addr netip.AddrPort, peers []spiffeid.ID, authority string) error
	// Serves asks for a tunnel to authority, sends hello in it, and says why the waypoint does not carry it.
	Serves(ctx context.Context, addr netip.AddrPort, peers []spiffeid.ID, authority string, hello []byte) error
}

// NewProber asks over HBONE with an identity of the mesh.
func NewProber(id hbone.Identity) Prober { return &HBONEProber{Identity: id} }

// HBONEProber asks over HBONE.
type HBONEProber struct {
	// Identity is who asks. Required.
	Identity hbone.Identity
	// NetDial makes TCP connections. Nil means a net.Dialer.
	NetDial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Answers makes one connection and asks for one tunnel.
func (p *HBONEProber) Answers(ctx context.Context, addr netip.AddrPort, peers []spiffeid.ID, authority string) error {
	_, err := hbone.Probe(ctx, hbone.ProbeConfig{Identity: p.Identity, NetDial: p.NetDial, Addr: addr, Peers: peers, Authority: authority})
	return briefly(addr, err)
}

// briefly is err with the waypoint's address named once, where it could not be connected to: that it is asked over HBONE is known, and it is no
// workload that somebody forgot to bring into the mesh.
func briefly(addr netip.AddrPort, err error) error {
	op, is := errors.AsType[*net.OpError](err)
	if !is || op.Op != "dial" {
		return err
	}
	return fmt.Errorf("%s: %w", addr, op.Err)
}

// Serves makes one connection, asks for one tunnel, and looks whether it lasts.
func (p *HBONEProber) Serves(ctx context.Context, addr netip.AddrPort, peers []spiffeid.ID, authority string, hello []byte) error {
	r, err := hbone.Probe(ctx, hbone.ProbeConfig{Identity: p.Identity, NetDial: p.NetDial, Addr: addr, Peers: peers, Authority: authority, Hello: hello, Settle: settle})
	switch {
	case err != nil:
		return briefly(addr, err)
	// Those are policies: it knows where this leads, and will not carry us there.
	case r.Status == http.StatusUnauthorized || r.Status == http.StatusForbidden:
		return nil
	case r.Status != http.StatusOK:
		return fmt.Errorf("it answers CONNECT %s with %d", authority, r.Status)
	case r.Ended != nil:
		return errors.New("it ends the tunnel")
	}
	return nil
}

var _ Prober = (*HBONEProber)(nil)
