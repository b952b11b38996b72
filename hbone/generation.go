package hbone

import (
	"bytes"
	"net/netip"
	"reflect"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// generation is what an Identity shows and trusts until it changes.
type generation struct {
	owner    any // the Identity, which is asked whom to trust
	svid     *x509svid.SVID
	changed  <-chan struct{} // of a Rotator; else nil
	replaced chan struct{}   // closed when there is a newer one
	entries  int             // pool.mu
}

// now reports whether the generation is the one that svid belongs to.
func (g *generation) now(svid *x509svid.SVID) bool {
	select {
	case <-g.changed:
		return false
	default:
	}
	return g.svid == svid || bytes.Equal(g.svid.Certificates[0].Raw, svid.Certificates[0].Raw)
}

// generation is the current one of the Dialer's Identity; p.mu is held. A newer one replaces the last, whose connections then end with their
// last tunnel.
func (p *Pool) generation(d *Dialer, owner any) (*generation, error) {
	svid, err := ownSVID(d.Identity)
	if err != nil {
		return nil, err
	}
	g := p.gens[owner]
	if g != nil && g.now(svid) {
		return g, nil
	}
	if g != nil {
		close(g.replaced)
	}
	next := &generation{owner: owner, replaced: make(chan struct{})}
	if r, ok := d.Identity.(Rotator); ok {
		next.changed = r.Changed() // before the SVID is taken: a change in between makes one generation too many, not one too few
	}
	if next.svid, err = ownSVID(d.Identity); err != nil {
		delete(p.gens, owner)
		return nil, err
	}
	p.gens[owner] = next
	return next, nil
}

// poolKey is what the tunnels of one connection have in common, but for the accepted identities, which an entry compares itself.
type poolKey struct {
	gen  *generation
	via  *Dialer // when it makes TCP connections its own way; else nil
	addr netip.AddrPort
}

// owner is what stands for the Dialer's Identity in maps.
func (d *Dialer) owner() any {
	d.once.Do(func() {
		d.self = d
		if reflect.ValueOf(d.Identity).Comparable() {
			d.self = d.Identity
		}
	})
	return d.self
}

// samePeers reports whether a and b accept the same identities. Routes name few of them, mostly in the same order.
func samePeers(a, b []spiffeid.ID) bool {
	if len(a) == len(b) {
		same := true
		for i := range a {
			same = same && a[i] == b[i]
		}
		if same {
			return true
		}
	}
	return within(a, b) && within(b, a)
}

func within(a, b []spiffeid.ID) bool {
	if len(a)*len(b) > 256 {
		set := make(map[spiffeid.ID]struct{}, len(b))
		for _, id := range b {
			set[id] = struct{}{}
		}
		for _, id := range a {
			if _, ok := set[id]; !ok {
				return false
			}
		}
		return true
	}
	for _, id := range a {
		found := false
		for _, other := range b {
			found = found || id == other
		}
		if !found {
			return false
		}
	}
	return true
}
