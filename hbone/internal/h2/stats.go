package h2

import "time"

// ConnStats is what a connection has carried.
type ConnStats struct {
	BytesIn, BytesOut uint64        // payload of DATA frames
	Streams           int           // open now
	Opened            uint64        // streams ever
	Age               time.Duration // since the connection was made
	Saturated         bool          // for most of the last 100 ms there was more to send than the connection took
	RTT               time.Duration // the shortest round trip that a PING has shown; zero: none was measured
}

// Stats is a snapshot.
func (c *Conn) Stats() ConnStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return ConnStats{
		BytesIn: c.bytesIn, BytesOut: c.bytesOut, Streams: len(c.streams), Opened: c.opened, Age: time.Since(c.born),
	}
}
