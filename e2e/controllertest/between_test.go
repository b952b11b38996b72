package controllertest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/isthmus-mesh/isthmus/controller/run"
)

// between stands between a controller and the API server, does what a test says to its requests, and counts what it writes.
type between struct {
	next http.RoundTripper

	mu        sync.Mutex // guards the fields below
	slow      time.Duration
	away      bool // nobody answers
	deaf      bool // lists and watches are not answered
	conflicts bool // every write is one
	writes    map[string]int
	watches   map[*stream]bool
}

// set changes what it does.
func (b *between) set(change func(*between)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change(b)
}

// wrap makes a controller's requests go through it.
func (b *between) wrap(cfg *rest.Config, _ *ctrl.Options) {
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper {
		b.next = next
		return b
	})
}

func (b *between) RoundTrip(r *http.Request) (*http.Response, error) {
	q := r.URL.Query()
	dry, watch := q.Has("dryRun"), q.Get("watch") == "true"
	reads := r.Method == http.MethodGet
	b.mu.Lock()
	slow, away, conflict := b.slow, b.away || b.deaf && reads, b.conflicts && !reads && !dry
	if !reads && !dry {
		if b.writes == nil {
			b.writes = map[string]int{}
		}
		b.writes[r.Method+" "+r.URL.Path]++
	}
	b.mu.Unlock()
	select {
	case <-time.After(slow):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	switch {
	case away:
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	case conflict:
		return answered(r, apierrors.NewConflict(schema.GroupResource{}, r.URL.Path, errors.New("it was changed by somebody else")))
	}
	res, err := b.next.RoundTrip(r)
	if err == nil && watch {
		s := &stream{ReadCloser: res.Body, b: b}
		b.set(func(b *between) {
			if b.watches == nil {
				b.watches = map[*stream]bool{}
			}
			b.watches[s] = true
		})
		res.Body = s
	}
	return res, err
}

// answered is the API server's way to say err.
func answered(r *http.Request, err *apierrors.StatusError) (*http.Response, error) {
	status := err.Status()
	status.Kind, status.APIVersion = "Status", "v1"
	text, failed := json.Marshal(status)
	return &http.Response{
		StatusCode: int(status.Code), Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(text)), Request: r,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}, failed
}

// stream is an open watch.
type stream struct {
	io.ReadCloser
	b *between
}

// Close ends it.
func (s *stream) Close() error {
	s.b.set(func(b *between) { delete(b.watches, s) })
	return s.ReadCloser.Close()
}

// cut ends all watches, and says how many there were.
func (b *between) cut() int {
	var open []*stream
	b.set(func(b *between) {
		for s := range b.watches {
			open = append(open, s)
		}
	})
	for _, s := range open {
		_ = s.Close() // whoever reads it sees
	}
	return len(open)
}

// wrote is how often a path was written to; "" is for all paths.
func (b *between) wrote(path string) (n int) {
	b.set(func(b *between) {
		for p, times := range b.writes {
			if path == "" || p == path {
				n += times
			}
		}
	})
	return n
}

// others are all writes but those to leases and Events.
func (b *between) others() (n int) {
	b.set(func(b *between) {
		for p, times := range b.writes {
			if !strings.Contains(p, "/leases") && !strings.Contains(p, "/events") {
				n += times
			}
		}
	})
	return n
}

// through runs a controller behind b for the AmbientEdges of s that come, until the test ends.
func through(t *testing.T, s *site, b *between) {
	t.Helper()
	s.own = true
	mgr, err := newManager(s.mesh, account, run.Options{Prober: shared.ask}, b.wrap, s.edge)
	if err != nil {
		t.Fatal(err)
	}
	stop := startManager(t, mgr)
	t.Cleanup(func() {
		b.set(func(b *between) { b.slow, b.away, b.deaf, b.conflicts = 0, false, false, false })
		if err := stop(); err != nil {
			t.Errorf("the controller ended: %v", err)
		}
	})
}
