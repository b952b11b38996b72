package clitest

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/command"
)

// policy denies the gateway requests for /secret, where paths are seen; at a pod it denies all.
func policy(name, spec string) string {
	return `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ` + name + `, namespace: shop}
spec: ` + spec
}

func TestDialIsDeniedByAPolicyAtThePod(t *testing.T) {
	c := newCluster(t)
	deny := policy("deny", `{selector: {matchLabels: {app: orders}}, action: DENY, rules: [{from: [{source: {principals: [cluster.local/ns/edge/sa/gateway]}}]}]}`)
	if err := c.Apply(t.Context(), deny); err != nil {
		t.Fatal(err)
	}
	r := c.untilSaid("401", ordersAt, "--http", "/")
	r.Want(t, 1, r.Stderr, "cannot dial "+ordersAt, "where:", "workload shop/orders at", "401", "kubectl get authorizationpolicies")
	if err := c.Delete(t.Context(), deny); err != nil {
		t.Fatal(err)
	}
	c.until(0, ordersAt, "--http", "/")
}

// needEnvoy ends a test that needs one where there is none: CI must have it.
func needEnvoy(t *testing.T) {
	t.Helper()
	if shared.envoy {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("there is no Envoy, and CI must have it: it comes with pip")
	}
	t.Skip("there is no Envoy")
}

func TestDialGoesThroughAWaypoint(t *testing.T) {
	c := newCluster(t)
	needEnvoy(t)
	c.gateway("waypoint")
	defer c.Run(t.Context(), "kubectl", "delete", "gateway", "waypoint", "-n", "shop")
	c.label("istio.io/use-waypoint=waypoint")
	defer c.label("istio.io/use-waypoint-")
	if err := c.Apply(t.Context(), policy("secret", `{targetRefs: [{kind: Service, group: "", name: orders}], action: DENY, rules: [{to: [{operation: {paths: [/secret]}}]}]}`)); err != nil {
		t.Fatal(err)
	}
	var r command.Result
	for deadline := time.Now().Add(90 * time.Second); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) { // its pod has to come
		if r = c.dial(ordersAt, "--http", "/secret"); strings.Contains(r.Stdout, "RBAC") {
			break
		}
	}
	r.Want(t, 1, r.Stderr, "through   waypoint shop/waypoint-", "spiffe://cluster.local/ns/shop/sa/waypoint", "through waypoint",
		"answered  spiffe://cluster.local/ns/shop/sa/waypoint", "403 Forbidden", "error:", "where: waypoint shop/waypoint-", "AuthorizationPolicy denies this request")
	r = c.dial(ordersAt, "--http", "/orders")
	r.Want(t, 0, r.Stderr, "through   waypoint shop/waypoint-", "200 OK")
	if !strings.Contains(r.Stdout, "/orders") {
		t.Errorf("got %q", r.Stdout)
	}
}
