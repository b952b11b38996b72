// Package plain is an edge gateway as teams run it today: TLS ends here, requests go on to a Service.
// It knows nothing of a mesh and imports nothing of Isthmus; capture alone brings it in.
package plain

import (
	"crypto/tls"
	"flag"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
)

// Main runs the gateway until it is killed; args are its flags. It returns the process's exit code.
func Main(args []string) int {
	fs := flag.NewFlagSet("plain-gateway", flag.ContinueOnError)
	listen := fs.String("listen", ":8443", "address to serve TLS on")
	cert := fs.String("cert", "tls.crt", "certificate file")
	key := fs.String("key", "tls.key", "key file")
	backend := fs.String("backend", "", "URL to forward to")
	if err := fs.Parse(args); err != nil {
		return 2
	}
	target, err := url.Parse(*backend)
	if err != nil {
		log.Print(err)
		return 2
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(http.ResponseWriter, *http.Request) {}) // for the kubelet, not for the backend
	mux.Handle("/", &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.SetXForwarded()
	}})
	server := &http.Server{Addr: *listen, TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12}, Handler: mux}
	log.Print(server.ListenAndServeTLS(*cert, *key))
	return 1
}
