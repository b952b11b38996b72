package coordination

import (
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"
)

// keepHeader has a gate send a request on a connection that it has kept, if there is one.
const keepHeader = "X-Keep"

// gate is a gateway that knows nothing of a mesh: on port 8080, it sends what is for the host NAME.example.com to the Service NAME of namespace
// shop, as its client has sent it, X-Forwarded-For and all. Callers inside of the mesh are gates too, whose clients are the tests. Nobody answers: 502.
func gate([]string) int {
	anew, keeping := &http.Transport{DisableKeepAlives: true}, &http.Transport{MaxIdleConnsPerHost: 64}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			name, _, _ := strings.Cut(r.In.Host, ".")
			r.SetURL(&url.URL{Scheme: "http", Host: name + ".shop.svc.cluster.local"})
			r.Out.Host = r.In.Host
			if sent, is := r.In.Header["X-Forwarded-For"]; is {
				r.Out.Header["X-Forwarded-For"] = sent
			}
		},
		Transport: byHeader{anew, keeping},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, err.Error(), http.StatusBadGateway)
		},
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(http.ResponseWriter, *http.Request) {})
	mux.Handle("/", proxy)
	server := &http.Server{Addr: ":8080", Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	log.Print(server.ListenAndServe())
	return 1
}

// byHeader are the ways of a gate.
type byHeader struct{ anew, keeping http.RoundTripper }

func (b byHeader) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Header.Get(keepHeader) != "" {
		return b.keeping.RoundTrip(r)
	}
	return b.anew.RoundTrip(r)
}
