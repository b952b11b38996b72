//go:build !linux

package h2

import (
	"net"
	"net/netip"

	"golang.org/x/net/http2/hpack"
)

// Join is not had here: a goroutine each way does it.
func (s *Stream) Join(net.Conn) bool { return false }

// Connect neither.
func (s *Stream) Connect(netip.AddrPort, ...hpack.HeaderField) error { return ErrCannotConnect }

// forward is what Join makes.
type forward struct{}

func (*forward) up()    {}
func (*forward) down()  {}
func (*forward) ended() {}
func (*forward) drift() {}
func (*forward) abort() {}

func (*forward) keepsUp() bool { return false }

// joined neither.
type joined struct{}

func (*joined) stopIfLast() {}
func (*joined) abandon()    {}

// pull neither.
type pull struct{}

func (*outbox) pull() []byte                 { return nil }
func (*Conn) reserve(*forward, int, int) int { return 0 }
func (*Conn) pulledAll()                     {}
