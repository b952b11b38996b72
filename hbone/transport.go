package hbone

import (
	"net/http"
	"sync"
	"time"
)

// Transport sends HTTP requests through a Dialer: HTTP/1.1, and whatever TLS negotiates for https. Like an http.Transport it keeps connections for later
// requests and repeats only requests that are safe to repeat. One Transport has one Dialer, so identities do not mix.
type Transport struct {
	// Dialer is required.
	Dialer *Dialer
	// Configure, where set, adjusts the http.Transport before its first use; it must leave DialContext alone.
	Configure func(*http.Transport)

	once sync.Once
	base *http.Transport
}

// RoundTrip sends one request; see http.RoundTripper.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	return t.transport().RoundTrip(r)
}

// CloseIdleConnections closes the tunnels that no request uses.
func (t *Transport) CloseIdleConnections() { t.transport().CloseIdleConnections() }

func (t *Transport) transport() *http.Transport {
	t.once.Do(func() {
		t.base = &http.Transport{
			DialContext:           t.Dialer.DialContext,
			MaxIdleConnsPerHost:   64,
			IdleConnTimeout:       90 * time.Second,
			ExpectContinueTimeout: time.Second,
		}
		if t.Configure != nil {
			t.Configure(t.base)
		}
	})
	return t.base
}

var _ http.RoundTripper = (*Transport)(nil)
