package envoyshim_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/e2e/envoyshim/accesslog"
	"github.com/isthmus-mesh/isthmus/e2e/world"
)

const telemetry = `
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: metrics, namespace: shop}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: waypoint}]
  metrics: [{providers: [{name: prometheus}]}]
`

// dropsStats adds what only Istio's build can do and nobody needs.
func dropsStats(t *testing.T, s shopMesh, waypoint *corev1.Pod) {
	s.apply(t, telemetry)
	eventually(t, func() error {
		if !strings.Contains(s.log(t, waypoint), "does not have it: istio.stats") {
			return fmt.Errorf("the shim does not tell that it dropped istio.stats: %s", s.Node.Tail("shop", waypoint.Name, "istio-proxy", 10))
		}
		return nil
	})
	answers(t, s, "/ok/stats", 200)
	s.checkLog(t, waypoint)
}

const allowSecret = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: later, namespace: shop}
spec:
  targetRefs: [{kind: Service, group: "", name: orders}]
  action: ALLOW
  rules: [{to: [{operation: {paths: [/later*]}}]}]
`

// survivesIstiod has a policy arrive by an xDS stream that had to be made anew.
func survivesIstiod(t *testing.T, s shopMesh, waypoint *corev1.Pod) {
	if err := s.StopIstiod(); err != nil {
		t.Fatal(err)
	}
	answers(t, s, "/ok/without-istiod", 200)
	answers(t, s, "/later/no", 403)
	if err := s.StartIstiod(t.Context()); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	s.apply(t, allowSecret)
	answers(t, s, "/later/yes", 200)
	t.Logf("a policy is in force %.1f s after istiod is back", time.Since(began).Seconds())
	r := s.request(t, waypoint, "/later/yes", func(r accesslog.Request) bool { return r.Path == "/later/yes" && r.Status == 200 })
	if r.Policy != "shop/later" {
		t.Errorf("logged as %+v", r)
	}
	s.checkLog(t, waypoint)
}

const unknownFilter = `
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: unknown, namespace: shop}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: waypoint}]
  configPatches:
  - applyTo: HTTP_FILTER
    match: {context: ANY, listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager}}}}
    patch:
      operation: INSERT_FIRST
      value:
        name: decider
        typed_config: {"@type": type.googleapis.com/udpa.type.v1.TypedStruct, type_url: type.googleapis.com/io.istio.http.unheard_of.Config}
`

// refusesUnknown has Envoy refuse, by name, a filter that may decide something, and go on as it was.
func refusesUnknown(t *testing.T, s shopMesh, waypoint *corev1.Pod) {
	s.apply(t, unknownFilter)
	eventually(t, func() error {
		text := s.log(t, waypoint)
		if !strings.Contains(text, "io.istio.http.unheard_of.Config") || !strings.Contains(text, "rejected") {
			return fmt.Errorf("Envoy has not refused: %s", s.Node.Tail("shop", waypoint.Name, "istio-proxy", 10))
		}
		return nil
	})
	answers(t, s, "/ok/unknown", 200)
	answers(t, s, "/secret", 403)
	s.kubectl(t, "delete", "envoyfilter/unknown") // a new pod would not get ready with it
}

// ends deletes the waypoint: agents, shims and Envoys end in good order.
func ends(t *testing.T, s shopMesh) {
	pods := s.waypoints(t, 2)
	began := time.Now()
	s.kubectl(t, "delete", "gateway/waypoint", "--wait=false")
	for _, pod := range pods {
		if err := s.Node.WaitGone(t.Context(), "shop", pod.Name); err != nil {
			t.Fatal(err)
		}
	}
	took := time.Since(began)
	t.Logf("waypoint: gone %.1f s after its Gateway was deleted", took.Seconds())
	for _, pod := range pods {
		if left := memoryOf(t, pod.Name); len(left) > 0 {
			t.Errorf("still there: %v", left)
		}
	}
	const promise = 15 * time.Second
	seen := fmt.Sprintf("a waypoint's processes end in %v when asked to: it took %v", promise, took.Round(100*time.Millisecond))
	if took > promise && world.Judge(t, seen) {
		t.Error(seen)
	}
}

// answers waits for the status that pod good gets for path.
func answers(t *testing.T, s shopMesh, path string, status int) {
	t.Helper()
	eventually(t, func() error {
		a, err := s.call(t.Context(), "good", orders+path)
		if err == nil && a.Status != status {
			err = fmt.Errorf("%s: got %+v, want %d", path, a, status)
		}
		return err
	})
}
