package capture_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/e2e/capture"
	"github.com/isthmus-mesh/isthmus/e2e/node"
)

// holder is a pod's program that holds connections open: GET /?addr=A on port 8081 connects to A, exchanges one request there, says
// "open", and says how the connection ended when it has.
func holder([]string) int {
	server := &http.Server{Addr: ":8081", ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := hold(w, r.URL.Query().Get("addr")); err != nil {
			fmt.Fprintln(w, err)
		}
	})}
	fmt.Fprintln(os.Stderr, server.ListenAndServe())
	return 1
}

func hold(w http.ResponseWriter, addr string) error {
	c, err := net.DialTimeout("tcp4", addr, 5*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET /held HTTP/1.1\r\nHost: orders\r\n\r\n"); err != nil {
		return err
	}
	in := bufio.NewReader(c)
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err
	}
	fmt.Fprintln(w, "open")
	if err := http.NewResponseController(w).Flush(); err != nil {
		return err
	}
	if err := c.SetReadDeadline(time.Now().Add(15 * time.Second)); err != nil {
		return err
	}
	switch _, err := in.ReadByte(); {
	case errors.Is(err, io.EOF):
		fmt.Fprintln(w, "ended")
	case errors.Is(err, syscall.ECONNRESET):
		fmt.Fprintln(w, "reset")
	default:
		return fmt.Errorf("read: %w", err)
	}
	return nil
}

// held is a connection from the caller's pod to the Service of orders, which the holder keeps open.
type held struct {
	c     *cluster
	lines *bufio.Scanner
}

func (c *cluster) hold() *held {
	c.t.Helper()
	var orders corev1.Service
	if err := c.Client().Get(c.ctx(), client.ObjectKey{Namespace: c.ns, Name: "orders"}, &orders); err != nil {
		c.t.Fatal(err)
	}
	url := fmt.Sprintf("http://%s:8081/?addr=%s:80", c.Node.PodIP(c.ns, "caller"), orders.Spec.ClusterIP)
	req, err := http.NewRequestWithContext(c.ctx(), http.MethodGet, url, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	res, err := (&http.Transport{DialContext: c.NS.DialContext, DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { res.Body.Close() })
	h := &held{c, bufio.NewScanner(res.Body)}
	if got := h.line(); got != "open" {
		c.t.Fatalf("the held connection: %s", got)
	}
	return h
}

// line is the next thing that the holder says, or why there is none.
func (h *held) line() string {
	h.c.t.Helper()
	if !h.lines.Scan() {
		h.c.t.Fatalf("the holder says no more: %v", h.lines.Err())
	}
	return h.lines.Text()
}

func TestPolicyThatTurnsToDenyResetsOpenConnections(t *testing.T) {
	c := newCluster(t, "turns")
	c.eventually("/", 200)
	ways := []bool{false, true}
	if c.Node.Rules() == node.AnyIP { // inbound plaintext is not the process's business then
		ways = ways[1:]
	}
	for _, enrolled := range ways {
		name := map[bool]string{false: capture.Plaintext, true: capture.HBONE}[enrolled]
		t.Run(name, func(t *testing.T) {
			c.enrol(enrolled)
			c.eventually("/", 200)
			h := c.hold()
			selector := "selector: {matchLabels: {app: orders}}\n  "
			if capture.IsZtunnel() { // it decides an open connection by the policies that its pod listed when the connection began, and those of namespaces
				selector = ""
			}
			c.apply(fmt.Sprintf(`
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: closed, namespace: turns}
spec:
  %saction: DENY
  rules: [{to: [{operation: {ports: ["8080"]}}]}]
`, selector))
			want := "reset"
			if capture.IsZtunnel() {
				want = "ended" // so it ends connections, whatever the cause
			}
			if got := h.line(); got != want {
				t.Errorf("the open connection: %s, want %s", got, want)
			}
			c.wantLast("orders", func(e capture.Entry) bool {
				return e.Ended && !e.IsAllowed() && (e.Policy == "turns/closed" || capture.IsZtunnel()) && e.Transport == name && strings.HasPrefix(e.Source, c.Node.PodIP(c.ns, "caller").String()+":")
			})
			c.eventually("/", 0)
			if err := c.Delete(c.ctx(), "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: closed, namespace: turns}}"); err != nil {
				t.Fatal(err)
			}
			c.eventually("/", 200)
		})
	}
}
