// Package hbone carries connections to workloads of an Istio ambient mesh: each is an HTTP/2 CONNECT stream over mutual TLS with SPIFFE
// certificates, usually to port 15008 (HBONE, https://istio.io/latest/docs/ambient/architecture/hbone/).
//
// # Use
//
// A Dialer opens tunnels and is a drop-in where a DialContext function is wanted; a Transport sends HTTP requests through one; a
// Server ends tunnels, as a net.Listener or by forwarding them. Who we are comes from an Identity (package identity, or go-spiffe), the way
// to an address from a Resolver (package hbone/wds asks istiod).
//
//	dialer := &hbone.Dialer{Identity: id, Resolver: mesh}
//	conn, err := dialer.DialContext(ctx, "tcp", "orders.shop.svc.cluster.local:80")
//
// A process with many identities has a Dialer for each, and may give them one Pool. A Route is a list of hops: one that leads through a
// waypoint has one hop, one to another network has two, the second a tunnel in the first.
//
// Nothing is sent in plaintext unless a Dialer is told to (PlaintextAllow), every hop must show one of the identities that its
// route expects, and two identities never share a connection.
//
// # Cancellation
//
// DialContext obeys its context until it returns; afterwards a Conn lives until it is closed. A connection that several dials wait for is
// given up when the last of them is. Deadlines work as for any net.Conn. Close of a Conn does not wait for its peer; Close of a Pool, a Dialer and
// a Server ends all at once and waits for its goroutines; Server.Shutdown and Dialer.Retire let tunnels end in peace until their context ends.
//
// # Endings
//
// Each direction ends alone: CloseWrite is FIN. A tunnel that was reset, or whose connection was lost, reads ECONNRESET and never io.EOF, so that
// nobody takes a part for the whole. A CONNECT that no peer acted on is made again on another connection, up to five times; one that was refused for the
// moment is made again on the way that is right by then, as Dialer.RetryWithin says; any other failure is a *DialError before the tunnel stood, a
// *TunnelError afterwards.
//
// # Limits
//
// TCP only, TLS 1.3 only. A connection carries at most as many tunnels as its peer allows; further ones are made as callers need them. What
// a peer can make a Server hold is bounded by its fields and by the windows of its tunnels. On Linux a tunnel that a Server forwards to a TCP or Unix
// connection has no goroutine, and no buffer while nothing moves. A certificate is checked when a connection is made, and
// connections are replaced within MaxAge; those of an Identity that has changed are replaced at once. The library logs nothing; a Trace is told
// what happens.
package hbone
