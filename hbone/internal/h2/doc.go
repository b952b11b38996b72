// Package h2 is an HTTP/2 engine that carries nothing but CONNECT tunnels (RFC 9113, section 8.5).
//
// It drives a connection that somebody else has dialled and secured: no TLS, no dialling, no logging. A Conn has a goroutine that reads, a
// standby that writes and one that looks after time; a Stream has none, and one that does nothing holds its struct and a place in the table.
//
// Writing: who has something to send while nobody flushes becomes the flusher. Small frames are copied into the outbox, where many
// gather into one TLS record; the bytes of a large Write are encrypted from where they are. A flusher never waits for the
// connection: what it does not take at once is the standby writer's. So the reader may flush too, and never blocks on a write; a
// peer that makes the outbox overflow with replies loses the connection.
//
// Reading: small DATA frames are taken many under one hold of the lock; bulk is decrypted to where it stays: the buffer of a Read that waits,
// or a borrowed one. Blocked Reads are woken when no more bytes are at hand.
//
// Memory is bounded by the stream windows, which follow the product of bandwidth and delay: credit for the connection is
// returned when bytes arrive, credit for a stream when they are read, so that one stalled tunnel does not stop its neighbours.
package h2
