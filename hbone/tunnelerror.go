package hbone

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/isthmus-mesh/isthmus/hbone/internal/h2"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/net/http2"
)

// TunnelError ends a tunnel that had opened.
type TunnelError struct {
	Op     string         // read, write or close
	Hop    netip.AddrPort // at a client the HBONE listener, at a server the peer
	Kind   HopKind        // what stands there; empty at a server
	Target string         // CONNECT authority
	Peer   spiffeid.ID
	Err    error
}

func (e *TunnelError) Error() string {
	way := "from"
	if e.Kind != "" {
		way = "through " + string(e.Kind)
	}
	text := fmt.Sprintf("hbone: %s tunnel to %s %s %s (%s): %v", e.Op, e.Target, way, e.Hop, e.Peer, e.Err)
	reset, ok := errors.AsType[*h2.ResetError](e.Err)
	switch {
	case ok && reset.Remote && reset.Code == http2.ErrCodeConnect:
		text += ": the peer could not reach the target, or its policy denies the connection"
	case ok && reset.Remote && reset.Code == http2.ErrCodeCancel:
		text += ": the peer ended it; a policy may deny it now"
	case refusedByPeer(e.Err):
		text += ": " + refusedHint
	}
	return text
}

// Unwrap gives the cause.
func (e *TunnelError) Unwrap() error { return e.Err }
