// Package authz decides connections by the L4 AuthorizationPolicies that istiod sends, with ztunnel's semantics. It is pure: no client, no
// clock. A Set is immutable; Decide allocates nothing.
//
// It differs from ztunnel in one thing: a policy that a workload lists and that is not there is reported as missing, so that the
// caller can wait for it and deny until it comes. ztunnel skips it. Principals are compared as they are written, unless Conn.Also
// names the source otherwise: neither istiod nor ztunnel makes one of a mesh's aliases, or of cluster.local, at L4.
package authz
