package capture

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// ownMark keeps this process's own connections out of the redirection.
const ownMark = 0x539

// soOriginalDst is netfilter's socket option with the address before REDIRECT.
const soOriginalDst = 80

// dialMarked connects past the redirection.
func dialMarked(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, ownMark) })
		return errors.Join(err, failed)
	}}
	return d.DialContext(ctx, network, address)
}

// originalDest is where a redirected connection was meant to go.
func originalDest(c *net.TCPConn) (netip.AddrPort, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, err
	}
	var sa *unix.IPv6Mreq // any option value of at least 16 bytes: it holds a sockaddr_in
	var failed error
	err = raw.Control(func(fd uintptr) { sa, failed = unix.GetsockoptIPv6Mreq(int(fd), unix.IPPROTO_IP, soOriginalDst) })
	if err := errors.Join(err, failed); err != nil {
		return netip.AddrPort{}, fmt.Errorf("read the original destination: %w", err)
	}
	b := sa.Multiaddr
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:4])), nil
}
