package wdstest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/wds"
)

// member is a workload more of a Service of entry.
func member(ns, name string, n int) string {
	return fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: %[1]s-%[3]d, namespace: %[2]s, labels: {app: %[1]s}, annotations: {ambient.istio.io/redirection: enabled}}
spec: {address: 10.244.88.%[3]d, serviceAccount: %[1]s, labels: {app: %[1]s}}
`, name, ns, n)
}

// A Service becomes too large for a message of its own while it is held: it leads where it led, all others go on, and what has gone from them meanwhile is gone.
// To one who asks for all there is all is too large; what is dialled is answered.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	m := shared.Get(t)
	const limit = 8 << 10
	apply := func(yaml string) {
		t.Helper()
		if err := m.Apply(t.Context(), yaml); err != nil {
			t.Fatal(err)
		}
	}
	apply(namespace("large"))
	for i, name := range []string{"big", "small", "other"} {
		apply(entry("large", name, fmt.Sprintf("10.96.87.%d", i+1), fmt.Sprintf("10.244.87.%d", i+1)))
	}
	apply(member("large", "small", 251))
	c := newClient(t, m, "large", func(c *wds.Config) { c.MaxMessage, c.RefreshEvery = limit, time.Second })
	c.leads("10.96.87.1:80", "10.244.87.1:8080")
	c.leads("10.96.87.2:80", "10.244.87.2:8080")
	c.leads("10.96.87.3:80", "10.244.87.3:8080")
	var many strings.Builder
	for n := range 60 {
		many.WriteString(member("large", "big", n+1) + "---")
	}
	apply(strings.TrimSuffix(many.String(), "---"))
	c.until("it is too large", 30*time.Second, func() bool { return c.Stats().TooLarge > 0 })
	if _, err := m.Run(t.Context(), "kubectl", "delete", "-n", "large", "workloadentry/small"); err != nil {
		t.Fatal(err)
	}
	apply(entry("large", "other", "10.96.87.3", "10.244.87.33"))
	c.leads("10.96.87.3:80", "10.244.87.33:8080")
	for end := time.Now().Add(45 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		seen := map[string]bool{}
		for range 30 {
			r, err := c.resolve("10.96.87.2:80")
			if err != nil {
				t.Fatal(err)
			}
			seen[r.Hops[0].Authority] = true
		}
		if len(seen) == 1 && seen["10.244.88.251:8080"] {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("a Service that lost one of two pods leads to %v", seen)
		}
	}
	if r, err := c.resolve("10.96.87.1:80"); err != nil || len(r.Hops) != 1 {
		t.Errorf("what is too large leads to %+v, %v", r, err)
	}
	t.Logf("%+v", c.Stats())
	if st := c.Stats(); st.TooLarge > 8 {
		t.Errorf("it took %d connections", st.TooLarge)
	}
	fresh := newClient(t, m, "large", func(c *wds.Config) { c.MaxMessage = limit })
	if _, err := fresh.resolve("10.96.87.1:80"); err == nil || !strings.Contains(err.Error(), "has more than 8192 bytes") {
		t.Errorf("to one who holds nothing of it: %v", err)
	}
	fresh.leads("10.96.87.3:80", "10.244.87.33:8080")

	all := newClient(t, m, "large", func(c *wds.Config) { c.MaxMessage, c.Wildcard = limit, true })
	all.leads("10.96.87.3:80", "10.244.87.33:8080")
	if st := all.Stats(); !st.Narrowed || st.TooLarge == 0 {
		t.Errorf("all there is has more than %d bytes: %+v", limit, st)
	}
	if _, err := m.Run(t.Context(), "kubectl", "delete", "-n", "large", "workloadentry/other"); err != nil {
		t.Fatal(err)
	}
	apply(entry("large", "other", "10.96.87.3", "10.244.87.34"))
	all.leads("10.96.87.3:80", "10.244.87.34:8080")
}
