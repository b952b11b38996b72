package h2

import "time"

// ConnStats is what a connection has carried.
type ConnStats struct {
	BytesIn, BytesOut uint64        // payload of DATA frames
	Streams           int           // open now
	Opened            uint64        // streams ever
	Age               time.Duration // since the connection was made
	Saturated         bool          // for most of the last while somebody was writing to the connection: a further one would help
	RTT               time.Duration // the shortest round trip that was seen; zero: none was measured
}

// Stats is a snapshot. It does not block for I/O.
func (c *Conn) Stats() ConnStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return ConnStats{
		BytesIn: c.bytesIn, BytesOut: c.bytesOut, Streams: len(c.streams), Opened: c.opened, Age: time.Since(c.born),
		Saturated: c.out.busy.now(c.out.flushing), RTT: c.rtt.least,
	}
}
