package hbone

import (
	"context"
	"net"
	"net/netip"

	"github.com/isthmus-mesh/isthmus/hbone/internal/h2"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// ProbeConfig says what to probe.
type ProbeConfig struct {
	Identity  Identity       // required: who asks
	Addr      netip.AddrPort // the HBONE listener
	Peers     []spiffeid.ID  // who may answer; at least one
	Authority string         // CONNECT authority to ask for
	// NetDial makes the TCP connection. Nil means a net.Dialer.
	NetDial func(ctx context.Context, network, address string) (net.Conn, error)
}

// ProbeResult is what a listener showed.
type ProbeResult struct {
	Peer   spiffeid.ID
	Status int // any: a refusal is an answer too
}

// Probe makes one connection and one CONNECT, and tells who answered what. An error means that there was no answer. It blocks until
// then or until ctx ends, and leaves nothing open.
func Probe(ctx context.Context, cfg ProbeConfig) (ProbeResult, error) {
	hop := Hop{Addr: cfg.Addr, Authority: cfg.Authority, Peers: cfg.Peers}
	d := &Dialer{Identity: cfg.Identity, NetDial: cfg.NetDial}
	if len(cfg.Peers) == 0 {
		return ProbeResult{}, hop.fail(spiffeid.ID{}, false, &PeerError{Reason: "nobody was named who may answer"})
	}
	nc, peer, err := d.connect(ctx, hop)
	if err != nil {
		return ProbeResult{}, hop.fail(peer, false, err)
	}
	c := h2.NewClient(nc, h2.Config{})
	defer c.Close()
	s, err := d.open(ctx, c, hop, Route{})
	if err == nil {
		s.Close()
		return ProbeResult{Peer: peer, Status: 200}, nil
	}
	failed := hop.fail(peer, true, err)
	if failed.Status != 0 {
		return ProbeResult{Peer: peer, Status: failed.Status}, nil
	}
	return ProbeResult{Peer: peer}, failed
}
