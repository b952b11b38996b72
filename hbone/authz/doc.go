// Package authz decides connections by the L4 AuthorizationPolicies that istiod sends, with ztunnel's semantics. It is pure: no client, no
// clock. A Set is immutable; Decide allocates nothing.
//
// Of one connection it differs from ztunnel in one thing: a policy that a workload lists and that is not there is reported as missing, so that the
// caller can wait for it and deny until it comes. ztunnel skips it. Principals are compared as they are written, unless Conn.Also
// names the source otherwise: neither istiod nor ztunnel makes one of a mesh's aliases, or of cluster.local, at L4.
//
// An open connection is the caller's to decide again. ztunnel does so by the policies that its workload listed when the connection began; who asks a
// wds.Authorizer when it has Changed goes by those that it lists now, and ends what ztunnel would keep.
package authz
