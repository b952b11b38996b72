// Package native is the same edge gateway as package plain, by an author who embeds hbone: it needs no capture.
package native

import (
	"context"
	"flag"
	"log"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"os"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/hbone/wds"
	"github.com/isthmus-mesh/isthmus/identity/istioca"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

const istiod, token, roots = "istiod.istio-system.svc:15012", "/var/run/secrets/tokens/istio-token", "/var/run/secrets/istio/root-cert.pem"

// Main runs the gateway until it is killed; args are its flags. It returns the process's exit code.
func Main(args []string) int {
	fs := flag.NewFlagSet("native-gateway", flag.ContinueOnError)
	listen := fs.String("listen", ":8443", "address to serve TLS on")
	cert, key := fs.String("cert", "tls.crt", "certificate file"), fs.String("key", "tls.key", "key file")
	backend := fs.String("backend", "", "URL to forward to")
	if err := fs.Parse(args); err != nil {
		return 2
	}
	log.Print(serve(context.Background(), *listen, *cert, *key, *backend))
	return 1
}

func serve(ctx context.Context, listen, cert, key, backend string) error {
	target, err := url.Parse(backend)
	if err != nil {
		return err
	}
	ns, sa := os.Getenv("POD_NAMESPACE"), os.Getenv("SERVICE_ACCOUNT")
	self := spiffeid.RequireFromString("spiffe://cluster.local/ns/" + ns + "/sa/" + sa)
	id, err := istioca.New(ctx, istioca.Config{Addresses: []string{istiod}, RootsFile: roots, TokenFile: token, ID: self})
	if err != nil {
		return err
	}
	mesh, err := wds.New(wds.Config{Addresses: []string{istiod}, RootsFile: roots, TokenFile: token,
		Node: wds.Node{IP: netip.MustParseAddr(os.Getenv("POD_IP")), Pod: os.Getenv("POD_NAME"), Namespace: ns, ServiceAccount: sa}})
	if err != nil {
		return err
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target); r.SetXForwarded() },
		Transport: &hbone.Transport{Dialer: &hbone.Dialer{Identity: id, Resolver: mesh}},
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(http.ResponseWriter, *http.Request) {}) // for the kubelet, not for the backend
	mux.Handle("/", proxy)
	return http.ListenAndServeTLS(listen, cert, key, mux)
}
