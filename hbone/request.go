package hbone

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/isthmus-mesh/isthmus/hbone/internal/h2"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// ConnectRequest is a CONNECT that a Server decides on.
type ConnectRequest struct {
	Authority string         // as the peer wrote it: host:port, checked for its form only
	Target    netip.AddrPort // the authority when it is an IP address; else zero
	Peer      spiffeid.ID    // whom the peer's certificate names; verified
	Local     netip.AddrPort // our end of the carrying TCP connection: where it was meant to go
	Remote    netip.AddrPort // the peer's end
	Claims    Claims

	stream *h2.Stream
	in     *inbound
	start  time.Time // for the Trace; zero without
}

// Claims is what a peer writes about itself and its user. Nothing vouches for it: show it, but never decide by it.
type Claims struct {
	Forwarded        string // RFC 7239: who the original client is, and the Service addressed
	Baggage          string // the peer's workload
	Traceparent      string
	Source           string // x-istio-source
	ForwardedNetwork string // x-forwarded-network
}

// Abort ends the tunnel with RST_STREAM, whether or not it has been answered: a policy denies it now. It may be called at any time,
// also twice.
func (r *ConnectRequest) Abort() { r.stream.Reset(http2.ErrCodeCancel) }

// Done is closed when the tunnel has ended.
func (r *ConnectRequest) Done() <-chan struct{} { return r.stream.Done() }

// inbound is what is kept of a CONNECT while its tunnel is open. Tunnels that come with the same share it.
type inbound struct {
	link      *link
	server    *Server // before the CONNECT was read; else nil
	authority string
	claims    Claims
}

// request is the ConnectRequest of st.
func (in *inbound) request(st *h2.Stream) *ConnectRequest {
	target, _ := parseAuthority(in.authority) // zero unless it is an address; the form was checked when it came
	return &ConnectRequest{
		Authority: in.authority, Target: target, Claims: in.claims, Peer: in.link.peer,
		Local: addrPort(in.link.local), Remote: addrPort(in.link.remote), stream: st, in: in,
	}
}

// usual is the CONNECT that comes again and again on a connection.
type usual struct {
	first *hpack.HeaderField // of its header list: the engine gives the same list for the same fields
	r     ConnectRequest     // but for the stream
}

// newConnectRequest is what the peer sent, also where the error says that it is wrong.
func newConnectRequest(st *h2.Stream, l *link) (*ConnectRequest, error) {
	fields := st.Fields()
	first := unsafe.SliceData(fields)
	if u := l.usual.Load(); u != nil && u.first == first {
		r := u.r
		r.stream = st
		return &r, nil
	}
	r, err := parseConnect(st, l, fields)
	switch {
	case err != nil:
	case l.before.Load() != first:
		l.before.Store(first)
	default:
		u := &usual{first, *r}
		u.r.stream = nil
		l.usual.Store(u)
	}
	return r, err
}

func parseConnect(st *h2.Stream, l *link, fields []hpack.HeaderField) (*ConnectRequest, error) {
	in, method := inbound{link: l}, ""
	for _, f := range fields {
		switch f.Name {
		case ":method":
			method = f.Value
		case ":authority":
			in.authority = f.Value
		case "forwarded":
			in.claims.Forwarded = f.Value
		case "baggage":
			in.claims.Baggage = f.Value
		case "traceparent":
			in.claims.Traceparent = f.Value
		case "x-istio-source":
			in.claims.Source = f.Value
		case "x-forwarded-network":
			in.claims.ForwardedNetwork = f.Value
		}
	}
	r := in.shared().request(st)
	if method != http.MethodConnect {
		return r, fmt.Errorf("the method is %q; this server knows CONNECT only", method)
	}
	_, err := parseAuthority(in.authority)
	return r, err
}

// shared is in, or the one before on its connection where that says the same.
func (in *inbound) shared() *inbound {
	if last := in.link.last.Load(); last != nil && *last == *in {
		return last
	}
	kept := *in
	kept.link.last.Store(&kept)
	return &kept
}

// parseAuthority checks host:port (RFC 9113, section 8.5). The result is zero when the host is a name.
func parseAuthority(authority string) (netip.AddrPort, error) {
	host, portText, err := net.SplitHostPort(authority)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("authority %q: %w", authority, err)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 || portText[0] == '+' {
		return netip.AddrPort{}, fmt.Errorf("authority %q: no port from 1 to 65535", authority)
	}
	if host == "" || strings.ContainsAny(host, "@/?# \t%") || len(host) > 253 {
		return netip.AddrPort{}, fmt.Errorf("authority %q: no host", authority)
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.AddrPort{}, nil //nolint:nilerr // a host name, not an address
	}
	return netip.AddrPortFrom(addr, uint16(port)), nil
}

// ForwardLocal returns a Server.Connect that forwards where a connection was meant to go, and nowhere else: the authority must be the IP
// address that the carrying connection was made to, with any port but those of the mesh itself (15000-15008, 15020, 15021), and
// neither loopback nor link-local. Nil dials with a net.Dialer.
func ForwardLocal(dial func(ctx context.Context, network, address string) (net.Conn, error)) func(context.Context, *ConnectRequest) (net.Conn, error) {
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	return func(ctx context.Context, r *ConnectRequest) (net.Conn, error) {
		if err := r.CheckLocal(); err != nil {
			return nil, err
		}
		return dial(ctx, "tcp", r.Target.String())
	}
}

// CheckLocal is the rule of ForwardLocal, for a Server.Forward or Connect of one's own: nil, or the *Refusal to answer with.
func (r *ConnectRequest) CheckLocal() error {
	port := r.Target.Port()
	switch ip := r.Target.Addr(); {
	case !r.Target.IsValid():
		return &Refusal{Status: http.StatusBadRequest, Err: fmt.Errorf("%s is a name; only our own address is served", r.Authority)}
	case ip.Is4In6() || ip.Zone() != "":
		return &Refusal{Status: http.StatusBadRequest, Err: fmt.Errorf("%s is no plain IP address", r.Authority)}
	case ip != r.Local.Addr():
		return &Refusal{Status: http.StatusBadRequest, Err: fmt.Errorf("%s is not the address dialled, %s", r.Authority, r.Local.Addr())}
	case ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified():
		return &Refusal{Status: http.StatusBadRequest, Err: fmt.Errorf("%s is an address that is never forwarded to", r.Authority)}
	case port >= 15000 && port <= 15008 || port == 15020 || port == 15021:
		return &Refusal{Status: http.StatusServiceUnavailable, Err: errors.New("the port belongs to the mesh itself")}
	case port == r.Local.Port():
		return &Refusal{Status: http.StatusServiceUnavailable, Err: errors.New("the port is that of the listener which the CONNECT came to")}
	}
	return nil
}
