package hbone

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// DialError says why a tunnel did not open.
type DialError struct {
	Hop    netip.AddrPort // the HBONE listener that it failed at; zero when there was no route
	Kind   HopKind        // what stands there
	Name   string         // of the hop, when the route has one
	Target string         // CONNECT authority, or the address dialled when there was no route
	Peer   spiffeid.ID    // whom the hop showed itself to be; zero before the handshake ended
	Status int            // the answer to the CONNECT; 0: the peer never answered
	Sent   bool           // the peer may have acted on the request
	Tries  int            // how often DialContext has tried, where it was more than once; else 0
	Err    error
}

// Error names the hop, what happened, and what to look at.
func (e *DialError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "hbone: dial %s", e.Target)
	if e.Hop.IsValid() {
		b.WriteString(" through ")
		if e.Kind != "" {
			b.WriteString(string(e.Kind) + " ")
		}
		if e.Name != "" {
			b.WriteString(e.Name + " ")
		}
		b.WriteString(e.Hop.String())
	}
	if !e.Peer.IsZero() {
		fmt.Fprintf(&b, " (%s)", e.Peer)
	}
	if e.Status != 0 {
		fmt.Fprintf(&b, ": answered %d %s", e.Status, http.StatusText(e.Status))
	} else {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	if e.Tries > 1 {
		fmt.Fprintf(&b, ", the last of %d tries", e.Tries)
	}
	if hint := e.hint(); hint != "" {
		b.WriteString(": " + hint)
	}
	return b.String()
}

// Unwrap gives the cause.
func (e *DialError) Unwrap() error { return e.Err }

// Timeout reports whether time ran out.
func (e *DialError) Timeout() bool {
	return errors.Is(e.Err, context.DeadlineExceeded) || errors.Is(e.Err, os.ErrDeadlineExceeded)
}

// Temporary is there for net.Error; it always is false.
func (e *DialError) Temporary() bool { return false }

// hint is what to do next, "" when there is nothing to say.
func (e *DialError) hint() string {
	switch e.Status {
	case http.StatusBadRequest:
		return "the peer does not serve that address; is the route out of date?"
	case http.StatusUnauthorized, http.StatusForbidden:
		return "an AuthorizationPolicy there does not admit our identity"
	case http.StatusServiceUnavailable:
		return "the peer could not reach the target; is the port open and the workload ready?"
	}
	peer, _ := errors.AsType[*PeerError](e.Err)
	switch {
	case peer != nil && !peer.Got.IsZero() && len(peer.Want) > 0 && peer.Err == nil && e.Kind != "":
		return "the address may belong to another pod by now; is the route out of date?"
	case refusedByPeer(e.Err):
		return refusedHint
	case errors.Is(e.Err, syscall.ECONNREFUSED):
		return "nothing listens there; is the workload part of the mesh (istio.io/dataplane-mode=ambient)?"
	case e.Timeout() && e.Peer.IsZero() && e.Hop.IsValid():
		return "no answer; does a NetworkPolicy or a firewall block port 15008?"
	}
	return ""
}

// refusedHint is what to do about a peer that ends the handshake.
const refusedHint = "the other end broke TLS off: does it trust our roots, is our certificate valid by its clock and not revoked, and has it a certificate itself?"

// refusedByPeer reports whether err is a TLS alert of the other end.
func refusedByPeer(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "remote error"
}

// SafeToRetry reports whether err came before the peer could act on the request.
func SafeToRetry(err error) bool {
	e, ok := errors.AsType[*DialError](err)
	return ok && !e.Sent
}

// PeerError is a peer that showed another identity than its route expects, or a certificate that is not acceptable.
type PeerError struct {
	Got    spiffeid.ID   // zero when the certificate has no acceptable identity
	Want   []spiffeid.ID // empty at a server
	Reason string
	Err    error // may be nil
}

func (e *PeerError) Error() string {
	var b strings.Builder
	b.WriteString("peer certificate refused: " + e.Reason)
	if !e.Got.IsZero() {
		fmt.Fprintf(&b, ", it is %s", e.Got)
	}
	if len(e.Want) > 0 {
		fmt.Fprintf(&b, ", expected %s", joinIDs(e.Want))
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	return b.String()
}

// Unwrap gives the cause.
func (e *PeerError) Unwrap() error { return e.Err }

func joinIDs(ids []spiffeid.ID) string {
	list := make([]string, 0, min(len(ids), 4))
	for i, id := range ids {
		if i == 3 && len(ids) > 4 {
			list = append(list, fmt.Sprintf("%d more", len(ids)-3))
			break
		}
		list = append(list, id.String())
	}
	return strings.Join(list, " or ")
}

// Refusal is an error with which Server.Connect chooses the answer to a CONNECT.
type Refusal struct {
	// Status is sent to the peer: 400 (not a target of ours), 401 or 403 (denied), 503 (target not reachable). Zero means 503.
	Status int
	// Err stays here, for the server's own trace; it may be nil.
	Err error
}

func (e *Refusal) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("refused with status %d", e.status())
	}
	return fmt.Sprintf("refused with status %d: %v", e.status(), e.Err)
}

// Unwrap gives the cause.
func (e *Refusal) Unwrap() error { return e.Err }

func (e *Refusal) status() int {
	if e.Status == 0 {
		return http.StatusServiceUnavailable
	}
	return e.Status
}

// errPoolClosed is a Pool after Close.
var errPoolClosed = fmt.Errorf("the dialer's pool is closed: %w", net.ErrClosed)

// isTooMany reports whether the process or the system is out of descriptors.
func isTooMany(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ECONNABORTED)
}
