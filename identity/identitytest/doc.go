// Package identitytest makes certificate authorities, identities and bad certificates in memory, for tests of programs that use hbone or
// identity.
//
//	ca := identitytest.NewCA(spiffeid.RequireTrustDomainFromString("cluster.local"))
//	id := ca.Source(spiffeid.RequireFromString("spiffe://cluster.local/ns/edge/sa/gateway"))
//	dialer := &hbone.Dialer{Identity: id, ...}
//	id.Set(ca.SVID(id2))                       // another identity, told to who waits on Changed
//	id.Set(ca.SVID(id2, identitytest.Expired)) // one that peers must refuse; Bad has them all
//	id.Revoke(svid.Certificates[0])            // ends the connections of who showed it; CA.CRL makes lists for files
//
// Keys are ECDSA P-256, roots live for a day, certificates for an hour from two minutes ago, as istiod's begin. Times are those of the clock of
// the caller, also in a bubble of testing/synctest. Nothing blocks and nothing has to be closed. Package istiocatest serves a CA as istiod does.
//
// Limits: functions panic when the machine has no randomness. Not for production: keys are not protected.
package identitytest
