package hbone

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"os"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/internal/h2"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// ProbeConfig says what to probe.
type ProbeConfig struct {
	Identity  Identity       // required: who asks
	Addr      netip.AddrPort // the HBONE listener
	Peers     []spiffeid.ID  // who may answer; at least one
	Authority string         // CONNECT authority to ask for
	// Hello is sent in the tunnel when it is open, and Settle is how long the tunnel must then last: a proxy that opens every tunnel
	// ends it when it learns that it cannot carry it. Zero Settle waits for nothing; negative is zero.
	Hello  []byte
	Settle time.Duration
	// NetDial makes the TCP connection. Nil means a net.Dialer.
	NetDial func(ctx context.Context, network, address string) (net.Conn, error)
}

// ProbeResult is what a listener showed.
type ProbeResult struct {
	Peer   spiffeid.ID
	Status int // any: a refusal is an answer too
	// Ended is why the tunnel ended within ProbeConfig.Settle. Nil: it lasted, or was refused.
	Ended error
}

// Probe makes one connection and one CONNECT, and tells who answered what. An error means that there was no answer. It blocks until
// then or until ctx ends, and leaves nothing open.
func Probe(ctx context.Context, cfg ProbeConfig) (ProbeResult, error) {
	hop := Hop{Addr: cfg.Addr, Authority: cfg.Authority, Peers: cfg.Peers}
	d := &Dialer{Identity: cfg.Identity, NetDial: cfg.NetDial}
	if len(cfg.Peers) == 0 {
		return ProbeResult{}, hop.fail(spiffeid.ID{}, false, &PeerError{Reason: "nobody was named who may answer"})
	}
	svid, err := ownSVID(cfg.Identity)
	if err != nil {
		return ProbeResult{}, hop.fail(spiffeid.ID{}, false, err)
	}
	nc, li, err := d.connect(ctx, &hop, svid)
	if err != nil {
		return ProbeResult{}, hop.fail(li.peer, false, err)
	}
	peer := li.peer
	c := h2.NewClient(nc, h2.Config{})
	defer c.Close()
	s, err := c.Start(newWay(d, &Route{Hops: []Hop{hop}}, 0, li).fields)
	if err == nil {
		err = s.Await(ctx)
	}
	if err == nil {
		defer s.Close()
		return ProbeResult{Peer: peer, Status: http.StatusOK, Ended: settle(ctx, s, cfg)}, nil
	}
	failed := hop.fail(peer, true, err)
	if failed.Status != 0 {
		return ProbeResult{Peer: peer, Status: failed.Status}, nil
	}
	return ProbeResult{Peer: peer}, failed
}

// settle says why the tunnel ended, if it did so soon.
func settle(ctx context.Context, s *h2.Stream, cfg ProbeConfig) error {
	if cfg.Settle <= 0 {
		return nil
	}
	deadline := time.Now().Add(cfg.Settle)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := s.SetDeadline(deadline); err != nil {
		return err
	}
	if len(cfg.Hello) > 0 {
		if _, err := s.Write(cfg.Hello); err != nil {
			return err
		}
	}
	_, err := s.Read(make([]byte, 1))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err // nil: it answered
}
