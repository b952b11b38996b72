package load

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// Buckets of a Histogram: 128 for each power of two of nanoseconds, so that a quantile is off by less than 1 %.
const (
	subBits = 7
	buckets = (40 - subBits) << subBits
)

// Histogram counts durations up to some ten minutes. The zero value is empty; all methods may be called from several goroutines.
type Histogram struct {
	count [buckets]atomic.Uint32
}

// Counts is a Histogram at one moment: bucket → count, where it is not zero.
type Counts map[int]uint32

func bucket(d time.Duration) int {
	v := uint64(max(d, 0))
	exp := max(bits.Len64(v)-subBits-1, 0)
	return min(exp<<subBits+int(v>>exp), buckets-1)
}

// middle is the duration in the middle of a bucket.
func middle(i int) time.Duration {
	if i < 2<<subBits {
		return time.Duration(i)
	}
	exp := i>>subBits - 1
	low := uint64(i-exp<<subBits) << exp
	return time.Duration(low + 1<<exp/2)
}

// Add counts d.
func (h *Histogram) Add(d time.Duration) { h.count[bucket(d)].Add(1) }

// AddTo adds what has been counted to c.
func (h *Histogram) AddTo(c Counts) {
	for i := range h.count {
		if n := h.count[i].Load(); n > 0 {
			c[i] += n
		}
	}
}

// Since is what came after old.
func (c Counts) Since(old Counts) Counts {
	out := Counts{}
	for i, n := range c {
		if n > old[i] {
			out[i] = n - old[i]
		}
	}
	return out
}

// Quantile is the duration that a part q of all do not exceed, zero when nothing was counted.
func (c Counts) Quantile(q float64) time.Duration {
	var total uint64
	for _, n := range c {
		total += uint64(n)
	}
	if total == 0 {
		return 0
	}
	rank := uint64(math.Ceil(q * float64(total)))
	var seen uint64
	for i := range buckets {
		if seen += uint64(c[i]); seen >= max(rank, 1) {
			return middle(i)
		}
	}
	return middle(buckets - 1)
}
