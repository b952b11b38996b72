package carrier

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

const (
	floorPiece = 16 << 10  // what is sealed at once
	floorAhead = 256 << 10 // what one read from the connection asks for at most
)

// floorClient is the address of a server of Floor.
type floorClient string

func (c floorClient) Open(ctx context.Context) (net.Conn, error) {
	nc, err := rawClient(c).Open(ctx)
	if err != nil {
		return nil, err
	}
	return newFloorConn(nc, true)
}

func floorServer(nc net.Conn) (net.Conn, error) { return newFloorConn(nc, false) }

// floorConn is what encrypted bulk costs at least: AES-128-GCM over pieces of one size, as many of them in one write or read as there are.
// There are no records, no key exchange, and nothing is authenticated: it shows what is possible, and is of no other use. The
// client's first byte is sent as it is, then come whole pieces only.
type floorConn struct {
	net.Conn
	client bool
	hello  bool // the first byte is to be written, or at a server read

	sealer, opener cipher.AEAD
	sealed, opened counter
	out            []byte
	in             []byte // bytes r to w are to be opened
	r, w           int
}

func newFloorConn(nc net.Conn, client bool) (net.Conn, error) {
	c := &floorConn{Conn: nc, in: make([]byte, floorAhead), client: client, hello: true}
	for _, aead := range []*cipher.AEAD{&c.sealer, &c.opener} {
		block, err := aes.NewCipher(make([]byte, 16))
		if err == nil {
			*aead, err = cipher.NewGCM(block)
		}
		if err != nil {
			nc.Close()
			return nil, fmt.Errorf("make the cipher: %w", err)
		}
	}
	return c, nil
}

// counter is a nonce that counts.
type counter struct {
	b [12]byte
	n uint64
}

func (c *counter) next() []byte {
	binary.BigEndian.PutUint64(c.b[4:], c.n)
	c.n++
	return c.b[:]
}

func (c *floorConn) Write(p []byte) (int, error) {
	if c.client && c.hello {
		c.hello = false
		return c.Conn.Write(p)
	}
	if len(p)%floorPiece != 0 {
		return 0, fmt.Errorf("%d bytes are no whole pieces", len(p))
	}
	c.out = c.out[:0]
	for rest := p; len(rest) > 0; rest = rest[floorPiece:] {
		c.out = c.sealer.Seal(c.out, c.sealed.next(), rest[:floorPiece], nil)
	}
	if _, err := c.Conn.Write(c.out); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (c *floorConn) Read(p []byte) (int, error) {
	if !c.client && c.hello {
		c.hello = false
		return c.Conn.Read(p[:1])
	}
	if len(p) < floorPiece {
		return c.Conn.Read(p) // for the end
	}
	sealed := floorPiece + c.opener.Overhead()
	if c.w-c.r < sealed {
		c.w = copy(c.in, c.in[c.r:c.w])
		c.r = 0
		n, err := io.ReadAtLeast(c.Conn, c.in[c.w:], sealed-c.w)
		if c.w += n; err != nil {
			return 0, err
		}
	}
	total := 0
	for ; c.w-c.r >= sealed && len(p)-total >= floorPiece; c.r += sealed {
		if _, err := c.opener.Open(p[total:total], c.opened.next(), c.in[c.r:c.r+sealed], nil); err != nil {
			return total, errors.New("a piece that does not open")
		}
		total += floorPiece
	}
	return total, nil
}
