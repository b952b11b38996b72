package wan

import (
	"net"
	"sync"
)

// chunkSize is what is taken at once.
const chunkSize = 256 << 10

// store holds bytes of a connection. It is full or empty.
type store interface {
	// fill waits for bytes of src and takes some of what has come.
	fill(src net.Conn) (int, error)
	// drain gives dst what fill took.
	drain(dst net.Conn) error
}

// buffer is a store for any connection.
type buffer struct {
	b [chunkSize]byte
	n int
}

var buffers = &sync.Pool{New: func() any { return new(buffer) }}

func (b *buffer) fill(src net.Conn) (n int, err error) {
	b.n, err = src.Read(b.b[:])
	return b.n, err
}

func (b *buffer) drain(dst net.Conn) error {
	_, err := dst.Write(b.b[:b.n])
	return err
}

var _ store = (*buffer)(nil)
