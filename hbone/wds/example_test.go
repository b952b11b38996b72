package wds_test

import (
	"context"
	"errors"
	"log"
	"net/http"
	"net/netip"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/hbone/authz"
	"github.com/isthmus-mesh/isthmus/hbone/wds"
	"github.com/isthmus-mesh/isthmus/identity/istioca"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

const (
	istiodAddress = "istiod.istio-system.svc:15012"
	rootsFile     = "/var/run/secrets/istio/root-cert.pem"
	tokenFile     = "/var/run/secrets/tokens/istio-token"
)

// A program in a pod calls a workload of the mesh: istiod says who we are and where to send.
func ExampleNew() {
	ctx := context.Background()
	self := spiffeid.RequireFromString("spiffe://cluster.local/ns/edge/sa/gateway")
	identity, err := istioca.New(ctx, istioca.Config{Addresses: []string{istiodAddress}, RootsFile: rootsFile, TokenFile: tokenFile, ID: self})
	if err != nil {
		log.Fatal(err)
	}
	defer identity.Close()
	mesh, err := wds.New(wds.Config{
		Addresses: []string{istiodAddress}, RootsFile: rootsFile, TokenFile: tokenFile,
		Node: wds.Node{IP: netip.MustParseAddr("10.244.1.5"), Pod: "gateway-7d9f", Namespace: "edge", ServiceAccount: "gateway"},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer mesh.Close()
	client := &http.Client{Transport: &hbone.Transport{Dialer: &hbone.Dialer{Identity: identity, Resolver: mesh}}}
	res, err := client.Get("http://orders.shop.svc.cluster.local/")
	if err != nil {
		log.Fatal(err)
	}
	res.Body.Close()
}

// A server in front of a workload lets in whom the policies let in.
func ExampleClient_Authorizer() {
	var mesh *wds.Client // of a Config with Policies
	own := netip.MustParseAddr("10.244.1.9")
	guard := mesh.Authorizer(own)
	_ = &hbone.Server{Forward: func(ctx context.Context, r *hbone.ConnectRequest) (netip.AddrPort, error) {
		d := guard.Decide(ctx, authz.Conn{Source: r.Peer, SourceAddr: r.Remote.Addr(), Dest: r.Target})
		if !d.Allow {
			return netip.AddrPort{}, &hbone.Refusal{Status: http.StatusUnauthorized, Err: errors.New(d.Reason)}
		}
		return r.Target, r.CheckLocal()
	}}
}
