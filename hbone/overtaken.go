package hbone

import (
	"errors"
	"fmt"
	"slices"

	"github.com/isthmus-mesh/isthmus/hbone/internal/h2"
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
	if g.over() {
		return overtaken(err)
	}
	return err
}

// overtaken marks err where it is for the sake of certificates.
func overtaken(err error) error {
	if _, peer := errors.AsType[*PeerError](err); peer || refusedByPeer(err) {
		return fmt.Errorf("%w: %w", errOvertaken, err)
	}
	return err
}

// showing is what our Identity shows now, for a connection that is in no pool.
func (d *Dialer) showing() (*generation, error) {
	g := &generation{}
	if r, ok := d.Identity.(Rotator); ok {
		g.changed = r.Changed() // before the SVID is taken: a change in between counts
	}
	var err error
	g.svid, err = ownSVID(d.Identity)
	return g, err
}

// replaced reports whether our Identity shows something else than in g by now.
func (d *Dialer) replaced(g *generation) bool {
	if g.over() {
		return true
	}
	svid, err := ownSVID(d.Identity)
	return err == nil && !g.now(svid)
}

// refusedUs reports whether err is the refusal of our certificate by the peer of c, which in TLS 1.3 comes after our side of the handshake is done. A
// server says something (its SETTINGS) as soon as it has accepted us, so it has acted on nothing.
func refusedUs(c *h2.Conn, err error) bool {
	if !refusedByPeer(err) {
		return false
	}
	select {
	case <-c.Ready():
		return false
	default:
		return true
	}
}

func (pc *pooled) refused(err error) bool { return refusedUs(pc.h2, err) }

// overtaken reports whether err, of a tunnel on this way, is the refusal of a certificate that was replaced meanwhile.
func (w *way) overtaken(err error) bool {
	c, g := w.inside, w.shown
	if w.pc != nil {
		c, g = w.pc.h2, w.pc.e.key.gen
	}
	return refusedUs(c, err) && w.d.replaced(g)
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
