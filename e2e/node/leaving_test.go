package node

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/e2e/world"
)

// wired is a pod's network beside a node's, without a cluster. In the pod two programs listen, the pod's own and one in the place of the capture process: each
// answers a line with its name.
type wired struct {
	t    *testing.T
	cfg  Config
	node *world.NS
	pod  *podNet
}

func newWired(t *testing.T) *wired {
	t.Helper()
	w := &wired{t: t}
	var err error
	if w.node, err = world.NewNS("node"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.node.Close() })
	if err := w.node.Do(func() error { return setUpNode(w.cfg.gateway(), w.cfg.dnsVIP(), w.cfg.serviceCIDR()) }); err != nil {
		t.Fatal(err)
	}
	if w.pod, err = newPodNet(w.node, w.cfg.gateway(), w.cfg.balancerAddr().Next()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.pod.close() })
	names := map[uint16]string{8080: "the pod", portPlaintext: "the process", portOutbound: "the process"}
	for port, name := range names {
		w.answers(w.pod.ns, netip.AddrPortFrom(netip.IPv4Unspecified(), port), name)
	}
	w.answers(w.node, netip.AddrPortFrom(w.cfg.gateway(), 8080), "the node")
	return w
}

// answers serves until the test ends. It ends a connection first when asked to, so that the other side's port is free at once.
func (w *wired) answers(ns *world.NS, at netip.AddrPort, name string) {
	w.t.Helper()
	l, err := ns.Listen("tcp4", at.String())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for lines := bufio.NewScanner(c); lines.Scan() && lines.Text() != "end"; {
					fmt.Fprintln(c, name)
				}
			}()
		}
	}()
}

// capture leads connections to the process, or does so no more.
func (w *wired) capture(on bool) {
	w.t.Helper()
	err := w.pod.ns.Do(func() error {
		if on {
			return captureRules(&w.cfg, netip.AddrPortFrom(w.cfg.gateway(), 6443), w.pod.ip, false)
		}
		if err := endRedirection(); err != nil {
			return err
		}
		return removeCaptureRules()
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// caller is a connection from a port that is always the same.
type caller struct {
	t *testing.T
	net.Conn
	in *bufio.Reader
}

func (w *wired) call(ns *world.NS, from, to netip.AddrPort) *caller {
	w.t.Helper()
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(from), Timeout: 20 * time.Second, Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
	}}
	c := &caller{t: w.t}
	err := ns.Do(func() (err error) {
		c.Conn, err = d.DialContext(context.Background(), "tcp4", to.String())
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	c.in = bufio.NewReader(c)
	return c
}

// wantFrom asks who answers.
func (c *caller) wantFrom(name string) {
	c.t.Helper()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := fmt.Fprintln(c, "who?"); err != nil {
		c.t.Fatal(err)
	}
	if got, err := c.in.ReadString('\n'); err != nil || got != name+"\n" {
		c.t.Fatalf("%q answers, %v; want %s", got, err, name)
	}
}

// end has the other side end it first.
func (c *caller) end() {
	c.t.Helper()
	fmt.Fprintln(c, "end")
	if _, err := io.Copy(io.Discard, c.in); err != nil {
		c.t.Fatal(err)
	}
	c.Close()
}

// TestAConnectionIsNotCarriedAsOneOfTheSamePortsWasBefore: a connection was led to the process, and the pod left the mesh; another of the same addresses and ports came while nothing
// was captured, and stays open while the pod comes back.
func TestAConnectionIsNotCarriedAsOneOfTheSamePortsWasBefore(t *testing.T) {
	needNFTables(t)
	w := newWired(t)
	for name, way := range map[string]struct {
		ns       *world.NS
		from, to netip.AddrPort
		straight string
	}{
		"to the pod":   {w.node, netip.AddrPortFrom(w.cfg.gateway(), 40000), netip.AddrPortFrom(w.pod.ip, 8080), "the pod"},
		"from the pod": {w.pod.ns, netip.AddrPortFrom(w.pod.ip, 40001), netip.AddrPortFrom(w.cfg.gateway(), 8080), "the node"},
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			w.capture(true)
			c := w.call(way.ns, way.from, way.to)
			c.wantFrom("the process")
			c.end()
			w.capture(false)
			c = w.call(way.ns, way.from, way.to)
			c.wantFrom(way.straight)
			w.capture(true)
			c.wantFrom(way.straight)
			c.end()
			w.capture(false)
		})
	}
}
