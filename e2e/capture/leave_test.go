package capture_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/e2e/capture"
	"github.com/isthmus-mesh/isthmus/e2e/story/apps"
)

// TestNobodyIsCutOffWhenCaptureComesAndGoes: who is led to the process until the redirection ends is served, though the process is told to end right after it; who has come
// straight to the pod goes on when it is captured; and who calls port 15008 is taken until istiod has told it that the pod left.
func TestNobodyIsCutOffWhenCaptureComesAndGoes(t *testing.T) {
	if capture.IsZtunnel() {
		t.Skip("a real ztunnel closes its listeners at once")
	}
	c := newCluster(t, "leaves")
	c.needNFTables()
	c.eventually("/", 200)
	transport := &http.Transport{DialContext: c.NS.DialContext, DisableKeepAlives: true}
	orders := netip.AddrPortFrom(c.Node.PodIP(c.ns, "orders"), 8080)
	call := func(ctx context.Context, _ int) (int, error) {
		target := url.QueryEscape("http://" + orders.String() + "/")
		text, err := fetch(ctx, transport, http.MethodPost, fmt.Sprintf("http://%s:8080/call?url=%s", c.Node.PodIP(c.ns, "caller"), target))
		var a apps.Answer
		if err == nil {
			err = json.Unmarshal(text, &a)
		}
		if err == nil && a.Status != http.StatusOK {
			err = fmt.Errorf("the caller got %d: %s", a.Status, a.Err)
		}
		return 1, err
	}
	for _, way := range []struct {
		name, pod string
		captured  bool // the caller is, all the time
		carried   capture.Entry
		ask       func(ctx context.Context, worker int) (asked int, err error)
	}{
		{"inbound", "orders", false, capture.Entry{Direction: capture.Inbound, Transport: capture.Plaintext}, func(ctx context.Context, worker int) (int, error) {
			if worker%4 == 3 {
				return c.visit(ctx, worker, orders, 20) // on one connection, which is kept for so long
			}
			return c.visit(ctx, worker, orders, 1)
		}},
		{"inbound tunnels", "orders", true, capture.Entry{Direction: capture.Inbound, Transport: capture.HBONE}, call},
		{"outbound", "caller", false, capture.Entry{Direction: capture.Outbound, Transport: capture.Plaintext}, call},
	} {
		t.Run(way.name, func(t *testing.T) {
			c.enrol(way.captured)
			c.enrolPod(way.pod, false)
			before := len(capture.Entries(c.Node.Tail(c.ns, way.pod, "capture", 1<<20)))
			var done atomic.Bool // whoever asks then still waits for its answer
			var wg sync.WaitGroup
			var asked, failed atomic.Int64
			for worker := range 8 {
				wg.Go(func() {
					for !done.Load() {
						n, err := way.ask(t.Context(), worker)
						asked.Add(int64(n))
						if err != nil && failed.Add(1) <= 5 {
							t.Errorf("%s %v", time.Now().Format("15:04:05.000"), err)
						}
					}
				})
			}
			const rounds = 12
			for range rounds {
				c.enrolPod(way.pod, true)
				time.Sleep(200 * time.Millisecond) // that some are carried, also by who has to hear of it from istiod
				c.enrolPod(way.pod, false)
			}
			done.Store(true)
			wg.Wait()
			t.Logf("%d requests while capture came and went %d times, %d failed", asked.Load(), rounds, failed.Load())
			carried := 0
			for _, e := range capture.Entries(c.Node.Tail(c.ns, way.pod, "capture", 1<<20))[before:] {
				if e.Direction == way.carried.Direction && e.Transport == way.carried.Transport {
					carried++
				}
			}
			if carried < 10*rounds {
				t.Errorf("the process has carried %d connections: nobody was on the way when it ended", carried)
			}
		})
	}
}

// visit asks n times on a connection from the node, which the other side ends, so that its port is free at once. A worker has 16 ports, which come again and again.
func (c *cluster) visit(ctx context.Context, worker int, to netip.AddrPort, n int) (asked int, err error) {
	const ports = 16
	from := &net.TCPAddr{IP: net.IP(c.Istiod.XDS.Addr().AsSlice()), Port: 20000 + ports*worker + rand.IntN(ports)}
	d := net.Dialer{LocalAddr: from, Timeout: 10 * time.Second, Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
	}}
	var conn net.Conn
	err = c.NS.Do(func() error {
		conn, err = d.DialContext(ctx, "tcp4", to.String())
		return err
	})
	if errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EADDRINUSE) { // the kernel is not done with this port
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	in := bufio.NewReader(conn)
	for ; asked < n; asked++ {
		header := ""
		if asked == n-1 {
			header = "Connection: close\r\n"
		} else if asked > 0 {
			time.Sleep(20 * time.Millisecond)
		}
		if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: orders\r\nContent-Length: 0\r\n"+header+"\r\n"); err != nil {
			return asked, fmt.Errorf("port %d, request %d of %d: %w", from.Port, asked+1, n, err)
		}
		res, err := http.ReadResponse(in, nil)
		if err == nil {
			_, err = io.Copy(io.Discard, res.Body)
			res.Body.Close()
		}
		if err != nil {
			return asked, fmt.Errorf("port %d, request %d of %d: %w", from.Port, asked+1, n, err)
		}
	}
	_, err = io.Copy(io.Discard, in)
	return asked, err
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
