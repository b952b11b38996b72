package run

import (
	"context"
	"errors"
	"fmt"
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
func NewProber(id hbone.Identity) Prober { return &prober{id} }

type prober struct{ id hbone.Identity }

func (p *prober) Answers(ctx context.Context, addr netip.AddrPort, peers []spiffeid.ID, authority string) error {
	_, err := hbone.Probe(ctx, hbone.ProbeConfig{Identity: p.id, Addr: addr, Peers: peers, Authority: authority})
	return err
}

func (p *prober) Serves(ctx context.Context, addr netip.AddrPort, peers []spiffeid.ID, authority string, hello []byte) error {
	r, err := hbone.Probe(ctx, hbone.ProbeConfig{Identity: p.id, Addr: addr, Peers: peers, Authority: authority, Hello: hello, Settle: settle})
	switch {
	case err != nil:
		return err
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
