package hbonetest_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/hbone/hbonetest"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// A server and a dialer in one process, without a socket.
func ExampleNetwork() {
	ca := identitytest.NewCA(spiffeid.RequireTrustDomainFromString("cluster.local"))
	orders := spiffeid.RequireFromString("spiffe://cluster.local/ns/shop/sa/orders")
	gateway := spiffeid.RequireFromString("spiffe://cluster.local/ns/edge/sa/gateway")

	network := new(hbonetest.Network)
	addr := netip.MustParseAddrPort("10.0.0.7:15008")
	l, err := network.Listen(addr)
	if err != nil {
		fmt.Println(err)
		return
	}
	server := &hbone.Server{
		Identity: ca.Source(orders),
		Connect: func(_ context.Context, r *hbone.ConnectRequest) (net.Conn, error) {
			app, backend := hbonetest.Pipe()
			go func() {
				fmt.Fprintf(app, "hello %s, this is %s", r.Peer, r.Authority)
				app.Close()
			}()
			return backend, nil
		},
	}
	defer server.Close()
	go server.Serve(l)

	dialer := &hbone.Dialer{
		Identity: ca.Source(gateway),
		NetDial:  network.DialContext,
		Resolver: hbone.ResolverFunc(func(_ context.Context, _, address string) (hbone.Route, error) {
			return hbone.Route{Hops: []hbone.Hop{{Addr: addr, Authority: address, Peers: []spiffeid.ID{orders}}}}, nil
		}),
	}
	defer dialer.Close()
	conn, err := dialer.DialContext(context.Background(), "tcp", "10.0.0.7:8080")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	text, err := io.ReadAll(conn)
	fmt.Println(string(text), err)
	// Output: hello spiffe://cluster.local/ns/edge/sa/gateway, this is 10.0.0.7:8080 <nil>
}
