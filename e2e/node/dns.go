package node

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// clusterDomain ends the names of Services.
const clusterDomain = "cluster.local"

// Limits of the DNS server: a query and a connection that says nothing.
const (
	maxQuery = 4096
	dnsIdle  = 10 * time.Second
)

// dnsServer answers for Services on the cluster's DNS address. It knows nothing of the world outside: every other name
// does not exist.
type dnsServer struct {
	player *Player
	udp    net.PacketConn
	tcp    net.Listener
	wg     sync.WaitGroup

	mu    sync.Mutex // guards the field below
	conns map[net.Conn]bool
}

func serveDNS(p *Player) (*dnsServer, error) {
	at := netip.AddrPortFrom(p.cfg.dnsVIP(), 53).String()
	s := &dnsServer{player: p, conns: map[net.Conn]bool{}}
	var err error
	if s.udp, err = p.cfg.NS.ListenPacket("udp4", at); err != nil {
		return nil, fmt.Errorf("serve DNS: %w", err)
	}
	if s.tcp, err = p.cfg.NS.Listen("tcp4", at); err != nil {
		return nil, errors.Join(fmt.Errorf("serve DNS: %w", err), s.udp.Close())
	}
	s.wg.Go(s.serveUDP)
	s.wg.Go(s.serveTCP)
	return s, nil
}

func (s *dnsServer) close() error {
	err := errors.Join(s.udp.Close(), s.tcp.Close())
	s.mu.Lock()
	for c := range s.conns {
		c.Close()
	}
	s.conns = nil
	s.mu.Unlock()
	s.wg.Wait()
	return err
}

func (s *dnsServer) serveUDP() {
	buf := make([]byte, maxQuery)
	for {
		n, from, err := s.udp.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error of an earlier answer
		}
		if out := s.answer(buf[:n]); out != nil {
			_, _ = s.udp.WriteTo(out, from) // who asks asks again
		}
	}
}

func (s *dnsServer) serveTCP() {
	for {
		conn, err := s.tcp.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		if s.conns == nil {
			conn.Close()
		} else {
			s.conns[conn] = true
			s.wg.Go(func() { s.serveConn(conn) })
		}
		s.mu.Unlock()
	}
}

func (s *dnsServer) serveConn(conn net.Conn) {
	defer func() {
		conn.Close()
		s.mu.Lock()
		delete(s.conns, conn)
		s.mu.Unlock()
	}()
	buf := make([]byte, maxQuery)
	for {
		if err := conn.SetDeadline(time.Now().Add(dnsIdle)); err != nil {
			return
		}
		if _, err := io.ReadFull(conn, buf[:2]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(buf))
		if n > maxQuery {
			return
		}
		if _, err := io.ReadFull(conn, buf[:n]); err != nil {
			return
		}
		out := s.answer(buf[:n])
		if out == nil {
			return
		}
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...)); err != nil {
			return
		}
	}
}

// answer makes the response to one query; nil when it is not one.
func (s *dnsServer) answer(query []byte) []byte {
	var p dnsmessage.Parser
	h, err := p.Start(query)
	if err != nil || h.Response {
		return nil
	}
	q, err := p.Question()
	if err != nil {
		return nil
	}
	addrs, exists := s.player.lookup(q.Name.String())
	rh := dnsmessage.Header{ID: h.ID, Response: true, Authoritative: true, RecursionDesired: h.RecursionDesired, RecursionAvailable: true}
	if !exists {
		rh.RCode = dnsmessage.RCodeNameError
	}
	b := dnsmessage.NewBuilder(make([]byte, 2, 512)[:0], rh)
	b.EnableCompression()
	if err := errors.Join(b.StartQuestions(), b.Question(q), b.StartAnswers()); err != nil {
		return nil
	}
	if q.Class == dnsmessage.ClassINET && (q.Type == dnsmessage.TypeA || q.Type == dnsmessage.TypeALL) {
		for _, a := range addrs {
			rr := dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: 1}
			if err := b.AResource(rr, dnsmessage.AResource{A: a.As4()}); err != nil {
				return nil
			}
		}
	}
	out, err := b.Finish()
	if err != nil {
		return nil
	}
	return out
}

// lookup resolves service.namespace.svc.cluster.local to its cluster IP, or to its ready pods where it has none, and
// pod-name.service.… to one of them.
func (p *Player) lookup(name string) (addrs []netip.Addr, exists bool) {
	rest, ok := strings.CutSuffix(strings.ToLower(name), ".svc."+clusterDomain+".")
	if !ok {
		return nil, false
	}
	parts := strings.Split(rest, ".")
	hostname := ""
	if len(parts) == 3 {
		hostname, parts = parts[0], parts[1:]
	}
	if len(parts) != 2 {
		return nil, false
	}
	svc, err := p.services.Services(parts[1]).Get(parts[0])
	if err != nil {
		return nil, false
	}
	if svc.Spec.ClusterIP != corev1.ClusterIPNone {
		a, err := netip.ParseAddr(svc.Spec.ClusterIP)
		if err != nil || !a.Is4() || hostname != "" {
			return nil, hostname == ""
		}
		return []netip.Addr{a}, true
	}
	eps, err := p.slices.EndpointSlices(svc.Namespace).List(labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: svc.Name}))
	if err != nil {
		return nil, false
	}
	for _, s := range eps {
		for _, e := range s.Endpoints {
			if !deref(e.Conditions.Ready, true) || hostname != "" && deref(e.Hostname, "") != hostname {
				continue
			}
			for _, a := range e.Addresses {
				if addr, err := netip.ParseAddr(a); err == nil && addr.Is4() {
					addrs = append(addrs, addr)
				}
			}
		}
	}
	return addrs, hostname == "" || len(addrs) > 0
}
