// Package identity holds who a workload is: its SVID and the bundles it trusts, kept fresh.
//
// A Source is what packages istioca, spire, sds and file return, and what hbone takes as an Identity; write a Fetcher for another authority. It
// implements go-spiffe's x509svid.Source and x509bundle.Source, and tells of every new generation by a channel that closes.
//
//	id, err := istioca.New(ctx, istioca.Config{...})
//	if err != nil {
//		return err
//	}
//	defer id.Close()
//	dialer := &hbone.Dialer{Identity: id, ...}
//
// It renews at a random 50 to 80 percent of what is left of the certificate's life. While the authority is away it tries again with growing
// pauses and serves the old certificate to its end; then it fails closed, with an error that names the cause. An answer is checked before
// it is taken: it must be valid now (two minutes of skew between clocks are tolerated), be for one SPIFFE id, and lead to the roots that
// came with it. A bad answer is a failure like any other and leaves what we have in place.
//
// Trust widens whom a Source believes (trust domains that are one, that share roots, that are federated) and narrows it (revocation lists). CheckPeer and
// SameID are how hbone asks: a peer whose certificate is revoked is refused, and its open tunnels end. What is wrong with a file of Trust is an error at
// the start; later the file's last good state stays in force, and Stats, Trace and Logger tell.
//
// Cancellation: constructors block for the first SVID and obey their context; a Source then lives until Close, which ends a renewal that is
// under way and waits for it. All other methods return at once.
//
// Limits: X.509 SVIDs only. Keys stay in memory and are never logged. The clock is the machine's. It is looked at each minute: what came due
// while the machine slept, or because the clock was set forward, is renewed then, and a certificate that ended meanwhile is an error until it is.
package identity
