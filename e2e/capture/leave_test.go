package capture_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/capture"
	"github.com/isthmus-mesh/isthmus/e2e/story/apps"
)

// TestNobodyIsCutOffWhenCaptureIsTakenAway: who is led to the process until the redirection ends is served, though the process is told to end right after it.
// Every request has a connection of its own, so that many are on their way at every moment. Tunnels are another matter: who calls a pod's port 15008 before
// istiod has told it that the pod left is refused, in a real mesh too.
func TestNobodyIsCutOffWhenCaptureIsTakenAway(t *testing.T) {
	if capture.IsZtunnel() {
		t.Skip("a real ztunnel closes its listeners at once")
	}
	c := newCluster(t, "leaves")
	c.needNFTables()
	c.eventually("/", 200)
	transport := &http.Transport{DialContext: c.NS.DialContext, DisableKeepAlives: true}
	for _, way := range []struct {
		name, pod string
		ask       func(ctx context.Context) error
	}{
		{"outbound", "caller", func(ctx context.Context) error {
			target := url.QueryEscape(fmt.Sprintf("http://%s:8080/", c.Node.PodIP(c.ns, "orders")))
			text, err := fetch(ctx, transport, http.MethodPost, fmt.Sprintf("http://%s:8080/call?url=%s", c.Node.PodIP(c.ns, "caller"), target))
			var a apps.Answer
			if err == nil {
				err = json.Unmarshal(text, &a)
			}
			if err == nil && a.Status != http.StatusOK {
				err = fmt.Errorf("the caller got %d: %s", a.Status, a.Err)
			}
			return err
		}},
	} {
		t.Run(way.name, func(t *testing.T) {
			c.enrolPod(way.pod, false)
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			var asked, failed atomic.Int64
			for range 8 {
				wg.Go(func() {
					for ctx.Err() == nil {
						err := way.ask(ctx)
						if ctx.Err() != nil {
							return
						}
						asked.Add(1)
						if err != nil && failed.Add(1) <= 5 {
							t.Error(err)
						}
					}
				})
			}
			const rounds = 15
			for range rounds {
				c.enrolPod(way.pod, true)
				time.Sleep(50 * time.Millisecond) // that some are carried
				c.enrolPod(way.pod, false)
			}
			cancel()
			wg.Wait()
			t.Logf("%d requests while capture was taken away %d times, %d failed", asked.Load(), rounds, failed.Load())
			carried := 0
			for _, e := range capture.Entries(c.Node.Tail(c.ns, way.pod, "capture", 1<<20)) {
				if e.Direction == way.name {
					carried++
				}
			}
			if carried < 10*rounds {
				t.Errorf("the process has carried %d connections: nobody was on the way when it ended", carried)
			}
		})
	}
}

// fetch is the body of an answer with status 200.
func fetch(ctx context.Context, transport http.RoundTripper, method, target string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, target, nil)
	if err != nil {
		return nil, err
	}
	res, err := transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d: %s", res.StatusCode, text)
	}
	return text, err
}
