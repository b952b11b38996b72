package main

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone"
)

// dialDocument is the output of isthmus dial.
type dialDocument struct {
	header
	Target     string          `json:"target"`
	Route      routeDetail     `json:"route"`
	Connection *connDetail     `json:"connection,omitempty"` // absent with --route
	Response   *responseDetail `json:"response,omitempty"`   // with --http
}

// routeDetail is a way through the mesh.
type routeDetail struct {
	Transport string      `json:"transport"` // hbone or plaintext
	Service   string      `json:"service,omitempty"`
	Hops      []hopDetail `json:"hops"`             // outermost first
	Direct    string      `json:"direct,omitempty"` // of plaintext
	Reason    []string    `json:"reason"`
}

// hopDetail is one HBONE listener on the way.
type hopDetail struct {
	Kind      string   `json:"kind"`
	Name      string   `json:"name,omitempty"`
	Address   string   `json:"address"`
	Authority string   `json:"authority"`
	Peers     []string `json:"peers"` // whom it may be
}

// connDetail is what was seen when the way was taken.
type connDetail struct {
	Local  string  `json:"local,omitempty"` // our identity
	Peer   string  `json:"peer,omitempty"`  // of the last hop
	Remote string  `json:"remote"`          // address of the first
	Millis float64 `json:"milliseconds"`    // for route, certificate and connection
}

// responseDetail is the answer to --http.
type responseDetail struct {
	Status    int         `json:"status"`
	Header    http.Header `json:"header"`
	Body      string      `json:"body"`
	Truncated bool        `json:"truncated,omitempty"`
}

func newDialDocument(target string, rt hbone.Route) *dialDocument {
	d := &dialDocument{header: newHeader("Dial"), Target: target}
	d.Route = routeDetail{Transport: "hbone", Service: rt.Service, Hops: []hopDetail{}, Reason: rt.Reason}
	if len(rt.Hops) == 0 {
		d.Route.Transport, d.Route.Direct = "plaintext", rt.Direct.String()
	}
	for _, h := range rt.Hops {
		hop := hopDetail{Kind: string(h.Kind), Name: h.Name, Address: h.Addr.String(), Authority: h.Authority}
		for _, p := range h.Peers {
			hop.Peers = append(hop.Peers, p.String())
		}
		d.Route.Hops = append(d.Route.Hops, hop)
	}
	return d
}

func (d *dialDocument) connected(c net.Conn, took time.Duration) {
	d.Connection = &connDetail{Remote: c.RemoteAddr().String(), Millis: float64(took.Microseconds()) / 1000}
	if t, ok := c.(*hbone.Conn); ok {
		d.Connection.Local, d.Connection.Peer = t.LocalIdentity().String(), t.PeerIdentity().String()
	}
}

// print shows the way, a fact a line.
func (r *routeDetail) print(p *page, target string) error {
	var b strings.Builder
	line := func(c colour, name, text string) {
		const indent = 10
		room := 0
		if p.width > 0 {
			room = max(20, p.width-indent)
		}
		for i, l := range wrap(text, room) {
			if i > 0 {
				name = ""
			}
			fmt.Fprintf(&b, "%s%s\n", p.paint(grey, fmt.Sprintf("%-*s", indent, name)), p.paint(c, l))
		}
	}
	line(bold, "to", target)
	for _, h := range r.Hops {
		line(plain, "through", hopName(hbone.HopKind(h.Kind), h.Name, h.Address))
		line(plain, "  peer", strings.Join(h.Peers, " or "))
		line(plain, "  for", h.Authority)
	}
	if r.Transport == "plaintext" {
		line(yellow, "straight", r.Direct+", in plaintext")
	}
	for i, why := range r.Reason {
		name := ""
		if i == 0 {
			name = "why"
		}
		line(plain, name, why)
	}
	_, err := fmt.Fprint(p.w, b.String())
	return err
}

func (c *connDetail) print(p *page) {
	if c.Peer != "" {
		fmt.Fprintf(p.w, "%s%s\n", p.paint(grey, "we are    "), c.Local)
		fmt.Fprintf(p.w, "%s%s\n", p.paint(grey, "answered  "), p.paint(green, c.Peer))
	}
	fmt.Fprintf(p.w, "%s%.0f ms\n", p.paint(grey, "took      "), c.Millis)
}
