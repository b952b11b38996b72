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
}

// Stats says what the Dialer's pool has now.
func (d *Dialer) Stats() DialerStats { return d.pool().Stats() }

// Stats says what the Pool has now.
func (p *Pool) Stats() DialerStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	var st DialerStats
	for _, e := range p.byKey {
		st.Conns += len(e.conns)
		for _, pc := range e.conns {
			st.Tunnels += pc.h2.Streams()
		}
		if e.dial != nil {
			st.Dialling++
		}
	}
	return st
}
