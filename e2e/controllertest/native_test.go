package controllertest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/hbone/wds"
	"github.com/isthmus-mesh/isthmus/identity/istioca"
)

// nativeWorld is a gateway that embeds hbone, before the shop. Its pod only stands for it: what it sends the test sends in its name.
var nativeWorld = shopWorld + `
{apiVersion: v1, kind: ServiceAccount, metadata: {name: gateway, namespace: EDGE}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: gateway, namespace: EDGE}
spec:
  selector: {matchLabels: {app: gateway}}
  template:
    metadata: {labels: {app: gateway, istio.io/dataplane-mode: none}}
    spec:
      serviceAccountName: gateway
      automountServiceAccountToken: false
      containers: [{name: gateway, image: orders, readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}}]
`

const nativeEdge = `
apiVersion: isthmus.dev/v1alpha1
kind: AmbientEdge
metadata: {name: public, namespace: EDGE}
spec:
  workloadRefs: [{kind: Deployment, name: gateway}]
  mode: Manage
  capture: Native
  backends: {services: [{namespace: SHOP, name: orders}]}
  waypoint: {policy: Use, name: shared}
`

// embedded is what a gateway that embeds hbone has, in the name of EDGE's service account.
type embedded struct {
	id   hbone.Identity
	mesh *wds.Client
}

func (s *site) embedded() embedded {
	s.t.Helper()
	sa := &corev1.ServiceAccount{}
	sa.Namespace, sa.Name = s.edge, "gateway"
	token := func(ctx context.Context) (string, error) {
		r := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{"istio-ca"}}}
		err := s.mesh.Client().SubResource("token").Create(ctx, sa.DeepCopy(), r)
		return r.Status.Token, err
	}
	roots := func() ([]byte, error) { return s.mesh.RootPEM, nil }
	id, err := istioca.New(s.t.Context(), istioca.Config{
		Addresses: []string{s.mesh.Istiod.CA.String()}, Roots: roots, Token: token, DialContext: s.mesh.NS.DialContext,
		ID: spiffeid.RequireFromString("spiffe://cluster.local/ns/" + s.edge + "/sa/gateway"),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { id.Close() })
	c, err := wds.New(wds.Config{
		Addresses: []string{s.mesh.Istiod.XDS.String()}, Roots: roots, Token: token, DialContext: s.mesh.NS.DialContext,
		Node: wds.Node{IP: netip.MustParseAddr("10.244.9.9"), Pod: "gateway-1", Namespace: s.edge, ServiceAccount: "gateway"},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return embedded{id, c}
}

// lane is a stream of requests of one kind.
type lane struct {
	name   string
	dialer *hbone.Dialer

	mu       sync.Mutex // guards the fields below
	n        int
	answered map[string]int // by statuses other than 200
	lost     map[string]int // by errors in place of an answer
}

// run asks for url until stop is closed, on new tunnels or on kept ones; nobody asks again.
func (l *lane) run(stop <-chan struct{}, url string, kept bool) {
	c := &http.Client{Timeout: 10 * time.Second, Transport: &hbone.Transport{
		Dialer: l.dialer, Configure: func(t *http.Transport) { t.DisableKeepAlives = !kept },
	}}
	defer c.CloseIdleConnections()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		res, err := c.Get(url)
		if err == nil {
			_, err = io.Copy(io.Discard, res.Body)
			res.Body.Close()
		}
		l.mu.Lock()
		l.n++
		switch {
		case err != nil:
			l.lost[err.Error()]++
		case res.StatusCode != http.StatusOK:
			l.answered[res.Status]++
		}
		l.mu.Unlock()
	}
}

// nativeGateway wires and unwires the Service of a gateway that embeds hbone, while that asks all the time. istiod tells it of the waypoint at the same time as the waypoint
// of the Service: what comes there too soon is ended by it, and asked again, so that nobody sees it. Beside it goes one that asks once, whose losses are told. What a
// waypoint answers by itself, a 503 while it has the Service only in part, is an answer to both.
func nativeGateway(t *testing.T, s *site) {
	s.apply(nativeWorld)
	for _, d := range []types.NamespacedName{{Namespace: s.edge, Name: "gateway"}, {Namespace: s.shop, Name: "shared"}} {
		s.available(d)
	}
	if err := s.mesh.Node.WaitCaptured(t.Context(), s.shop, "orders", true); err != nil {
		t.Fatal(err)
	}
	e := s.embedded()
	var lanes []*lane
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for name, within := range map[string]time.Duration{"again": 0, "once": -1} {
		for _, kept := range []bool{false, true} {
			l := &lane{name: fmt.Sprintf("asks %s, keeps tunnels: %v", name, kept), answered: map[string]int{}, lost: map[string]int{}}
			l.dialer = &hbone.Dialer{Identity: e.id, Resolver: e.mesh, NetDial: s.mesh.NS.DialContext, RetryWithin: within}
			t.Cleanup(func() { l.dialer.Close() })
			lanes = append(lanes, l)
			for range 2 {
				wg.Go(func() { l.run(stop, "http://orders."+s.shop+".svc.cluster.local/ok", kept) })
			}
		}
	}
	for range 2 {
		time.Sleep(time.Second)
		s.apply(nativeEdge)
		s.ready("public", v1alpha1.ReasonDone)
		time.Sleep(time.Second)
		s.delete(s.theEdge("public"))
		s.gone(s.theEdge("public"))
	}
	time.Sleep(time.Second)
	close(stop)
	wg.Wait()
	for _, l := range lanes {
		t.Logf("%s: %d requests, other answers %v, %+v", l.name, l.n, l.answered, l.dialer.Retries())
		for what, n := range l.lost {
			if t.Logf("  lost %d: %s", n, what); l.dialer.RetryWithin == 0 {
				t.Errorf("%s: %d of %d requests are lost", l.name, n, l.n)
			}
		}
		for status := range l.answered {
			if status != "503 Service Unavailable" {
				t.Errorf("%s: answered %s", l.name, status)
			}
		}
		if l.n < 500 {
			t.Errorf("%s: %d requests are no traffic", l.name, l.n)
		}
	}
}
