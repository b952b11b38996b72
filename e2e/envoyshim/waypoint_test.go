package envoyshim_test

import (
	"fmt"
	"net/http"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/e2e/envoyshim/accesslog"
)

// waypoint drains as long as Istio's do by default, longer than MeshConfig has it: a gateway must hear of its end before it comes.
const waypoint = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: waypoint
  namespace: shop
  labels: {istio.io/waypoint-for: service}
  annotations: {proxy.istio.io/config: "terminationDrainDuration: 5s"}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
`

const (
	orders = "http://orders.shop.svc.cluster.local"
	sa     = "spiffe://cluster.local/ns/shop/sa/"
)

// TestEnvoy starts one mesh for everything that needs one.
func TestEnvoy(t *testing.T) {
	s := newShop(t)
	pod := s.gateway(t, "shop", "waypoint", waypoint)
	t.Run("a waypoint has all its listeners", func(t *testing.T) { tells(t, s, pod) })
	t.Run("a waypoint decides by identity, method and path", func(t *testing.T) { decides(t, s, pod) })
	t.Run("a waypoint does not mix identities up", func(t *testing.T) { unmixed(t, s, pod) })
	t.Run("a waypoint decides about TCP by identity", func(t *testing.T) { decidesTCP(t, s, pod) })
	gateway := s.gateway(t, "edge", "ingress", ingress)
	t.Run("Istio's ingress gateway goes past a waypoint, and through it when told", func(t *testing.T) { ingressPath(t, s, gateway, pod) })
	t.Run("it all takes no more memory than promised", wholeMemory)
	t.Run("a waypoint decides by token behind a gateway", func(t *testing.T) { decidesByToken(t, s, gateway, pod) })
	t.Run("telemetry that only Istio's build has is dropped", func(t *testing.T) { dropsStats(t, s, pod) })
	t.Run("a waypoint works without istiod, and follows it again", func(t *testing.T) { survivesIstiod(t, s, pod) })
	s.checkLog(t, pod)
	t.Run("a filter that may decide something is refused by name", func(t *testing.T) { refusesUnknown(t, s, pod) })
	t.Run("a gateway loses no request while its waypoint is rolled out", func(t *testing.T) {
		rolls(t, s, func(path string) error { return s.asks(t, gateway, path, "", http.StatusOK) })
	})
	t.Run("a waypoint ends when asked to", func(t *testing.T) { ends(t, s) })
}

func decides(t *testing.T, s shopMesh, waypoint *corev1.Pod) {
	for _, c := range []struct {
		caller, path string
		status       int
		policy       string
		rule         int
	}{
		{"good", "/ok/1", 200, "shop/callers", 1},
		{"bad", "/ok/2", 403, "", 0},
		{"good", "/secret", 403, "", 0},
	} {
		eventually(t, func() error {
			a, err := s.call(t.Context(), c.caller, orders+c.path)
			if err == nil && a.Status != c.status {
				err = fmt.Errorf("%s as %s: got %+v, want %d\ncapture: %s\nwaypoint: %s", c.path, c.caller, a, c.status,
					s.Node.Tail("shop", c.caller, "capture", 5), s.Node.Tail("shop", waypoint.Name, "istio-proxy", 20))
			}
			return err
		})
		r := s.request(t, waypoint, c.caller+" "+c.path, func(r accesslog.Request) bool { return r.Path == c.path && r.Status == c.status })
		allowed := c.status == http.StatusOK
		if r.Peer != sa+c.caller || r.Policy != c.policy || r.Rule != c.rule || r.Allowed != allowed || r.HBONE != allowed {
			t.Errorf("%s %s: logged as %+v; want caller and policy %q, rule %d", c.caller, c.path, r, c.policy, c.rule)
		}
		if want := s.Node.PodIP("shop", "orders").String() + ":8080"; allowed && r.Upstream != want {
			t.Errorf("%s %s: went to %q, want %s", c.caller, c.path, r.Upstream, want)
		}
	}
}

// unmixed has two callers at once through one Envoy, whose upstream connections are pooled.
func unmixed(t *testing.T, s shopMesh, waypoint *corev1.Pod) {
	const n = 40
	var wg sync.WaitGroup
	for _, c := range []struct {
		caller string
		status int
	}{{"good", http.StatusOK}, {"bad", http.StatusForbidden}} {
		for w := range 4 {
			wg.Go(func() {
				for i := range n / 4 {
					a, err := s.call(t.Context(), c.caller, fmt.Sprintf("%s/ok/%s/%d", orders, c.caller, w*n/4+i))
					if err != nil || a.Status != c.status {
						t.Errorf("%s: %+v, %v; want %d", c.caller, a, err, c.status)
					}
				}
			})
		}
	}
	wg.Wait()
	for _, c := range []string{"good", "bad"} {
		for i := range n {
			path := fmt.Sprintf("/ok/%s/%d", c, i)
			r := s.request(t, waypoint, path, func(r accesslog.Request) bool { return r.Path == path })
			if want := c == "good"; r.Peer != sa+c || r.Allowed != want || (r.Policy == "shop/callers") != want {
				t.Errorf("%s by %s: logged as %+v", path, c, r)
			}
		}
	}
}

func decidesTCP(t *testing.T, s shopMesh, waypoint *corev1.Pod) {
	const url = "http://orders-tcp.shop.svc.cluster.local/secret"
	eventually(t, func() error {
		a, err := s.call(t.Context(), "good", url)
		if err == nil && a.Status != http.StatusOK {
			err = fmt.Errorf("good: %+v, want 200", a)
		}
		return err
	})
	eventually(t, func() error {
		a, err := s.call(t.Context(), "bad", url)
		if err == nil && (a.Status != 0 || a.Err == "") {
			err = fmt.Errorf("bad: %+v, want a reset", a)
		}
		return err
	})
	r := s.request(t, waypoint, "the denied connection", func(r accesslog.Request) bool { return r.Method == "" && !r.Allowed })
	if r.Peer != sa+"bad" || r.Policy != "shop/no-bad" {
		t.Errorf("logged as %+v", r)
	}
	r = s.request(t, waypoint, "the allowed connection", func(r accesslog.Request) bool { return r.Method == "" && r.Allowed && r.Upstream != "" })
	if r.Peer != sa+"good" || !r.HBONE {
		t.Errorf("logged as %+v", r)
	}
}
