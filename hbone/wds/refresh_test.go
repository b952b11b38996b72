package wds_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/wds"
	"github.com/isthmus-mesh/isthmus/hbone/wds/wdstest"
)

// asks counts the requests that ask for a name.
func asks(istiod *wdstest.Istiod, name string) (n int) {
	for _, r := range istiod.Requests() {
		if asksFor(name)(r) {
			n++
		}
	}
	return n
}

// Istiod does not tell of a new pod of a Service that was asked for: it is asked anew, as often as is configured, and only for Services.
func TestNewPodsAreAskedFor(t *testing.T) {
	for name, tt := range map[string]struct {
		every time.Duration
		known bool
	}{"now and then": {50 * time.Millisecond, true}, "never": {-1, false}} {
		t.Run(name, func(t *testing.T) {
			istiod, c := start(t, func(c *wds.Config) { c.RefreshEvery = tt.every })
			resolve(t, c, "10.96.0.1:80")
			resolve(t, c, "10.244.1.1:80")
			istiod.SetWorkload(pod("cart-2", "10.244.1.2", cartKey))
			if tt.known {
				until(t, "the new pod", func() bool { return c.Stats().Workloads == 2 })
			} else {
				time.Sleep(300 * time.Millisecond)
				if st := c.Stats(); st.Workloads != 1 {
					t.Errorf("%+v", st)
				}
			}
			if n := asks(istiod, "/10.244.9.9"); n != 1 {
				t.Errorf("our own address was asked for %d times", n)
			}
			again := asks(istiod, "/10.96.0.1")
			if tt.known != (again > 1) {
				t.Errorf("the Service was asked for %d times", again)
			}
		})
	}
}

// What has not changed is taken for what it is: no way is looked at again.
func TestARefreshWithoutNewsChangesNothing(t *testing.T) {
	istiod, c := start(t)
	before, err := c.Workload(t.Context(), own)
	if err != nil {
		t.Fatal(err)
	}
	resolve(t, c, "10.96.0.1:80")
	istiod.Wait(t, "a refresh", func(r wdstest.Request) bool { return slices.Contains(r.Unsubscribe, "/10.96.0.1") })
	n := asks(istiod, "/10.96.0.1")
	until(t, "another one", func() bool { return asks(istiod, "/10.96.0.1") > n+1 })
	if after, err := c.Workload(t.Context(), own); err != nil || after != before {
		t.Errorf("it is another one now: %v", err)
	}
}

// A large mesh is not asked for at one moment.
func TestARefreshIsBounded(t *testing.T) {
	istiod := wdstest.New(t)
	const services, pods = 30, 200
	istiod.Fill(services, pods)
	c := client(t, istiod, func(c *wds.Config) { c.RefreshEvery = 500 * time.Millisecond })
	for n := range services {
		resolve(t, c, wdstest.FillService(n).Hostname+":80")
	}
	until(t, "the last Service's turn", func() bool {
		return asks(istiod, wdstest.FillService(services-1).Key()) > 1
	})
	for _, r := range istiod.Requests() {
		// 2,000 a second are 1,000 in half of one: five Services of 200, and the one with which it is too much.
		if n := len(r.Unsubscribe); n > 6 {
			t.Errorf("%d Services of %d pods are asked for at once", n, pods)
		}
	}
}

// While its last pod is replaced a Service's dials wait for istiod's answer, and do not fail.
func TestTheLastPodIsReplaced(t *testing.T) {
	istiod, c := start(t, func(c *wds.Config) { c.RefreshEvery = time.Hour })
	resolve(t, c, "10.96.0.1:80")
	for i := range 20 {
		istiod.SetWorkload(pod(fmt.Sprint("next-", i), fmt.Sprintf("10.244.5.%d", i+1), cartKey))
		old := "cart-1"
		if i > 0 {
			old = fmt.Sprint("next-", i-1)
		}
		changed := c.Changed()
		istiod.Remove(wdstest.AddressType, "Kubernetes//Pod/shop/"+old)
		<-changed
		if r := resolve(t, c, "10.96.0.1:80"); r.Hops[0].Name != fmt.Sprint("shop/next-", i) {
			t.Fatalf("it leads to %s", r.Hops[0].Name)
		}
	}
}
