package mesh_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/e2e/capture"
	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/e2e/node"
	"github.com/isthmus-mesh/isthmus/e2e/story/apps"
)

var pairPods = "{apiVersion: v1, kind: Namespace, metadata: {name: pair}}\n---" + apps.OrdersObjects("pair", ", istio.io/dataplane-mode: ambient")

const pairCaller = `
{apiVersion: v1, kind: ServiceAccount, metadata: {name: caller, namespace: pair}}
---
apiVersion: v1
kind: Pod
metadata: {name: caller, namespace: pair, labels: {app: caller, istio.io/dataplane-mode: ambient}}
spec:
  serviceAccountName: caller
  automountServiceAccountToken: false
  containers: [{name: caller, image: caller, readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}}]
`

// startWithCapture starts a mesh that can run the pods of these tests, and capture them.
func startWithCapture(t *testing.T, progress io.Writer) (m *mesh.Mesh, err error) {
	m, err = mesh.Start(t.Context(), mesh.Options{
		Progress: progress,
		Images:   map[string]node.Image{"reach": {Func: "reach"}, "orders": {Func: "orders"}, "caller": {Func: "caller"}},
		Capture:  capture.Hook(capture.Mesh{Roots: func() []byte { return m.RootPEM }}),
	})
	return m, err
}

// beside starts another mesh beside a, which has no pods yet, and shows that neither sees the other, nor misses it when it is gone.
func beside(t *testing.T, a *mesh.Mesh) {
	b, err := startWithCapture(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Stop()
	t.Logf("ready after %v", b.Ready.Round(10*time.Millisecond))
	if string(a.RootPEM) == string(b.RootPEM) {
		t.Error("both have the same root")
	}
	if err := a.Apply(t.Context(), "apiVersion: v1\nkind: Namespace\nmetadata: {name: only-a}"); err != nil {
		t.Fatal(err)
	}
	err = b.Client().Get(t.Context(), client.ObjectKey{Name: "only-a"}, &corev1.Namespace{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("what one has made is in the other: %v", err)
	}
	if one, other := pair(t, a), pair(t, b); one != other {
		t.Errorf("the pods have the addresses %s and %s, want the same ones, each in the mesh of its own", one, other)
	}
	for _, m := range []*mesh.Mesh{a, b} {
		requestThroughTunnel(t, m)
	}
	if err := b.Stop(); err != nil {
		t.Error(err)
	}
	certificate(t, a)
	requestThroughTunnel(t, a)
}

// pair starts a captured backend and a captured caller in m, one after the other, and returns their addresses.
func pair(t *testing.T, m *mesh.Mesh) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, p := range []struct{ name, objects string }{{"orders", pairPods}, {"caller", pairCaller}} {
		if err := m.Apply(ctx, p.objects); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Node.WaitReady(ctx, "pair", p.name); err != nil {
			t.Fatal(err)
		}
		if err := m.Node.WaitCaptured(ctx, "pair", p.name, true); err != nil {
			t.Fatal(err)
		}
	}
	return fmt.Sprint(m.Node.PodIP("pair", "orders"), " ", m.Node.PodIP("pair", "caller"))
}

// requestThroughTunnel lets the caller of m send a request to orders, which must go encrypted, by m's own identities.
func requestThroughTunnel(t *testing.T, m *mesh.Mesh) {
	t.Helper()
	s, err := m.Node.Sniff("pair", "orders", node.Filter{Peer: m.Node.PodIP("pair", "caller")})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		a, err := call(t.Context(), m, "http://orders.pair.svc.cluster.local/not-to-be-seen")
		if err == nil && a.Status != http.StatusOK {
			err = fmt.Errorf("got %+v\n%s", a, m.Node.Tail("pair", "caller", "capture", 3))
		}
		return err
	})
	if _, err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if s.Saw([]byte("not-to-be-seen")) || len(s.Packets()) == 0 || slices.Contains(s.Ports(), 8080) {
		t.Errorf("in the clear on the wire, or not on it; ports %v, %d packets", s.Ports(), len(s.Packets()))
	}
	var entries []capture.Entry
	eventually(t, func() error { // a real ztunnel writes its log when it has time
		if entries = capture.Entries(m.Node.Tail("pair", "orders", "capture", 100)); len(entries) == 0 {
			return errors.New("the backend's side has logged nothing")
		}
		return nil
	})
	if e := entries[len(entries)-1]; e.Transport != capture.HBONE || e.SourceIdentity != "spiffe://cluster.local/ns/pair/sa/caller" {
		t.Errorf("the backend's side saw %+v", e)
	}
}

func call(ctx context.Context, m *mesh.Mesh, target string) (a apps.Answer, err error) {
	to := fmt.Sprintf("http://%s:8080/call?url=%s", m.Node.PodIP("pair", "caller"), url.QueryEscape(target))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, nil)
	if err != nil {
		return a, err
	}
	res, err := (&http.Transport{DialContext: m.NS.DialContext, DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return a, err
	}
	defer res.Body.Close()
	return a, json.NewDecoder(res.Body).Decode(&a)
}
