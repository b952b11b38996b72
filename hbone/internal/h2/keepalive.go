package h2

import (
	"fmt"
	"time"
)

// keepalive finds peers that are gone without a word: none of their frames came for an interval, and then no answer to a PING.
func (c *Conn) keepalive() {
	settings := time.NewTimer(c.cfg.settingsTimeout())
	defer settings.Stop()
	interval := c.cfg.pingInterval()
	var look <-chan time.Time
	var timer *time.Timer
	if interval > 0 {
		timer = time.NewTimer(interval)
		defer timer.Stop()
		look = timer.C
	}
	ready := c.ready
	asked := false
	for {
		select {
		case <-c.dead:
			return
		case <-ready:
			settings.Stop()
			ready = nil
		case <-settings.C:
			c.fail(fmt.Errorf("the peer sent no SETTINGS within %v", c.cfg.settingsTimeout()))
			return
		case <-look:
			switch heard := c.heard.Swap(false); {
			case heard:
				asked = false
				timer.Reset(interval)
			case asked:
				c.fail(fmt.Errorf("the peer did not answer a PING within %v", c.cfg.pingTimeout()))
				return
			default:
				asked = true
				c.mu.Lock()
				c.out.shrink()
				_ = c.cw.WritePing(false, [8]byte{'a', 'l', 'i', 'v', 'e'})
				c.mu.Unlock()
				c.kick()
				timer.Reset(c.cfg.pingTimeout())
			}
		}
	}
}
