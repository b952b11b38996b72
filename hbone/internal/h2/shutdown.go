package h2

import (
	"context"
	"errors"
	"time"

	"golang.org/x/net/http2"
)

var (
	drainPing = [8]byte{'d', 'r', 'a', 'i', 'n'}
	// byePing is our last frame: its answer says that all before it has arrived.
	byePing = [8]byte{'b', 'y', 'e'}
)

// Shutdown drains. A server sends GOAWAY with the last possible stream, then a PING after the other until one brought no CONNECT with its answer, for at
// most five PINGs, 10 s, then GOAWAY with the real last one, so that no CONNECT in flight is lost. Streams go on. It returns when all have ended, or with
// ctx's cause after closing.
func (c *Conn) Shutdown(ctx context.Context) error {
	c.Drain()
	select {
	case <-c.dead:
	case <-ctx.Done():
		c.Close()
		return context.Cause(ctx)
	}
	stop := context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.cut = true
		c.abandon()
	})
	<-c.done
	c.serving.Wait() // applications may be slow to take what is left
	if !stop() {
		return context.Cause(ctx)
	}
	return nil
}

// Drain begins what Shutdown waits for. It does not block.
func (c *Conn) Drain() {
	c.mu.Lock()
	if c.err == nil && c.drain == drainNone {
		if c.client {
			c.wentAway = true
			c.closeGoing()
			c.drain = drainLast
			_ = c.cw.WriteGoAway(0, http2.ErrCodeNo, nil)
		} else {
			c.drain = drainAsked
			c.drainEnd = time.AfterFunc(drainPatience, c.drainLate)
			_ = c.cw.WriteGoAway(lastStreamID, http2.ErrCodeNo, nil)
			_ = c.cw.WritePing(false, drainPing)
			c.closeGoing()
		}
	}
	c.maybeDrained()
	c.mu.Unlock()
	c.kick()
}

// drainRounds and drainPatience bound what a peer can put off: one that opens on and on, and one that answers late or never.
const (
	drainRounds   = 5
	drainPatience = 10 * time.Second
)

// drainAnswered takes the answer to a PING of the drain; mu is held. A first one says little: ztunnel's HTTP/2 answers before it sends what its
// callers have queued, and never retries what the last GOAWAY cuts off.
func (c *Conn) drainAnswered() {
	c.rounds++
	if c.rounds < drainRounds && (c.rounds == 1 || c.lastPeer != c.drainSeen) {
		c.drainSeen = c.lastPeer
		_ = c.cw.WritePing(false, drainPing)
		return
	}
	c.drain = drainLast
	c.drainEnd.Stop()
	_ = c.cw.WriteGoAway(c.lastPeer, http2.ErrCodeNo, nil)
	c.maybeDrained()
}

// drainLate ends the rounds of a drain that has had its time.
func (c *Conn) drainLate() {
	c.mu.Lock()
	if c.err == nil && c.drain == drainAsked {
		c.rounds = drainRounds
		c.drainAnswered()
	}
	c.mu.Unlock()
	c.kick()
}

// WaitServed blocks until the connection has ended, and all that was forwarded or accepted for it has, too.
func (c *Conn) WaitServed() {
	<-c.done
	c.serving.Wait()
}

// maybeDrained ends a draining connection that has no stream left; mu is held.
func (c *Conn) maybeDrained() {
	if c.drain == drainLast && len(c.streams) == 0 && c.err == nil {
		_ = c.cw.WritePing(false, byePing)
		c.failLocked(errClosed)
	}
}

// goodbye passes over frames of a connection that has ended, from the one whose header is in rd.head on, until the peer has answered our last PING
// or is gone, or has sent more than can have been on its way. mu is not held.
func (rd *reader) goodbye() error {
	for left := int(rd.c.cfg.connWindow()) + maxControl; left > 0; {
		h := parseHeader(rd.head[:])
		left -= frameHeader + int(h.length)
		if h.kind == http2.FramePing && h.flags.Has(http2.FlagPingAck) && h.length == uint32(len(byePing)) {
			var data [len(byePing)]byte
			if err := rd.full(data[:]); err != nil {
				return err
			}
			if data == byePing {
				return nil
			}
		} else if err := rd.discard(int(h.length)); err != nil {
			return err
		}
		if err := rd.full(rd.head[:]); err != nil {
			return err
		}
	}
	return nil
}

// patience is how long a connection that ends for cause waits for the peer. What a peer sends meanwhile would, unread, make the kernel reset
// the connection and throw away our last words, or data on their way to the application. mu is held.
func (c *Conn) patience(cause error) time.Duration {
	if _, ok := errors.AsType[*connError](cause); ok {
		return time.Second
	}
	if c.drain == drainLast && len(c.streams) == 0 {
		return 10 * time.Second // drained: all that is left is on its way
	}
	return 0
}

// linger ends our side, where the connection can do that alone, and waits for the peer's end.
func (c *Conn) linger() {
	c.mu.Lock()
	patience := c.out.patience
	c.mu.Unlock()
	half, ok := c.nc.(interface{ CloseWrite() error })
	if patience == 0 || !ok {
		return
	}
	_ = c.nc.SetReadDeadline(time.Now().Add(patience))
	if half.CloseWrite() != nil || c.out.g.flush() != nil {
		return
	}
	<-c.read
}
