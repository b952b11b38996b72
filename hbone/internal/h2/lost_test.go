package h2

import (
	"errors"
	"testing"

	"golang.org/x/net/http2"
)

// A connection may be lost twice, to its reader and to its writer. Who has the first loss may be reading it when the second comes.
func TestALossIsNotChangedByTheNext(t *testing.T) {
	c := &Conn{farewell: &FarewellError{Code: http2.ErrCodeInadequateSecurity, Why: "no more"}}
	write, read := errors.New("write"), errors.New("read")
	first, second := c.lost(write), c.lost(read)
	if !errors.Is(first, write) || errors.Is(first, read) || !errors.Is(second, read) {
		t.Errorf("the first loss is by %v, and the second by %v", errors.Unwrap(first), errors.Unwrap(second))
	}
}
