package h2

import (
	"context"

	"golang.org/x/net/http2"
)

var drainPing = [8]byte{'d', 'r', 'a', 'i', 'n'}

// Shutdown drains. A server sends GOAWAY with the last possible stream and a PING; once that is answered, GOAWAY with the real
// last one, so that no CONNECT in flight is lost. Streams go on. It returns when all have ended, or with ctx's cause after closing.
func (c *Conn) Shutdown(ctx context.Context) error {
	c.mu.Lock()
	if c.err == nil && c.drain == drainNone {
		if c.client {
			c.wentAway = true
			c.closeGoing()
			c.drain = drainLast
			_ = c.cw.WriteGoAway(0, http2.ErrCodeNo, nil)
		} else {
			c.drain = drainAsked
			_ = c.cw.WriteGoAway(lastStreamID, http2.ErrCodeNo, nil)
			_ = c.cw.WritePing(false, drainPing)
			c.closeGoing()
		}
	}
	c.maybeDrained()
	c.mu.Unlock()
	c.kick()
	select {
	case <-c.dead:
	case <-ctx.Done():
		c.Close()
		return context.Cause(ctx)
	}
	<-c.done
	c.serving.Wait()
	return nil
}

// maybeDrained ends a draining connection that has no stream left; mu is held.
func (c *Conn) maybeDrained() {
	if c.drain == drainLast && len(c.streams) == 0 {
		c.failLocked(errClosed)
	}
}
