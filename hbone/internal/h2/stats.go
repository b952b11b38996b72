package h2

import "time"

// ConnStats is what a connection has carried.
type ConnStats struct {
	BytesIn, BytesOut uint64        // payload of DATA frames
	Streams           int           // open now
	Opened            uint64        // streams ever
	Age               time.Duration // since the connection was made
	Saturated         bool          // for most of the last while the connection was being written to, or bulk read from: a further one would help
	RTT               time.Duration // the shortest round trip that was seen; zero: none was measured
}

// saturated reports whether a further connection would help; mu is held.
func (c *Conn) saturated() bool { return c.out.busy.high(c.out.flushing) || c.g.load.saturated() }

// Load is what a connection carries, and what it could.
type Load struct {
	Available int    // streams that can still be opened, as Available says
	Streams   int    // open now
	Opened    uint64 // streams ever
	Saturated bool
}

// Load is a snapshot of what the choice among connections needs. It does not block for I/O.
func (c *Conn) Load() Load {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Load{Available: c.available(), Streams: len(c.streams), Opened: c.opened, Saturated: c.saturated()}
}

// Stats is a snapshot. It does not block for I/O.
func (c *Conn) Stats() ConnStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return ConnStats{
		BytesIn: c.bytesIn, BytesOut: c.bytesOut, Streams: len(c.streams), Opened: c.opened, Age: time.Since(c.born),
		Saturated: c.saturated(), RTT: c.rtt.least,
	}
}
