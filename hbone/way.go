package hbone

import (
	"strconv"
	"unsafe"

	"github.com/isthmus-mesh/isthmus/hbone/internal/h2"
	"golang.org/x/net/http2/hpack"
)

// way is a route with what follows from it on one connection. The tunnels that a Resolver sends along one and the same route share it.
type way struct {
	d      *Dialer
	pc     *pooled // nil for a connection inside a tunnel, which has the next two
	inside *h2.Conn
	shown  *generation // to the peer of inside
	link   *link
	route  Route // up to the hop that the tunnel ends at
	fields []hpack.HeaderField
}

func (w *way) hop() *Hop { return &w.route.Hops[len(w.route.Hops)-1] }

// is reports whether w is what newWay would make for the first hop. Routes do not change, so what they point to tells.
func (w *way) is(d *Dialer, route *Route) bool {
	return w.d == d && unsafe.SliceData(w.route.Hops) == unsafe.SliceData(route.Hops) &&
		w.fields[1].Value == route.Hops[0].Authority && w.route.Service == route.Service && w.route.Target == route.Target &&
		unsafe.SliceData(w.route.Reason) == unsafe.SliceData(route.Reason) && len(w.route.Reason) == len(route.Reason)
}

// way is for a tunnel to the first hop of route.
func (pc *pooled) way(d *Dialer, route *Route) *way {
	if w := pc.last.Load(); w != nil && w.is(d, route) {
		return w
	}
	w := newWay(d, route, 0, pc.link)
	w.pc = pc
	pc.last.Store(w)
	return w
}

// newWay is for a tunnel to hop i of route, on the connection of l.
func newWay(d *Dialer, route *Route, i int, l *link) *way {
	w := &way{d: d, route: *route, link: l}
	w.route.Hops = route.Hops[:i+1]
	hop := w.hop()
	w.fields = make([]hpack.HeaderField, 0, 4+len(hop.Header))
	w.fields = append(w.fields, hpack.HeaderField{Name: ":method", Value: "CONNECT"}, hpack.HeaderField{Name: ":authority", Value: hop.Authority})
	if d.Baggage != "" {
		w.fields = append(w.fields, hpack.HeaderField{Name: "baggage", Value: d.Baggage})
	}
	forwarded := "for=" + strconv.Quote(l.local.String())
	if route.Service != "" {
		forwarded += ";host=" + route.Service
	}
	w.fields = append(w.fields, hpack.HeaderField{Name: "forwarded", Value: forwarded})
	for _, f := range hop.Header {
		w.fields = append(w.fields, hpack.HeaderField{Name: f.Name, Value: f.Value})
	}
	return w
}

// join puts the tunnel into the Dialer's list.
func (c *Conn) join(d *Dialer) {
	if e := c.currentWay().route.Endpoint; e != nil {
		e.Opened()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.earn()
	root := &d.open
	if root.next == nil {
		root.next, root.prev = root, root
	}
	c.prev, c.next = root.prev, root
	root.prev.next = c
	root.prev = c
}

// leave takes it out, if it is in.
func (c *Conn) leave() {
	if c.in != nil {
		return
	}
	w := c.currentWay()
	w.d.mu.Lock()
	defer w.d.mu.Unlock()
	if c.next == nil {
		return
	}
	c.prev.next, c.next.prev = c.next, c.prev
	c.prev, c.next = nil, nil
	delete(w.d.outdated, c)
	if e := w.route.Endpoint; e != nil {
		e.Closed()
	}
}
