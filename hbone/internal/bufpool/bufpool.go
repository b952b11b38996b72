package bufpool

import (
	"sync"
	"sync/atomic"
)

// sizes are the classes. The smallest bounds what a few unread bytes can hold on to.
var sizes = [...]int{256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10}

// Max is the largest size that is pooled.
const Max = 512 << 10

var pools [len(sizes)]sync.Pool

var (
	tracking atomic.Bool
	out      atomic.Int64
)

// Buf is a lent buffer. Its length is that of its class, which is at least what was asked for.
type Buf struct {
	B       []byte
	class   int8
	tracked bool
}

// Get lends a buffer of at least size bytes. Beyond Max it is an ordinary allocation.
func Get(size int) *Buf {
	b := get(size)
	if tracking.Load() {
		b.tracked = true
		out.Add(1)
	}
	return b
}

func get(size int) *Buf {
	for i, s := range sizes {
		if size <= s {
			if b, ok := pools[i].Get().(*Buf); ok {
				return b
			}
			return &Buf{B: make([]byte, s), class: int8(i)}
		}
	}
	return &Buf{B: make([]byte, size), class: -1}
}

// Free gives b back; the caller must not use it, nor its bytes, any more.
func (b *Buf) Free() {
	if b.tracked {
		b.tracked = false
		out.Add(-1)
	}
	if b.class >= 0 {
		pools[b.class].Put(b)
	}
}

// Track turns counting on or off and starts from zero. It is for tests.
func Track(on bool) {
	out.Store(0)
	tracking.Store(on)
}

// Out is how many buffers that were lent since Track have not come back.
func Out() int { return int(out.Load()) }
