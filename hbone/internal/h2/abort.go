package h2

import (
	"fmt"
	"time"

	"golang.org/x/net/http2"
)

// Abort ends the connection and every stream on it for cause, which their users see. The peer is told that it is for the sake of security, and why, if it
// still listens. It does not wait.
func (c *Conn) Abort(cause error, why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	_ = c.cw.WriteGoAway(c.lastPeer, http2.ErrCodeInadequateSecurity, []byte(why)) // into memory
	c.failLocked(cause)
	c.out.patience = max(c.out.patience, time.Second) // so that it arrives
}

// maxFarewell is how much of what a peer says in GOAWAY is shown.
const maxFarewell = 256

// FarewellError is a GOAWAY that said that something is wrong, before the connection was lost.
type FarewellError struct {
	Code http2.ErrCode
	Why  string // the peer's words, cut; nothing vouches for them
	Err  error  // the loss
}

func (e *FarewellError) Error() string {
	if e.Why == "" {
		return fmt.Sprintf("the peer ended it (%v)", e.Code)
	}
	return fmt.Sprintf("the peer ended it (%v): %q", e.Code, e.Why)
}

// Unwrap gives the loss.
func (e *FarewellError) Unwrap() error { return e.Err }

// onFarewell keeps what a GOAWAY says; mu is held.
func (c *Conn) onFarewell(f *http2.GoAwayFrame) {
	if f.ErrCode == http2.ErrCodeNo {
		return
	}
	why := f.DebugData()
	c.farewell = &FarewellError{Code: f.ErrCode, Why: string(why[:min(len(why), maxFarewell)])}
}

// lost is err with what the peer said before; mu is held.
func (c *Conn) lost(err error) error {
	if c.farewell == nil {
		return err
	}
	said := *c.farewell // others may be reading the last one
	said.Err = err
	return &said
}
