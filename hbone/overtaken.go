package hbone

import (
	"errors"
	"fmt"
	"slices"
)

// errOvertaken is a handshake that failed for the sake of certificates while our identity was replaced: what it began with was good then. It may
// be made again with what we have now.
var errOvertaken = errors.New("our identity was replaced meanwhile")

// over reports whether there is a newer one.
func (g *generation) over() bool {
	select {
	case <-g.changed:
	case <-g.replaced:
	default:
		return false
	}
	return true
}

// overtaken marks the error of a connection that could not be made.
func (g *generation) overtaken(err error) error {
	_, peer := errors.AsType[*PeerError](err)
	if (peer || refusedByPeer(err)) && g.over() {
		return fmt.Errorf("%w: %w", errOvertaken, err)
	}
	return err
}

// refused reports whether err is the peer's refusal of our certificate, which in TLS 1.3 comes after our side of the handshake is done. A server says
// something (its SETTINGS) as soon as it has accepted us, so it has acted on nothing.
func (pc *pooled) refused(err error) bool {
	if !refusedByPeer(err) {
		return false
	}
	select {
	case <-pc.h2.Ready():
		return false
	default:
		return true
	}
}

// tellRefused tells those who wait when the peer has refused our certificate before any of them had the connection; p.mu is held. The next connection
// would only be refused like this one.
func (pc *pooled) tellRefused() {
	e, err := pc.e, pc.h2.Err()
	if !pc.refused(err) || e.waiting == 0 || len(e.dials) > 0 {
		return
	}
	if !slices.ContainsFunc(e.conns, func(o *pooled) bool { return o != pc && !o.settled }) {
		e.fail(e.key.gen.overtaken(err))
	}
}
