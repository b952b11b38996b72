package soak

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/e2e/story"
	"github.com/isthmus-mesh/isthmus/e2e/story/apps"
)

// lane is one kind of client.
type lane struct {
	name     string
	rate     int    // requests a second, unless answers are slow
	clients  int    // that many requests at once at most
	gateway  string // Service in namespace edge; empty for the impostor
	kept     bool   // connections are kept
	impostor bool

	base string // https://10.96.x.y or the impostor's http://ip:8080
	http []*http.Client
}

// lanes make 50 requests a second together. The impostor is captured and never restarted: its capture is the one that lives longest.
func lanes() []*lane {
	return []*lane{
		{name: "captured/new", rate: 14, clients: 4, gateway: story.Plain},
		{name: "captured/kept", rate: 12, clients: 3, gateway: story.Plain, kept: true},
		{name: "native/new", rate: 10, clients: 3, gateway: story.Native},
		{name: "native/kept", rate: 9, clients: 3, gateway: story.Native, kept: true},
		{name: "impostor", rate: 5, clients: 2, impostor: true},
	}
}

// load sends in all lanes until it is stopped.
type load struct {
	w      *story.World
	lanes  []*lane
	ledger *ledger
	sent   atomic.Int64
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

func newLoad(ctx context.Context, w *story.World, l *ledger) (*load, error) {
	pem, err := os.ReadFile(w.CertificateFile())
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	d := &load{w: w, lanes: lanes(), ledger: l}
	for _, l := range d.lanes {
		if l.impostor {
			ip := w.Node.PodIP("edge", "impostor")
			l.base = fmt.Sprintf("http://%v:8080/call?url=", ip)
		} else {
			var s corev1.Service
			if err := w.Client().Get(ctx, types.NamespacedName{Namespace: "edge", Name: l.gateway}, &s); err != nil {
				return nil, err
			}
			l.base = "https://" + s.Spec.ClusterIP
		}
		for range l.clients { // a kept connection belongs to one client, as with browsers
			l.http = append(l.http, &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
				DialContext: w.NS.DialContext, DisableKeepAlives: !l.kept, MaxIdleConnsPerHost: 1,
				TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: story.Hostname, MinVersion: tls.VersionTLS12},
			}})
		}
	}
	return d, nil
}

func (d *load) start() {
	ctx, cancel := context.WithCancel(context.Background())
	d.cancel = cancel
	for _, l := range d.lanes {
		tokens := make(chan struct{})
		d.wg.Go(func() {
			tick := time.NewTicker(time.Second / time.Duration(l.rate))
			defer tick.Stop()
			defer close(tokens)
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				select {
				case tokens <- struct{}{}:
				default: // all its clients wait for answers
				}
			}
		})
		for _, c := range l.http {
			d.wg.Go(func() {
				for range tokens {
					began := d.ledger.phase()
					d.ledger.add(began, d.ask(context.Background(), l, c))
				}
			})
		}
	}
}

// stop ends the load; requests under way come to their end.
func (d *load) stop() {
	d.cancel()
	d.wg.Wait()
	for _, l := range d.lanes {
		for _, c := range l.http {
			c.CloseIdleConnections()
		}
	}
}

// ask sends one request; nobody counts its answer.
func (d *load) ask(ctx context.Context, l *lane, c *http.Client) answer {
	path := "/orders/" + strconv.FormatInt(d.sent.Add(1), 10)
	began := time.Now()
	status, body, err := d.get(ctx, l, c, path)
	a := answer{lane: l, kind: strconv.Itoa(status), text: body, took: time.Since(began)}
	switch {
	case err != nil:
		a.kind, a.text = kindOf(err), err.Error()
	case status == http.StatusOK && !strings.Contains(body, strconv.Quote(path)):
		a.kind = "another's-answer"
	}
	return a
}

func (d *load) get(ctx context.Context, l *lane, c *http.Client, path string) (int, string, error) {
	method, to := http.MethodGet, l.base+path
	if l.impostor {
		method, to = http.MethodPost, l.base+url.QueryEscape("http://orders.shop.svc.cluster.local"+path)
	}
	req, err := http.NewRequestWithContext(ctx, method, to, nil)
	if err != nil {
		return 0, "", err
	}
	req.Host = story.Hostname
	res, err := c.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil || !l.impostor {
		return res.StatusCode, string(body), err
	}
	var a apps.Answer
	if err := json.Unmarshal(body, &a); err != nil {
		return 0, "", fmt.Errorf("read what the impostor answered with %d: %w", res.StatusCode, err)
	}
	return a.Status, a.Body + a.Err, nil
}

func kindOf(err error) string {
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(err, syscall.ECONNRESET):
		return "reset"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "cut"
	}
	return "error"
}
