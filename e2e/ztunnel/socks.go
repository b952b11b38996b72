package ztunnel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
)

// errSocks is an answer that is not yes.
var errSocks = errors.New("ztunnel does not say yes as SOCKS5 has it")

// Connect sends a connection to target through a ztunnel that Dial started. ztunnel takes it before it asks the hop:
// a refusal is the end of the connection.
func Connect(ctx context.Context, target netip.AddrPort) (*net.TCPConn, error) {
	nc, err := new(net.Dialer).DialContext(ctx, "tcp", Socks)
	if err != nil {
		return nil, err
	}
	c := nc.(*net.TCPConn)
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	if err := greet(c, target); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// greet asks for target, without authentication.
func greet(c io.ReadWriter, target netip.AddrPort) error {
	if _, err := c.Write([]byte{5, 1, 0}); err != nil {
		return err
	}
	var method [2]byte
	if _, err := io.ReadFull(c, method[:]); err != nil {
		return err
	}
	if method != [2]byte{5, 0} {
		return errSocks
	}
	ip := target.Addr().As4()
	request := append([]byte{5, 1, 0, 1}, ip[:]...)
	if _, err := c.Write(append(request, byte(target.Port()>>8), byte(target.Port()))); err != nil {
		return err
	}
	var answer [10]byte // with an IPv4 address
	if _, err := io.ReadFull(c, answer[:]); err != nil {
		return err
	}
	if answer[0] != 5 || answer[1] != 0 {
		return fmt.Errorf("%w: %x", errSocks, answer)
	}
	return nil
}
