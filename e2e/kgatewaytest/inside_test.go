package kgatewaytest

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/story/apps"
)

// inside is a workload of the mesh that asks for what it is told: it sends a request for the host NAME on to the Service NAME of the namespace that its
// argument names, with the headers that it got.
func inside(args []string) int {
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: r.In.Host + "." + args[0] + ".svc.cluster.local"})
			if sent, is := r.In.Header["X-Forwarded-For"]; is {
				r.Out.Header["X-Forwarded-For"] = sent
			}
		},
		Transport: &http.Transport{DisableKeepAlives: true},
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(http.ResponseWriter, *http.Request) {})
	mux.Handle("/", proxy)
	server := &http.Server{Addr: ":8080", Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	log.Print(server.ListenAndServe())
	return 1
}

// request is one that people outside of the mesh send to a pod of the site, on port 8080: the gateway's, or that inside.
type request struct {
	to, host, path string
	header         http.Header
}

// with is the same request with one more header.
func (r request) with(name, value string) request {
	r.header = r.header.Clone()
	if r.header == nil {
		r.header = http.Header{}
	}
	r.header.Add(name, value)
	return r
}

// bearing is the same request with a token.
func (r request) bearing(token string) request { return r.with("Authorization", "Bearer "+token) }

// send sends a request on a connection of its own. seen is what the backend has seen of it, where that has answered.
func (s *site) send(r request) (status int, seen apps.Seen, err error) {
	c := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: s.mesh.NS.DialContext, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, "http://"+r.to+":8080"+r.path, nil)
	if err != nil {
		return 0, seen, err
	}
	if r.header != nil {
		req.Header = r.header.Clone()
	}
	req.Host = r.host
	res, err := c.Do(req)
	if err != nil {
		return 0, seen, err
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusOK {
		err = json.NewDecoder(io.LimitReader(res.Body, 64<<10)).Decode(&seen)
	}
	return res.StatusCode, seen, err
}

// inARow is how many answers have to be alike to be believed: a proxy's threads take a new configuration one after the other.
const inARow = 4

// gets waits until a request is answered so, again and again, and is what the backend has seen of the last.
func (s *site) gets(r request, status int) (seen apps.Seen) {
	s.t.Helper()
	s.wait(fmt.Sprintf("%s of %s with %v is answered with %d", r.path, r.to, r.header, status), func() string {
		for range inARow {
			is, got, err := s.send(r)
			if is != status || err != nil {
				return fmt.Sprintf("it is with %d, %v", is, err)
			}
			seen = got
		}
		return ""
	})
	return seen
}

// counts sends a request some times, and has all of them answered so.
func (s *site) counts(what string, r request, times, status int) {
	s.t.Helper()
	got := map[int]int{}
	for range times {
		is, _, err := s.send(r)
		if err != nil {
			s.t.Fatalf("%s: %v", what, err)
		}
		got[is]++
	}
	s.t.Logf("%s: %v", what, got)
	if got[status] != times {
		s.t.Errorf("%s: answers are %v, want %d times %d", what, got, times, status)
	}
}
