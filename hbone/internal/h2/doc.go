// Package h2 is an HTTP/2 engine that carries nothing but CONNECT tunnels (RFC 9113, section 8.5).
//
// It drives a connection that somebody else has dialled and secured: no TLS, no dialling, no logging. A Conn has one
// goroutine that reads and one that writes; a Stream has none. The reader never blocks on a write: what it has to
// answer goes into a bounded queue, and a peer that makes the queue overflow loses the connection.
//
// Memory is bounded by the stream windows: credit for the connection is returned when bytes arrive, credit for a stream when they
// are read, so that one stalled tunnel does not stop its neighbours.
package h2
