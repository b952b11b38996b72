package capture

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// followEvery is how often the list of Services is read.
const followEvery = 50 * time.Millisecond

// followServices listens on the ports of Services that the node lists, and follows the list until stop is called.
func (p *process) followServices(ctx context.Context) (stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	open := map[netip.AddrPort]net.Listener{}
	text, err := p.listen(ctx, open, "")
	if err != nil {
		cancel()
		closeAll(open)
		return nil, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer closeAll(open)
		tick := time.NewTicker(followEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			next, err := p.listen(ctx, open, text)
			if err != nil {
				fmt.Fprintln(os.Stderr, "capture:", err) // and again
				continue
			}
			text = next
		}
	}()
	return func() { cancel(); <-done }, nil
}

// listen reads the list and makes open agree with it, unless it still is old; it returns the list.
func (p *process) listen(ctx context.Context, open map[netip.AddrPort]net.Listener, old string) (string, error) {
	text, err := os.ReadFile(p.cfg.ServicePorts)
	if err != nil || string(text) == old {
		return old, err
	}
	wanted := map[netip.AddrPort]bool{}
	var errs []error
	lc := net.ListenConfig{Control: transparent}
	for line := range strings.FieldsSeq(string(text)) {
		at, err := netip.ParseAddrPort(line)
		if err != nil {
			return old, fmt.Errorf("read %s: %w", p.cfg.ServicePorts, err)
		}
		wanted[at] = true
		if open[at] != nil {
			continue
		}
		l, err := lc.Listen(ctx, "tcp4", at.String())
		if err != nil {
			errs = append(errs, err)
			continue
		}
		open[at] = l
		go p.accept(ctx, l, localDest, p.outbound)
	}
	for at, l := range open {
		if !wanted[at] {
			l.Close()
			delete(open, at)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return old, fmt.Errorf("listen on the ports of services: %w", err)
	}
	return string(text), nil
}

func closeAll(open map[netip.AddrPort]net.Listener) {
	for _, l := range open {
		l.Close()
	}
}

// transparent lets a socket have an address that is not the pod's.
func transparent(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT, 1) })
	return errors.Join(err, failed)
}

// localDest is where a connection that came to a Service's own address was meant to go.
func localDest(c *net.TCPConn) (netip.AddrPort, error) {
	return c.LocalAddr().(*net.TCPAddr).AddrPort(), nil
}
