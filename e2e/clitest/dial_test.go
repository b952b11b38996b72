package clitest

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/command"
	"github.com/isthmus-mesh/isthmus/e2e/world"
)

const (
	ordersAt  = "orders.shop.svc.cluster.local:80"
	ordersID  = "spiffe://cluster.local/ns/shop/sa/orders"
	gatewayID = "spiffe://cluster.local/ns/edge/sa/gateway"
)

func TestDialReachesAServiceOfTheMesh(t *testing.T) {
	c := newCluster(t)
	r := c.dial(ordersAt, "--http", "/orders")
	r.Want(t, 0, r.Stderr, "to        "+ordersAt, "through   workload shop/orders at ", ":15008", ordersID, "why", "is Service shop/orders", "endpoint shop/orders",
		"we are    "+gatewayID, "answered  "+ordersID, "HTTP/1.1 200 OK")
	if r.Stdout == "" {
		t.Error("no body")
	}
	// Each command is a first dial; the fastest of three is the one that nothing else disturbed.
	best := math.Inf(1)
	for range 3 {
		r = c.dial(ordersAt, "-o", "json")
		var doc struct {
			Connection struct{ Milliseconds float64 }
		}
		if err := json.Unmarshal([]byte(r.Stdout), &doc); err != nil {
			t.Fatal(err)
		}
		t.Logf("route, certificate and connection took %.0f ms, the process %v", doc.Connection.Milliseconds, r.Took.Round(time.Millisecond))
		best = min(best, doc.Connection.Milliseconds)
	}
	if best <= 0 || best > 100 && world.Judge(t, fmt.Sprintf("a first dial takes 100 ms at most: it took %.1f ms", best)) {
		t.Errorf("a first dial takes %.1f ms, want at most 100", best)
	}
	r = c.dial(ordersAt, "--route")
	r.Want(t, 0, r.Stdout, "through   workload shop/orders")
	r = c.dial(c.Node.PodIP("shop", "orders").String()+":8080", "--http", "/orders")
	r.Want(t, 0, r.Stderr, "is workload shop/orders", "200 OK")
}

