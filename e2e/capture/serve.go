package capture

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/world"
	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/hbone/authz"
)

// dialTimeout bounds a connection's set-up.
const dialTimeout = 10 * time.Second

// outbound carries a connection that the pod makes.
func (p *process) outbound(ctx context.Context, x *exchange, c *net.TCPConn, dst netip.AddrPort) {
	e := Entry{Direction: Outbound, Source: c.RemoteAddr().String(), Destination: dst.String()}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	up, err := p.dialer.DialContext(ctx, "tcp", dst.String())
	cancel()
	if err != nil {
		e.Transport, e.Error = HBONE, err.Error()
		if d, ok := errors.AsType[*hbone.DialError](err); ok {
			e.Status = d.Status
		}
		p.log.write(e)
		world.Reset(c)
		return
	}
	e.Transport = Plaintext
	if t, ok := up.(*hbone.Conn); ok {
		route := t.Route()
		e.Transport, e.Reason = HBONE, route.Reason
		e.SourceIdentity, e.PeerIdentity = t.LocalIdentity().String(), t.PeerIdentity().String()
		hop := route.Hops[len(route.Hops)-1]
		e.Hop, e.HopName, e.HopAddr, e.Authority = string(hop.Kind), hop.Name, hop.Addr.String(), hop.Authority
	}
	p.log.write(e)
	x.join(c, up)
}

// connect decides a tunnel to the pod and dials the application.
func (p *process) connect(ctx context.Context, r *hbone.ConnectRequest) (net.Conn, error) {
	e := Entry{Direction: Inbound, Transport: HBONE, Source: r.Remote.String(), SourceIdentity: r.Peer.String(), Destination: r.Authority, Authority: r.Authority}
	if err := r.CheckLocal(); err != nil {
		e.Error, e.Status = err.Error(), http.StatusBadRequest
		p.log.write(e)
		return nil, err
	}
	conn := authz.Conn{Source: r.Peer, SourceAddr: r.Remote.Addr(), Dest: r.Target}
	// Before the decision: a change in between is not missed.
	context.AfterFunc(doneContext{r.Done()}, p.open.add(&opened{conn, e, r.Abort}))
	d := p.authz.Decide(ctx, conn)
	e.decided(d)
	if !d.Allow {
		e.Status = http.StatusUnauthorized
		p.log.write(e)
		return nil, &hbone.Refusal{Status: http.StatusUnauthorized, Err: errors.New(d.Reason)}
	}
	app, err := dialMarked(ctx, "tcp4", r.Target.String())
	if err != nil {
		e.Error, e.Status = err.Error(), http.StatusServiceUnavailable
		p.log.write(e)
		return nil, err
	}
	e.Status = http.StatusOK
	p.log.write(e)
	return app, nil
}

// plaintext decides a connection that came to the pod outside HBONE.
func (p *process) plaintext(ctx context.Context, x *exchange, c *net.TCPConn, dst netip.AddrPort) {
	e := Entry{Direction: Inbound, Transport: Plaintext, Source: c.RemoteAddr().String(), Destination: dst.String()}
	d := authz.Decision{Rule: -1, Reason: "not an address of this pod"}
	if dst.Addr() == p.cfg.IP {
		conn := authz.Conn{SourceAddr: c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap(), Dest: dst}
		defer p.open.add(&opened{conn, e, func() { world.Reset(c) }})()
		d = p.authz.Decide(ctx, conn)
	}
	e.decided(d)
	if !d.Allow {
		p.log.write(e)
		world.Reset(c)
		return
	}
	app, err := dialMarked(ctx, "tcp4", dst.String())
	if err != nil {
		e.Error = err.Error()
		p.log.write(e)
		world.Reset(c)
		return
	}
	p.log.write(e)
	x.join(c, app)
}
