package hbone

// ServerStats is what a Server has at one moment.
type ServerStats struct {
	Conns      int // connections whose handshake is done
	Handshakes int // connections before that
	Tunnels    int // CONNECTs that are open or not yet answered
}

// Stats says what the Server has now.
func (s *Server) Stats() ServerStats {
	s.init()
	s.mu.Lock()
	defer s.mu.Unlock()
	st := ServerStats{Conns: len(s.conns), Handshakes: len(s.handshakes)}
	for c := range s.conns {
		st.Tunnels += c.Streams()
	}
	return st
}

// DialerStats is what a Dialer's pool has at one moment; other Dialers may share it.
type DialerStats struct {
	Conns    int // connections to first hops
	Tunnels  int // open tunnels, or CONNECTs that are not yet answered
	Dialling int // connections being made
	Waiting  int // dials that wait for a connection
}

// RetryStats counts what a Dialer has tried again, see Dialer.RetryWithin, since its first dial.
type RetryStats struct {
	Tries  uint64 // further tries
	Saved  uint64 // dials that came to a tunnel by them, and requests of a Transport that came to an answer
	Spared uint64 // those that were left as they were since too much was tried again, or their way refuses for long
}

// Retries says what the Dialer has tried again.
func (d *Dialer) Retries() RetryStats {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.retries
}

// Outdated is how many of the Dialer's tunnels are open though their way has changed, as far as the Resolver tells of changes.
func (d *Dialer) Outdated() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.outdated)
}

// Stats says what the Dialer's pool has now.
func (d *Dialer) Stats() DialerStats { return d.pool().Stats() }

// Stats says what the Pool has now.
func (p *Pool) Stats() DialerStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	st := DialerStats{Conns: len(p.all)}
	for pc := range p.all {
		st.Tunnels += pc.h2.Streams()
	}
	for _, e := range p.byKey {
		for ; e != nil; e = e.next {
			st.Dialling += len(e.dials)
			st.Waiting += e.waiting
		}
	}
	return st
}
