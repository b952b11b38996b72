// Package hbonetest helps to test what uses HBONE: a network in memory, and a peer that does frame by frame what a test tells it.
//
// A Network has listeners at addresses that nobody else can reach, and connections that behave like TCP: half-close, reset,
// deadlines, a bounded buffer, and Cut for what TCP does when a cable is pulled. No descriptor and no clock but time's is used, so
// all of it runs under testing/synctest.
//
//	network := new(hbonetest.Network)
//	l, err := network.Listen(netip.MustParseAddrPort("10.0.0.7:15008"))
//	dialer := &hbone.Dialer{Identity: id, Resolver: mesh, NetDial: network.DialContext}
//
// A Peer speaks HTTP/2 frames, correct ones and others, at either end of any net.Conn. It reads when a Want method asks it to; meanwhile it acknowledges
// SETTINGS and PING by itself. What does not come within ten seconds, or is not what was wanted, ends the test.
//
//	p := hbonetest.AcceptTLS(t, l, ca.Source(orders))
//	id := p.WantConnect("10.0.0.7:8080")
//	p.Send(hbonetest.Answer(id, 200), hbonetest.Data{Stream: id, Bytes: []byte("hello")}, hbonetest.GoAway{Last: id})
//
// Want methods call Fatalf: use them in the goroutine of the test, and let the code under test run in another.
//
// Limits: only what HBONE needs of HTTP/2. A Peer must not be used by two goroutines at once.
package hbonetest
