package h2

import "sync"

const chunkSize = 32 << 10

var chunks = sync.Pool{New: func() any { return new([chunkSize]byte) }}

// queue holds received bytes in pooled chunks. The zero value is empty.
type queue struct {
	list []*[chunkSize]byte
	r, w int // read offset in the first chunk, write offset in the last
	n    int // bytes held
}

// space is room at the end for at most want bytes; grow by what was put there.
func (q *queue) space(want int) []byte {
	if len(q.list) == 0 || q.w == chunkSize {
		q.list = append(q.list, chunks.Get().(*[chunkSize]byte))
		q.w = 0
	}
	return q.list[len(q.list)-1][q.w:min(chunkSize, q.w+want)]
}

func (q *queue) grow(n int) { q.w += n; q.n += n }

// write copies p in.
func (q *queue) write(p []byte) {
	for len(p) > 0 {
		n := copy(q.space(len(p)), p)
		q.grow(n)
		p = p[n:]
	}
}

// read copies out.
func (q *queue) read(p []byte) int {
	total := 0
	for len(p) > 0 && q.n > 0 {
		end := chunkSize
		if len(q.list) == 1 {
			end = q.w
		}
		n := copy(p, q.list[0][q.r:end])
		p, total = p[n:], total+n
		q.r += n
		q.n -= n
		if q.r == end {
			chunks.Put(q.list[0])
			q.list[0] = nil
			q.list = q.list[1:]
			q.r = 0
			if len(q.list) == 0 {
				q.list, q.w = nil, 0
			}
		}
	}
	return total
}

// drop gives everything back.
func (q *queue) drop() {
	for _, c := range q.list {
		chunks.Put(c)
	}
	*q = queue{}
}
