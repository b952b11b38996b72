package policy

import (
	"net/netip"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/isthmus-mesh/isthmus/hbone/authz"
)

// kind is how a condition is looked at.
type kind uint8

const (
	constant         kind = iota // result
	atZtunnel                    // l4
	sourceText                   // texts
	clientAddress                // nets
	destAddress                  // nets
	destPort                     // ports
	method                       // texts
	path                         // texts, templates
	host                         // texts
	header                       // name, texts; with present also an empty one
	claim                        // claims, texts
	requestPrincipal             // issuers and subjects, pairwise
)

// cond is one field of a policy: its values, or its notValues.
type cond struct {
	kind  kind
	attr  Attributes
	not   bool
	field string // in the policy's spec

	result            tri
	l4                *authz.Match // one field of it
	texts             []pattern
	templates         []*template
	nets              []netip.Prefix
	ports             []uint16
	name              string // of a header, in lower case
	present           bool
	claims            []string
	issuers, subjects []pattern
}

// view is a request as one enforcement point sees it.
type view struct {
	r        *Request
	source   *Values[spiffeid.ID]
	sourceIP *Values[netip.Addr]
	destIP   *Values[netip.Addr]
	destPort *Values[uint16]
	point    *engine
}

// over is what holds of an attribute: of each value that it may have, and of its absence.
func over[T any](v *Values[T], absent tri, of func(*T) tri) tri {
	if !v.known {
		return maybe
	}
	var t tri
	if v.absent {
		t = absent
	}
	for i := range v.list {
		if t |= of(&v.list[i]); t == maybe {
			break
		}
	}
	return t
}

// eval says whether the condition holds.
func (c *cond) eval(v *view) tri {
	switch c.kind {
	case atZtunnel:
		return c.evalL4(v) // its nots are in l4
	case constant:
		return c.result
	case sourceText:
		return over(v.source, no, func(id *spiffeid.ID) tri { return anyHolds(c.texts, principalOf(*id)) }).flip(c.not)
	case clientAddress:
		at := func(a *netip.Addr) tri { return is(within(*a, c.nets)) }
		return over(&v.r.RemoteIP, over(v.sourceIP, maybe, at), at).flip(c.not)
	case destAddress:
		return over(v.destIP, no, func(a *netip.Addr) tri { return is(within(*a, c.nets)) }).flip(c.not)
	case destPort:
		return over(v.destPort, no, func(p *uint16) tri { return is(listed(*p, c.ports)) }).flip(c.not)
	case method:
		return over(&v.r.Method, no, func(s *string) tri { return anyHolds(c.texts, *s) }).flip(c.not)
	case host:
		return over(&v.r.Host, no, func(s *string) tri { return anyHolds(c.texts, strings.ToLower(*s)) }).flip(c.not)
	case path:
		return over(&v.r.Path, no, func(s *string) tri { return c.evalPath(v, *s) }).flip(c.not)
	case header:
		return c.evalHeader(v).flip(c.not)
	case claim, requestPrincipal:
		return v.point.overTokens(v, c.evalToken).flip(c.not)
	}
	return maybe
}

func (c *cond) evalL4(v *view) tri {
	switch c.attr {
	case OnSource:
		return over(v.source, is(c.l4.Holds(&authz.Conn{})), func(id *spiffeid.ID) tri { return is(c.l4.Holds(&authz.Conn{Source: *id})) })
	case OnSourceIP:
		return over(v.sourceIP, maybe, func(a *netip.Addr) tri { return is(c.l4.Holds(&authz.Conn{SourceAddr: a.Unmap()})) })
	case OnDestinationIP:
		return over(v.destIP, maybe, func(a *netip.Addr) tri {
			return is(c.l4.Holds(&authz.Conn{Dest: netip.AddrPortFrom(a.Unmap(), 0)}))
		})
	case OnDestinationPort:
		return over(v.destPort, maybe, func(p *uint16) tri {
			return is(c.l4.Holds(&authz.Conn{Dest: netip.AddrPortFrom(netip.Addr{}, *p)}))
		})
	}
	return maybe
}

func (c *cond) evalPath(v *view, sent string) tri {
	s, ok := v.point.normalization.normal(sent)
	if !ok {
		return maybe
	}
	t := anyHolds(c.texts, s)
	for i := range c.templates {
		t = t.or(c.templates[i].holds(s))
	}
	return t
}

func (c *cond) evalHeader(v *view) tri {
	if v.point.writes(c.name) && v.r.Token.mayBe() {
		return maybe // it is what RequestAuthentication makes of it
	}
	switch c.name {
	case ":authority", "host":
		return over(&v.r.Host, no, c.lineHolds)
	case ":method":
		return over(&v.r.Method, no, c.lineHolds)
	}
	values, ok := v.r.Headers[c.name]
	switch {
	case rewritten(c.name):
		return maybe
	case ok:
		return over(&values, no, c.headerHolds)
	case v.r.NoOtherHeaders:
		return no
	}
	return maybe
}

// rewritten says whether Envoy itself may write or remove a header before policies see it.
func rewritten(name string) bool {
	switch name {
	case "connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade", "x-request-id", "traceparent", "tracestate", "b3":
		return true
	}
	for _, prefix := range [...]string{":", "x-forwarded-", "x-envoy-", "x-b3-"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// headerHolds compares a header that is there. Of one that is sent several times Envoy looks at each value, and older ones at all of them joined.
func (c *cond) headerHolds(h *Header) tri {
	if len(*h) == 0 {
		return no
	}
	each := no
	for i := range *h {
		each = each.or(c.lineHolds(&(*h)[i]))
	}
	if len(*h) == 1 {
		return each
	}
	joined := strings.Join(*h, ",")
	return each | c.lineHolds(&joined)
}

// lineHolds compares a value; an empty one is there too.
func (c *cond) lineHolds(s *string) tri {
	if c.present {
		return yes
	}
	return anyHolds(c.texts, *s)
}

// mayBe reports whether the attribute may be there.
func (v *Values[T]) mayBe() bool { return !v.known || len(v.list) > 0 }

// principalOf is a source as policies write it.
func principalOf(id spiffeid.ID) string { return strings.TrimPrefix(id.String(), "spiffe://") }

func within(a netip.Addr, list []netip.Prefix) bool {
	a = a.Unmap()
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

func listed(port uint16, list []uint16) bool {
	for _, p := range list {
		if p == port {
			return true
		}
	}
	return false
}
