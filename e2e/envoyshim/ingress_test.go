package envoyshim_test

import (
	"context"
	_ "embed"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/e2e/envoyshim/accesslog"
)

//go:embed testdata/ingress.yaml
var ingress string

const ingressID = "spiffe://cluster.local/ns/edge/sa/ingress-istio"

// ingressPath shows Istio's own gateway on both its paths: past a Service's waypoint, and through it.
func ingressPath(t *testing.T, s shopMesh, gateway, waypoint *corev1.Pod) {
	ask := func(path string, want int) func() error {
		return func() error {
			status, err := s.status(t.Context(), "http://"+gateway.Status.PodIP+path, "orders.example.com")
			if err == nil && status != want {
				err = fmt.Errorf("%s: %d, want %d", path, status, want)
			}
			return err
		}
	}
	eventually(t, ask("/secret", 200))
	r := s.request(t, gateway, "/secret", func(r accesslog.Request) bool { return r.Path == "/secret" && r.Status == 200 })
	if want := s.Node.PodIP("shop", "orders").String() + ":8080"; r.Upstream != want || !r.HBONE || r.Authority != "orders.example.com" {
		t.Errorf("past the waypoint: logged as %+v; want a tunnel to %s", r, want)
	}

	var svc corev1.Service
	if err := s.Client().Get(t.Context(), types.NamespacedName{Namespace: "shop", Name: "orders"}, &svc); err != nil {
		t.Fatal(err)
	}
	patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"istio.io/ingress-use-waypoint":"true"}}}`))
	if err := s.Client().Patch(t.Context(), &svc, patch); err != nil {
		t.Fatal(err)
	}
	eventually(t, ask("/secret", 403))
	eventually(t, ask("/ok/edge", 200))
	r = s.request(t, waypoint, "/ok/edge", func(r accesslog.Request) bool { return r.Path == "/ok/edge" && r.Status == 200 })
	if r.Peer != ingressID || r.Policy != "shop/callers" || r.Rule != 0 {
		t.Errorf("through the waypoint: it logged %+v; want caller %s", r, ingressID)
	}
	r = s.request(t, gateway, "/ok/edge", func(r accesslog.Request) bool { return r.Path == "/ok/edge" && r.Status == 200 })
	if want := waypoint.Status.PodIP + ":15008"; r.Upstream != want || !r.HBONE {
		t.Errorf("through the waypoint: the gateway logged %+v; want a tunnel by %s", r, want)
	}
	s.checkLog(t, gateway)
}

// status asks with GET, from the node, and returns the status of the answer.
func (s shopMesh) status(ctx context.Context, url, host string) (int, error) {
	res, err := s.ask(ctx, "GET", url, host)
	if err != nil {
		return 0, err
	}
	return res.StatusCode, res.Body.Close()
}
