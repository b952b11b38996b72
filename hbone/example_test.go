package hbone_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/hbone/hbonetest"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// small is a mesh in memory: who we are, how to reach a workload of it, and its HBONE listener.
type small struct {
	ca       *identitytest.CA
	gateway  *identitytest.Source
	orders   *identitytest.Source
	network  *hbonetest.Network
	resolver hbone.Resolver
	listener net.Listener
}

func newSmall() small {
	ca := identitytest.NewCA(td)
	s := small{ca: ca, gateway: ca.Source(sa("edge", "gateway")), orders: ca.Source(sa("shop", "orders")), network: new(hbonetest.Network)}
	listener := netip.MustParseAddrPort("10.0.0.7:15008")
	s.listener, _ = s.network.Listen(listener) // nobody else is there
	route := hbone.Route{Service: "orders.shop.svc.cluster.local", Hops: []hbone.Hop{{
		Kind: hbone.HopWorkload, Name: "shop/orders", Addr: listener, Authority: "10.0.0.7:8080", Peers: []spiffeid.ID{sa("shop", "orders")},
	}}}
	s.resolver = hbone.ResolverFunc(func(context.Context, string, string) (hbone.Route, error) { return route, nil })
	return s
}

// greeter is a server whose tunnels say hello.
func (s small) greeter() *hbone.Server {
	server := &hbone.Server{Identity: s.orders, Admit: func(context.Context, *hbone.ConnectRequest) error { return nil }}
	go server.Serve(s.listener)
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "hello from orders")
			c.Close()
		}
	}()
	return server
}

// In a cluster the identity comes from package identity, the resolver is hbone/wds, and NetDial is left out.
func ExampleDialer() {
	mesh := newSmall()
	defer mesh.greeter().Close()

	dialer := &hbone.Dialer{Identity: mesh.gateway, Resolver: mesh.resolver, NetDial: mesh.network.DialContext}
	defer dialer.Close()
	conn, err := dialer.DialContext(context.Background(), "tcp", "orders.shop.svc.cluster.local:80")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	greeting, err := io.ReadAll(conn)
	fmt.Println(string(greeting), err)
	fmt.Println(conn.(*hbone.Conn).PeerIdentity())
	// Output:
	// hello from orders <nil>
	// spiffe://cluster.local/ns/shop/sa/orders
}

// A gRPC client takes the dialer as it is:
//
//	conn, err := grpc.NewClient("passthrough:///orders.shop.svc.cluster.local:80",
//		grpc.WithContextDialer(dial), grpc.WithTransportCredentials(insecure.NewCredentials()))
//
// The tunnel is what secures it, so the credentials inside are insecure ones.
func ExampleDialer_grpc() {
	mesh := newSmall()
	defer mesh.greeter().Close()
	dialer := &hbone.Dialer{Identity: mesh.gateway, Resolver: mesh.resolver, NetDial: mesh.network.DialContext}
	defer dialer.Close()

	dial := func(ctx context.Context, address string) (net.Conn, error) {
		return dialer.DialContext(ctx, "tcp", address)
	}
	conn, err := dial(context.Background(), "orders.shop.svc.cluster.local:80")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	greeting, err := io.ReadAll(conn)
	fmt.Println(string(greeting), err)
	// Output: hello from orders <nil>
}

func ExampleTransport() {
	mesh := newSmall()
	server := &hbone.Server{Identity: mesh.orders, Admit: func(context.Context, *hbone.ConnectRequest) error { return nil }}
	defer server.Close()
	go server.Serve(mesh.listener)
	go http.Serve(server, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello ", r.Host) }))

	transport := &hbone.Transport{Dialer: &hbone.Dialer{Identity: mesh.gateway, Resolver: mesh.resolver, NetDial: mesh.network.DialContext}}
	defer transport.Dialer.Close()
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	res, err := client.Get("http://orders.shop.svc.cluster.local/")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	fmt.Println(string(body), err)
	// Output: hello orders.shop.svc.cluster.local <nil>
}

// A Server is a net.Listener, and a handler learns who the peer is.
func ExampleServer() {
	mesh := newSmall()
	server := &hbone.Server{
		Identity: mesh.orders,
		Admit: func(_ context.Context, r *hbone.ConnectRequest) error {
			if r.Peer != sa("edge", "gateway") {
				return &hbone.Refusal{Status: http.StatusUnauthorized}
			}
			return nil
		},
	}
	defer server.Close()
	go server.Serve(mesh.listener)
	type peer struct{}
	web := &http.Server{
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, peer{}, c.(*hbone.Conn).PeerIdentity())
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello ", r.Context().Value(peer{})) }),
	}
	go web.Serve(server)

	transport := &hbone.Transport{Dialer: &hbone.Dialer{Identity: mesh.gateway, Resolver: mesh.resolver, NetDial: mesh.network.DialContext}}
	defer transport.Dialer.Close()
	defer transport.CloseIdleConnections()
	res, err := (&http.Client{Transport: transport}).Get("http://orders.shop.svc.cluster.local/")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	fmt.Println(string(body), err)
	// Output: hello spiffe://cluster.local/ns/edge/sa/gateway <nil>
}

// Double HBONE: to a workload of another network leads a tunnel through that network's east-west gateway, and in it a second one, whose TLS
// ends at the workload.
func ExampleDialer_DialRoute() {
	mesh := newSmall()
	defer mesh.greeter().Close()
	east := sa("istio-system", "eastwest")
	address := netip.MustParseAddrPort("192.0.2.1:15008")
	listener, _ := mesh.network.Listen(address) // nobody else is there
	gateway := &hbone.Server{
		Identity: mesh.ca.Source(east),
		Connect: func(ctx context.Context, r *hbone.ConnectRequest) (net.Conn, error) {
			fmt.Println("the gateway forwards", r.Authority)
			return mesh.network.DialContext(ctx, "tcp", "10.0.0.7:15008") // of an endpoint of the Service
		},
	}
	defer gateway.Close()
	go gateway.Serve(listener)

	dialer := &hbone.Dialer{Identity: mesh.gateway, NetDial: mesh.network.DialContext}
	defer dialer.Close()
	service := "orders.shop.svc.cluster.local:80"
	conn, err := dialer.DialRoute(context.Background(), hbone.Route{Hops: []hbone.Hop{
		{Kind: hbone.HopGateway, Addr: address, Authority: service, Peers: []spiffeid.ID{east}},
		{Kind: hbone.HopWorkload, Authority: service, Peers: []spiffeid.ID{sa("shop", "orders")}, Header: []hbone.Field{{Name: "x-forwarded-network", Value: "west"}}},
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	greeting, err := io.ReadAll(conn)
	fmt.Println(string(greeting), err)
	fmt.Println(conn.PeerIdentity())
	// Output:
	// the gateway forwards orders.shop.svc.cluster.local:80
	// hello from orders <nil>
	// spiffe://cluster.local/ns/shop/sa/orders
}
