package apps

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"io"
	"log"
	"net/http"
	"net/http/httptrace"
	"os"
	"sync/atomic"
	"time"
)

// Seen is what the backend saw of a request; it answers every request with one, as JSON.
type Seen struct {
	Path       string      `json:"path"`
	RemoteAddr string      `json:"remoteAddr"` // ip:port of the connection that brought it
	Header     http.Header `json:"header"`
}

// LastHeader, in a request, makes it the last of the connection that brings it to Orders: whoever keeps connections makes another for the next.
const LastHeader = "X-Orders-Last"

// Orders runs the backend on :8080 until it is killed.
func Orders([]string) int {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.Header.Get(LastHeader) != "" {
			w.Header().Set("Connection", "close")
		}
		if err := json.NewEncoder(w).Encode(Seen{Path: r.URL.Path, RemoteAddr: r.RemoteAddr, Header: r.Header}); err != nil {
			log.Print(err)
		}
	})
	server := &http.Server{Addr: ":8080", Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	log.Print(server.ListenAndServe())
	return 1
}

// Answer is what a caller got.
type Answer struct {
	Status int    `json:"status"` // 0: no answer came
	Body   string `json:"body,omitempty"`
	Err    string `json:"err,omitempty"`
	From   string `json:"from,omitempty"` // ip:port of the caller's side of the connection; empty: there was none
}

// Caller serves POST /call?url=U: it sends GET U from its own pod and reports the Answer as JSON. With &keep=true it does so on a connection that it has kept
// from a call before, if there is one.
func Caller(args []string) int {
	fs := flag.NewFlagSet("caller", flag.ContinueOnError)
	listen := fs.String("listen", ":8080", "address to serve on")
	roots := fs.String("roots", "", "file with the certificates to trust, in place of the system's")
	if err := fs.Parse(args); err != nil {
		return 2
	}
	trusted := &tls.Config{MinVersion: tls.VersionTLS12} // the machine's roots
	if *roots != "" {
		text, err := os.ReadFile(*roots)
		if err != nil {
			log.Print(err)
			return 1
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(text) {
			log.Printf("there is no certificate in %s", *roots)
			return 1
		}
		trusted.RootCAs = pool
	}
	anew := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: trusted}}
	keeping := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64, TLSClientConfig: trusted}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /call", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		client := anew
		if r.URL.Query().Get("keep") == "true" {
			client = keeping
		}
		if err := json.NewEncoder(w).Encode(call(client, r)); err != nil {
			log.Print(err)
		}
	})
	server := &http.Server{Addr: *listen, Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	log.Print(server.ListenAndServe())
	return 1
}

func call(client *http.Client, r *http.Request) Answer {
	var from atomic.Value // of the last connection: a request may be sent again on another
	from.Store("")
	ctx := httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) { from.Store(c.Conn.LocalAddr().String()) }})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.URL.Query().Get("url"), nil)
	if err != nil {
		return Answer{Err: err.Error()}
	}
	res, err := client.Do(req)
	if err != nil {
		return Answer{Err: err.Error(), From: from.Load().(string)}
	}
	defer res.Body.Close()
	a := Answer{Status: res.StatusCode, From: from.Load().(string)}
	body, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil {
		a.Err = err.Error()
		return a
	}
	a.Body = string(body)
	return a
}
