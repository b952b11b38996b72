package node

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Limits of a Sniffer.
const (
	sniffBuffer = 16 << 20 // of the kernel's, in bytes
	sniffKeep   = 64 << 20 // of payload that is kept, in bytes
)

// Filter chooses the packets of a Sniffer. Zero fields match everything.
type Filter struct {
	// Port is the TCP port of either side.
	Port uint16
	// Peer is the address of the other side.
	Peer netip.Addr
}

// Packet is a TCP segment that was seen on the wire between a pod and the node.
type Packet struct {
	Time     time.Time
	From, To netip.AddrPort
	SYN      bool
	// Payload is what the segment carries; it may be empty.
	Payload []byte
}

// Sniffer records what passes a pod's interface, as seen from the node: after the pod's own capture, so what it sees
// in the clear left the pod in the clear.
type Sniffer struct {
	filter Filter
	file   *os.File
	done   chan struct{}

	mu      sync.Mutex // guards the fields below
	packets []Packet
	size    int
	err     error
	changed chan struct{} // closed and replaced with every packet
}

// Sniff starts to record the TCP packets of a pod. The caller stops it.
func (p *Player) Sniff(namespace, name string, f Filter) (*Sniffer, error) {
	w := p.find(namespace, name)
	if w == nil || w.network() == nil {
		return nil, fmt.Errorf("sniff at pod %s/%s: no such pod with a network of its own", namespace, name)
	}
	s := &Sniffer{filter: f, done: make(chan struct{}), changed: make(chan struct{})}
	if err := p.cfg.NS.Do(func() error { return s.open(w.network().link) }); err != nil {
		return nil, fmt.Errorf("sniff at pod %s/%s: %w", namespace, name, err)
	}
	go s.read()
	return s, nil
}

func (s *Sniffer) open(link string) error {
	l, err := netlink.LinkByName(link)
	if err != nil {
		return err
	}
	// Protocol 0 receives nothing until bind has named the interface. All protocols, since outgoing packets are
	// shown to such sockets only.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open packet socket: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, sniffBuffer); err != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, sniffBuffer) // a smaller one shows as drops
	}
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: l.Attrs().Index}); err != nil {
		unix.Close(fd)
		return fmt.Errorf("bind packet socket: %w", err)
	}
	s.file = os.NewFile(uintptr(fd), "packet socket")
	return nil
}

func (s *Sniffer) read() {
	defer close(s.done)
	raw, err := s.file.SyscallConn()
	if err != nil {
		s.fail(err)
		return
	}
	buf := make([]byte, 1<<17)
	for more := true; more; {
		var n int
		var rerr error
		receive := func(fd uintptr) bool {
			n, _, rerr = unix.Recvfrom(int(fd), buf, unix.MSG_TRUNC)
			return !errors.Is(rerr, unix.EAGAIN)
		}
		err := raw.Read(receive)
		if errors.Is(err, os.ErrDeadlineExceeded) { // Stop: nothing comes any more, and what came is still to be read
			err = raw.Control(func(fd uintptr) { more = receive(fd) })
		}
		if err != nil || !more {
			return
		}
		more = s.take(buf, n, rerr)
	}
}

// take keeps what was received, and says whether there may be more.
func (s *Sniffer) take(buf []byte, n int, err error) bool {
	switch {
	case errors.Is(err, unix.EINTR):
	case errors.Is(err, unix.ENETDOWN): // the pod has gone
		return false
	case err != nil:
		s.fail(err)
		return false
	case n > len(buf):
		s.fail(fmt.Errorf("a packet of %d bytes", n))
	default:
		if pkt, ok := parseTCP(buf[:n]); ok && s.filter.match(pkt) {
			s.keep(pkt)
		}
	}
	return true
}

func (s *Sniffer) keep(pkt Packet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.size += len(pkt.Payload); s.size > sniffKeep {
		s.err = cmpErr(s.err, fmt.Errorf("more than %d bytes", sniffKeep))
		return
	}
	pkt.Time, pkt.Payload = time.Now(), bytes.Clone(pkt.Payload)
	s.packets = append(s.packets, pkt)
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Sniffer) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = cmpErr(s.err, err)
}

func cmpErr(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// Packets returns what was seen until now.
func (s *Sniffer) Packets() []Packet {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.packets)
}

// Changed is closed when a packet has come after the call.
func (s *Sniffer) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// Saw reports whether text was on the wire in the clear, also when segments split it.
func (s *Sniffer) Saw(text []byte) bool {
	type flow struct{ from, to netip.AddrPort }
	streams := map[flow][]byte{}
	for _, p := range s.Packets() {
		f := flow{p.From, p.To}
		streams[f] = append(streams[f], p.Payload...)
	}
	for _, b := range streams {
		if bytes.Contains(b, text) {
			return true
		}
	}
	return false
}

// Ports lists the destination ports of connections that were opened, each once.
func (s *Sniffer) Ports() []uint16 {
	var ports []uint16
	for _, p := range s.Packets() {
		if p.SYN && !slices.Contains(ports, p.To.Port()) {
			ports = append(ports, p.To.Port())
		}
	}
	return ports
}

// Stop ends the recording and returns all of it, what was on the wire before the call to the last packet. An error says that something was missed, so that
// "not seen" proves nothing.
func (s *Sniffer) Stop() ([]Packet, error) {
	var drops int
	if raw, err := s.file.SyscallConn(); err == nil {
		if err := raw.Control(s.deafen); err == nil { // else closed: stopped before
			_ = s.file.SetReadDeadline(time.Now()) // read goes on to what was received, and ends with that
			<-s.done
		}
		_ = raw.Control(func(fd uintptr) {
			if st, err := unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
				drops = int(st.Drops)
			}
		})
	}
	s.file.Close()
	<-s.done
	if drops > 0 {
		s.fail(fmt.Errorf("%d packets were dropped", drops))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.packets, fmt.Errorf("sniff: %w", s.err)
	}
	return s.packets, nil
}

// deafen keeps the socket from receiving more: on a busy wire there would be no end.
func (s *Sniffer) deafen(fd uintptr) {
	nothing := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}
	if err := unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &nothing}); err != nil {
		s.fail(fmt.Errorf("end receiving: %w", err))
	}
}

func (f Filter) match(p Packet) bool {
	return (f.Port == 0 || p.From.Port() == f.Port || p.To.Port() == f.Port) &&
		(!f.Peer.IsValid() || p.From.Addr() == f.Peer || p.To.Addr() == f.Peer)
}

// parseTCP reads an IPv4 packet; ok is false for what is not TCP.
func parseTCP(b []byte) (p Packet, ok bool) {
	const minIP, minTCP = 20, 20
	if len(b) < minIP || b[0]>>4 != 4 || b[9] != syscall.IPPROTO_TCP {
		return p, false
	}
	head, total := int(b[0]&0xf)*4, int(binary.BigEndian.Uint16(b[2:]))
	if total == 0 || total > len(b) { // segmentation offload
		total = len(b)
	}
	if head < minIP || total < head+minTCP {
		return p, false
	}
	src, dst := netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	t := b[head:total]
	data := int(t[12]>>4) * 4
	if data < minTCP || data > len(t) {
		return p, false
	}
	return Packet{
		From: netip.AddrPortFrom(src, binary.BigEndian.Uint16(t)), To: netip.AddrPortFrom(dst, binary.BigEndian.Uint16(t[2:])),
		SYN: t[13]&0x12 == 0x02, Payload: t[data:],
	}, true
}
