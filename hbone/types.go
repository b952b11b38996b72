package hbone

import (
	"context"
	"crypto/x509"
	"net/netip"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// Identity is what a dialer or a server shows to its peers, and whom it trusts. identity.Source and go-spiffe's
// workloadapi.X509Source are Identities. Both methods are called for every handshake and must be safe for concurrent use.
type Identity interface {
	x509svid.Source
	x509bundle.Source
}

// Rotator is an Identity that tells when it has changed.
type Rotator interface {
	// Changed returns a channel that is closed when a newer SVID or bundle has come. Call it again for the next one.
	Changed() <-chan struct{}
}

// Reviewer is an Identity that may believe a peer no more whose certificate it has accepted, as when that was revoked. identity.Source is one.
type Reviewer interface {
	// CheckPeer says why the peer that showed chain, leaf first, is not to be believed although signatures and dates held. It is asked in every
	// handshake, and about every open connection when Rechecks tells: then an error ends the connection with its tunnels. It must not block.
	CheckPeer(chain []*x509.Certificate) error
	// Rechecks returns a channel that is closed when CheckPeer may have another answer. Call it again for the next time.
	Rechecks() <-chan struct{}
}

// Aliaser is an Identity to whom a SPIFFE id may be the same as another, as where trust domains have aliases. identity.Source is one.
type Aliaser interface {
	// SameID reports whether a peer that shows got is the one that a route expects as want. It must not block.
	SameID(want, got spiffeid.ID) bool
}

// HopKind says what stands at the end of a hop.
type HopKind string

// The kinds of hops.
const (
	HopWaypoint HopKind = "waypoint"
	HopWorkload HopKind = "workload"
	HopGateway  HopKind = "gateway" // an east-west gateway of another network
)

// Field is one header field of a CONNECT request. Names are lower case.
type Field struct{ Name, Value string }

// Hop is one HBONE listener on the way: a TLS handshake that must show one of Peers, and a CONNECT to Authority.
type Hop struct {
	Kind      HopKind
	Name      string         // for errors and people, "shop/waypoint-7d9f"; may be empty
	Addr      netip.AddrPort // of the HBONE listener; dialled for the first hop, for errors in the others
	Authority string         // CONNECT authority, host:port
	Peers     []spiffeid.ID  // accepted identities; empty refuses to dial
	Header    []Field        // further fields of the CONNECT request
}

// Route is the way to an address: tunnels in tunnels, outermost first.
type Route struct {
	Hops     []Hop          // empty: plain TCP to Direct, which only a Dialer with PlaintextAllow does
	Direct   netip.AddrPort // used when Hops is empty
	Service  string         // the Service's FQDN when the address names one; else empty
	Target   string         // what was dialled; a Dialer sets it where it is empty
	Reason   []string       // why this way, a step a string, for people
	Endpoint *Endpoint      // counts tunnels and failures of the first hop; may be nil
}

// Resolver finds the Route for what the user dials. It may block on I/O and obeys ctx.
//
// One that has a method Changed() <-chan struct{}, which returns a channel that is closed when an answer may have changed, is asked anew
// then: a Dialer lets connections whose way has changed take no more tunnels, and ends tunnels as Dialer.Drain says. Whether a
// way has changed is what its method Admits(Route) bool says, which must not block, else what Resolve says.
type Resolver interface {
	Resolve(ctx context.Context, network, address string) (Route, error)
}

// ResolverFunc is a function that is a Resolver.
type ResolverFunc func(ctx context.Context, network, address string) (Route, error)

// Resolve calls f.
func (f ResolverFunc) Resolve(ctx context.Context, network, address string) (Route, error) {
	return f(ctx, network, address)
}
