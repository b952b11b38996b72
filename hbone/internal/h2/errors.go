package h2

import (
	"errors"
	"fmt"
	"net"
	"syscall"

	"golang.org/x/net/http2"
)

// ErrUnprocessed says that the peer did not act on a stream: it may be opened again on another connection.
var ErrUnprocessed = errors.New("the peer did not process the stream")

// ErrFull says that the peer's limit of streams is reached.
var ErrFull = fmt.Errorf("the connection has as many streams as the peer allows: %w", ErrUnprocessed)

// ErrCannotConnect says that Stream.Connect knows no such address, or is not had on this system. Nothing has been done.
var ErrCannotConnect = errors.New("the engine makes no such connections")

// StatusError is an answer other than 200 to a CONNECT.
type StatusError struct{ Status int }

func (e *StatusError) Error() string {
	return fmt.Sprintf("CONNECT was answered with status %d", e.Status)
}

// ResetError is a stream that one side reset. It is a syscall.ECONNRESET.
type ResetError struct {
	Code   http2.ErrCode
	Remote bool // the peer reset it
}

func (e *ResetError) Error() string {
	if e.Remote {
		return fmt.Sprintf("the peer reset the stream (%v)", e.Code)
	}
	return fmt.Sprintf("the stream was reset (%v)", e.Code)
}

// Unwrap makes a reset what TCP calls it.
func (e *ResetError) Unwrap() error { return syscall.ECONNRESET }

// LostError ends every stream of a connection that went away under it. It is a syscall.ECONNRESET.
type LostError struct{ Cause error }

func (e *LostError) Error() string { return "the HTTP/2 connection was lost: " + e.Cause.Error() }

// Unwrap gives the cause and what a loss is to a stream.
func (e *LostError) Unwrap() []error { return []error{syscall.ECONNRESET, e.Cause} }

// errClosed is a connection that this side closed.
var errClosed = fmt.Errorf("connection closed: %w", net.ErrClosed)

// connError is a peer's violation that ends the connection (RFC 9113, section 5.4.1).
type connError struct {
	code http2.ErrCode
	why  string
}

func (e *connError) Error() string {
	return fmt.Sprintf("the peer broke HTTP/2 (%v): %s", e.code, e.why)
}
