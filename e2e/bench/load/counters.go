package load

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// shards keeps workers from sharing cache lines.
const shards = 16

// Counters is what a process has done. The zero value is ready; all methods may be called from several goroutines.
type Counters struct {
	active atomic.Int64
	shard  [shards]struct {
		in, out, ops, errs atomic.Int64
		took               Histogram
		_                  [64]byte
	}
}

// Sample is Counters at one moment.
type Sample struct {
	At     time.Duration // of the machine's monotonic clock, so that samples of two processes compare
	In     int64         // bytes read from tunnels
	Out    int64         // bytes written to them
	Ops    int64         // messages that came back, or tunnels opened
	Errors int64
	Active int64 // tunnels open
	Took   Counts
}

// Sample reads the counters.
func (c *Counters) Sample() Sample {
	s := Sample{At: monotonic(), Active: c.active.Load(), Took: Counts{}}
	for i := range c.shard {
		sh := &c.shard[i]
		s.In += sh.in.Load()
		s.Out += sh.out.Load()
		s.Ops += sh.ops.Load()
		s.Errors += sh.errs.Load()
		sh.took.AddTo(s.Took)
	}
	return s
}

func monotonic() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic("read the monotonic clock: " + err.Error()) // it exists since Linux 2.6
	}
	return time.Duration(ts.Nano())
}
