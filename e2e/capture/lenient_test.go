package capture_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/e2e/capture"
)

// TestListedPolicyThatNeverComes makes istiod list a policy that it does not send: a workload that turns the mesh's STRICT off but for
// one port. What should be closed to plaintext is then open where a missing policy is passed over, as ztunnel does. Here it is closed to all
// until the policy comes, unless a pod is Lenient.
func TestListedPolicyThatNeverComes(t *testing.T) {
	const rootStrict = `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
`
	for _, ns := range []string{"lenient", "listed"} {
		t.Run(ns, func(t *testing.T) {
			lenient := ns == "lenient" || capture.IsZtunnel()
			c := newCluster(t, ns)
			c.needNFTables()
			c.eventually("/", 200)
			c.apply(rootStrict)
			defer func() {
				if err := c.Delete(c.ctx(), rootStrict); err != nil {
					t.Error(err)
				}
			}()
			c.eventually("/", 0)
			strictPort := func(more string) {
				c.apply(fmt.Sprintf(`
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: orders, namespace: %s}
spec: {selector: {matchLabels: {app: orders}}, mtls: {mode: PERMISSIVE}, portLevelMtls: {8080: {mode: STRICT}%s}}
`, ns, more))
			}
			strictPort("")
			if lenient { // the bypass: port 8080 is STRICT, and plaintext gets in
				c.logs("/", 200, "orders", func(e capture.Entry) bool { return e.Transport == capture.Plaintext && e.IsAllowed() })
				c.enrol(true)
				c.eventually("/", 200)
				return
			}
			const missing = "policy listed/converted_peer_authentication_orders is not here yet"
			for _, transport := range []string{capture.Plaintext, capture.HBONE} {
				c.enrol(transport == capture.HBONE)
				c.wantLast("orders", func(e capture.Entry) bool {
					if a := c.call("/"); a.Status != 0 {
						t.Fatalf("by %s: got %+v, want no answer", transport, a)
					}
					return e.Transport == transport && !e.IsAllowed() && strings.Contains(strings.Join(e.Reason, " "), missing)
				})
			}
			// Without the mesh's STRICT istiod sends the policy with the next change of the object, and it decides.
			if err := c.Delete(c.ctx(), rootStrict); err != nil {
				t.Fatal(err)
			}
			strictPort(", 9090: {mode: STRICT}")
			c.eventually("/", 200)
			c.enrol(false)
			c.logs("/", 0, "orders", func(e capture.Entry) bool {
				return e.Policy == "listed/converted_peer_authentication_orders" && !e.IsAllowed() && e.Transport == capture.Plaintext
			})
		})
	}
}
