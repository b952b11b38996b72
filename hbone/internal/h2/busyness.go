package h2

import "time"

// instant is a moment of the monotonic clock. It is had for half of what time.Now costs.
type instant time.Duration

// epoch is where instants count from; only their distances mean something.
var epoch = time.Now()

func now() instant { return instant(time.Since(epoch)) }

func (t instant) sub(u instant) time.Duration { return time.Duration(t - u) }

// busyness tells how much of the last while there was work.
type busyness struct {
	since     instant // when the work under way began
	from      instant // when the measured time began
	sum       time.Duration
	saturated bool
}

const busyFor = 50 * time.Millisecond

func (b *busyness) begin() {
	if b.since = now(); b.from == 0 {
		b.from = b.since
	}
}

func (b *busyness) end() {
	now := now()
	all := now.sub(b.from)
	if all > 4*busyFor {
		b.saturated = now.sub(b.since) > busyFor
		b.from, b.sum = now, 0
		return
	}
	b.sum += now.sub(b.since)
	if all >= busyFor {
		b.saturated = b.sum > all*3/4
		b.from, b.sum = now, 0
	}
}

// high reports whether it is most of the time, given whether some is under way.
func (b *busyness) high(working bool) bool {
	if !working && !b.saturated {
		return false
	}
	now := now()
	return working && now.sub(b.since) > busyFor || b.saturated && now.sub(b.from) < 2*busyFor
}
