package wdstest

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/wds"
)

// placed is a workload of that app at that locality.
func placed(name, app, ip, locality string) string {
	return fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: %[1]s, namespace: locality, labels: {app: %[2]s}, annotations: {ambient.istio.io/redirection: enabled}}
spec: {address: %[3]s, serviceAccount: %[2]s, locality: %[4]s, labels: {app: %[2]s}}
`, name, app, ip, locality)
}

const closeBy = `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: close, namespace: locality, annotations: {networking.istio.io/traffic-distribution: PreferClose}}
spec:
  hosts: [close.locality.example]
  addresses: [10.96.81.5]
  ports: [{number: 80, name: tcp, protocol: TCP, targetPort: 8080}]
  resolution: STATIC
  workloadSelector: {labels: {app: close}}
`

// The endpoints near to the dialer's own workload are preferred where the Service says so, and others serve when they are gone.
func TestLocality(t *testing.T) {
	t.Parallel()
	m := shared.Get(t)
	for _, yaml := range []string{
		namespace("locality"), closeBy,
		placed("gateway-1", "gateway", "10.244.81.9", "r1/z1"),
		placed("near", "close", "10.244.81.1", "r1/z1"),
		placed("next", "close", "10.244.81.2", "r1/z2"),
		placed("far", "close", "10.244.81.3", "r2/z1"),
	} {
		if err := m.Apply(t.Context(), yaml); err != nil {
			t.Fatal(err)
		}
	}
	c := newClient(t, m, "locality", func(c *wds.Config) {
		c.Node.Pod, c.Node.IP = "gateway-1", netip.MustParseAddr("10.244.81.9")
	})
	only := func(name, authority string) {
		t.Helper()
		seen := map[string]bool{}
		for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			clear(seen)
			for range 30 {
				if r, err := c.resolve("10.96.81.5:80"); err == nil && len(r.Hops) == 1 {
					seen[r.Hops[0].Authority] = true
				}
			}
			if len(seen) == 1 && seen[authority] {
				return
			}
		}
		t.Fatalf("%s: leads to %v, want only %s", name, seen, authority)
	}
	only("in our zone", "10.244.81.1:8080")
	for _, gone := range []struct{ name, then, authority string }{
		{"near", "in our region", "10.244.81.2:8080"},
		{"next", "anywhere", "10.244.81.3:8080"},
	} {
		if _, err := m.Run(t.Context(), "kubectl", "delete", "-n", "locality", "workloadentry/"+gone.name); err != nil {
			t.Fatal(err)
		}
		only(gone.then, gone.authority)
	}
}
