// Package hbone carries connections to workloads of an Istio ambient mesh: each is an HTTP/2 CONNECT stream over mutual TLS with SPIFFE
// certificates, usually to port 15008 (HBONE, https://istio.io/latest/docs/ambient/architecture/hbone/).
//
// A Dialer opens tunnels and is a drop-in where a DialContext function is wanted; a Transport sends HTTP requests through one; a
// Server ends tunnels and forwards them. Who we are comes from an Identity (package identity, or go-spiffe), the way to an address from
// a Resolver (package hbone/wds asks istiod).
//
//	dialer := &hbone.Dialer{Identity: id, Resolver: mesh}
//	conn, err := dialer.DialContext(ctx, "tcp", "orders.shop.svc.cluster.local:80")
//
// Nothing is sent in plaintext unless a Dialer is told to (PlaintextAllow), every hop must show one of the identities that its
// route expects, and two identities never share a connection.
//
// Cancellation: DialContext obeys its context until it returns; afterwards a Conn lives until it is closed. Deadlines work as for any
// net.Conn. A tunnel that was reset, or whose connection was lost, reads ECONNRESET and never io.EOF.
//
// Limits: TCP only. A connection carries at most as many tunnels as its peer allows; the Dialer opens further ones. The
// library logs nothing.
package hbone