func TestDialWithBadInput(t *testing.T) {
	c := newCluster(t)
	istiod := "istiod " + c.Istiod.XDS.String()
	t.Run("unknown service", func(t *testing.T) {
		r := c.dial("nobody.shop.svc.cluster.local:80")
		r.Want(t, 1, r.Stderr, "no way to nobody.shop", istiod, "no Service of that name in namespace shop", "kubectl get services")
	})
	t.Run("no such port", func(t *testing.T) {
		r := c.dial("orders.shop.svc.cluster.local:81")
		r.Want(t, 1, r.Stderr, "no way to orders.shop", "has no port 81", "next:")
	})
	t.Run("no endpoint", func(t *testing.T) {
		r := c.dial("empty.shop.svc.cluster.local:80")
		r.Want(t, 1, r.Stderr, "no way to empty.shop", "none of the 0 endpoints", "kubectl get endpointslices")
	})
	t.Run("address outside of the mesh", func(t *testing.T) {
		r := c.dial("192.0.2.7:80", "--http", "/")
		r.Want(t, 1, r.Stderr, "no way to 192.0.2.7:80", istiod, "outside the mesh", "never goes around it")
	})
	t.Run("token for another audience", func(t *testing.T) {
		r := c.dial(ordersAt, "--token-file", c.newToken("edge", "gateway", "somebody-else"))
		r.Want(t, 1, r.Stderr, istiod, "Unauthenticated", "audience istio-ca")
		const promise = 2 * time.Second
		seen := fmt.Sprintf("a refusal does not get better by waiting, and ends a dial in %v: it took %v", promise, r.Took.Round(time.Millisecond))
		if r.Took > promise && world.Judge(t, seen) {
			t.Error(seen)
		}
	})
	t.Run("token of another account", func(t *testing.T) {
		r := c.dial(ordersAt, "--service-account", "shop/orders")
		r.Want(t, 1, r.Stderr, istiod, "next:")
	})
	t.Run("forged token", func(t *testing.T) {
		data, err := os.ReadFile(c.token)
		if err != nil {
			t.Fatal(err)
		}
		parts := strings.Split(string(data), ".")
		path := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(path, []byte(parts[0]+"."+parts[1]+".AAAA"), 0o600); err != nil {
			t.Fatal(err)
		}
		r := c.dial(ordersAt, "--token-file", path)
		r.Want(t, 1, r.Stderr, istiod, "Unauthenticated", path, "audience istio-ca")
	})
	t.Run("waypoint missing", func(t *testing.T) {
		c.label("istio.io/use-waypoint=gone")
		defer c.label("istio.io/use-waypoint-")
		c.gateway("gone")
		defer c.Run(t.Context(), "kubectl", "delete", "gateway", "gone", "-n", "shop")
		// While its Deployment is being made, istiod may take one without pods for one that is not there.
		if _, err := c.Run(t.Context(), "kubectl", "wait", "--for=condition=Programmed", "gateway/gone", "-n", "shop", "--timeout=60s"); err != nil {
			t.Fatal(err)
		}
		c.pods("gone", 0)
		r := c.untilSaid("has no ready pod", ordersAt, "--http", "/")
		r.Want(t, 1, r.Stderr, "no way to "+ordersAt, istiod, "waypoint", "has no ready pod", "next:", "isthmus status")
	})
	t.Run("istiod away", func(t *testing.T) {
		if err := c.StopIstiod(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := c.StartIstiod(t.Context()); err != nil {
				t.Fatal(err)
			}
		}()
		const promise = 6 * time.Second
		r := c.dial(ordersAt, "--timeout", "3s")
		r.Want(t, 1, r.Stderr, "getting a certificate", istiod, "refused", "check that istiod runs", "--istiod")
		seen := fmt.Sprintf("a dial with --timeout 3s ends in %v: it took %v", promise, r.Took.Round(time.Millisecond))
		if r.Took > promise && world.Judge(t, seen) {
			t.Error(seen)
		}
	})
}

// label changes a label of the Service orders.
func (c *cluster) label(label string) {
	c.t.Helper()
	if _, err := c.Run(c.t.Context(), "kubectl", "label", "service", "orders", "-n", "shop", label); err != nil {
		c.t.Fatal(err)
	}
}

// until dials until the exit code is as wanted: istiod takes a moment to tell.
func (c *cluster) until(code int, target string, more ...string) command.Result {
	c.t.Helper()
	var r command.Result
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		if r = c.dial(target, more...); r.Code == code {
			return r
		}
	}
	c.t.Fatalf("the exit code does not become %d: last it was %d\n%s%s", code, r.Code, r.Stdout, r.Stderr)
	return r
}

// untilSaid dials until standard error has a text: on the way to what a test asks for istiod may tell of other states, which end a dial as well.
func (c *cluster) untilSaid(text, target string, more ...string) command.Result {
	c.t.Helper()
	var r command.Result
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		if r = c.dial(target, more...); strings.Contains(r.Stderr, text) {
			return r
		}
	}
	c.t.Fatalf("%q is not said: last it said, with exit code %d,\n%s%s", text, r.Code, r.Stdout, r.Stderr)
	return r
}

// pods sets how many pods a waypoint has, once istiod has made its Deployment.
func (c *cluster) pods(name string, n int) {
	c.t.Helper()
	var err error
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if _, err = c.Run(c.t.Context(), "kubectl", "scale", "deployment", name, "-n", "shop", fmt.Sprintf("--replicas=%d", n)); err == nil {
			return
		}
	}
	c.t.Fatal(err)
}

// gateway makes a waypoint.
func (c *cluster) gateway(name string) {
	c.t.Helper()
	if err := c.Apply(c.t.Context(), `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: `+name+`, namespace: shop, labels: {istio.io/waypoint-for: service}}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
`); err != nil {
		c.t.Fatal(err)
	}
}
