package capture

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// followEvery is how often the list of Services is read.
const followEvery = 50 * time.Millisecond

// followServices listens on the ports of Services that the node lists, and follows the list until drain is called, which drains the listeners.
func (p *process) followServices(ctx context.Context) (drain func(), err error) {
	open := map[netip.AddrPort]*redirected{}
	text, err := p.listen(ctx, open, "")
	if err != nil {
		drainAll(slices.Collect(maps.Values(open)))
		return nil, err
	}
	following, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(followEvery)
		defer tick.Stop()
		for {
			select {
			case <-following.Done():
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
	return func() {
		cancel()
		<-done
		drainAll(slices.Collect(maps.Values(open)))
	}, nil
}

// listen reads the list and makes open agree with it, unless it still is old; it returns the list.
func (p *process) listen(ctx context.Context, open map[netip.AddrPort]*redirected, old string) (string, error) {
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
		open[at] = p.serve(ctx, l, localDest, p.outbound)
	}
	for at, r := range open {
		if !wanted[at] {
			r.l.Close()
			delete(open, at)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return old, fmt.Errorf("listen on the ports of services: %w", err)
	}
	return string(text), nil
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
