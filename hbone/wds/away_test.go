package wds_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/route"
	"github.com/isthmus-mesh/isthmus/hbone/wds"
	"github.com/isthmus-mesh/isthmus/hbone/wds/wdstest"
)

func TestReconnect(t *testing.T) {
	istiod, c := start(t)
	resolve(t, c, "10.96.0.1:80")
	istiod.Stop()
	for range 10 { // away: what is held answers
		if r := resolve(t, c, "10.96.0.1:80"); r.Hops[0].Name != "shop/cart-1" {
			t.Fatalf("%+v", r)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := c.Resolve(ctx, "tcp", "10.96.0.7:80")
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "istiod did not answer") || !strings.Contains(err.Error(), istiod.Addr()) {
		t.Errorf("a new name, while istiod is away: %v", err)
	}
	// Meanwhile one pod goes and another comes.
	istiod.Remove(wdstest.AddressType, "Kubernetes//Pod/shop/cart-1")
	istiod.SetWorkload(pod("cart-2", "10.244.1.2", cartKey))
	istiod.Start(t)
	eventually(t, c, "the new pod only", func() bool { return resolve(t, c, "10.96.0.1:80").Hops[0].Name == "shop/cart-2" })
	hello := istiod.Wait(t, "a second hello", func(r wdstest.Request) bool { return r.Stream == 2 && len(r.Initial) > 0 })
	for _, name := range []string{cartKey, "Kubernetes//Pod/shop/cart-1"} {
		if hello.Initial[name] == "" {
			t.Errorf("it does not say that it holds %s: %v", name, hello.Initial)
		}
	}
	if !asksFor("/10.96.0.1")(hello) || !asksFor("/10.96.0.7")(hello) {
		t.Errorf("names are forgotten: %v", hello.Subscribe)
	}
	// And the disconnection that istiod makes itself.
	istiod.Disconnect()
	istiod.Wait(t, "a third hello", func(r wdstest.Request) bool { return r.Stream == 3 })
}

// While istiod is away the world outside the mesh can still be reached, and what was unknown stays an error at once.
func TestAbsenceIsRememberedWhileIstiodIsAway(t *testing.T) {
	const absentFor = 50 * time.Millisecond
	istiod, c := start(t, func(c *wds.Config) { c.Passthrough, c.AbsentFor = true, absentFor })
	known := func(when string) {
		t.Helper()
		r, err := c.Resolve(within(t, 5*time.Second), "tcp", "192.0.2.1:443")
		if err != nil || r.Direct.String() != "192.0.2.1:443" {
			t.Fatalf("%s: an address outside the mesh leads to %+v, %v", when, r, err)
		}
		_, err = c.Resolve(within(t, 5*time.Second), "tcp", "none.shop.svc.cluster.local:80")
		if e, ok := errors.AsType[*route.Error](err); !ok {
			t.Fatalf("%s: a name that istiod does not know: %v (%v)", when, err, e)
		}
	}
	known("istiod is there")
	// Who waits for a second answer when istiod goes takes the first one.
	istiod.SetSilent(true)
	time.Sleep(absentFor)
	waits := make(chan error, 1)
	go func() {
		_, err := c.Resolve(within(t, 5*time.Second), "tcp", "192.0.2.1:443")
		waits <- err
	}()
	istiod.Wait(t, "the address asked for anew", func(r wdstest.Request) bool { return slices.Contains(r.Unsubscribe, "/192.0.2.1") })
	istiod.Stop()
	if err := <-waits; err != nil {
		t.Errorf("who waited: %v", err)
	}
	time.Sleep(absentFor)
	known("istiod is away")
	istiod.SetSilent(false)
	istiod.SetWorkload(pod("late", "192.0.2.1"))
	istiod.Start(t)
	eventually(t, c, "the workload that came meanwhile", func() bool {
		r, err := c.Resolve(within(t, 5*time.Second), "tcp", "192.0.2.1:443")
		return err == nil && len(r.Hops) == 1
	})
}

func TestTheOtherAddressIsTried(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close() // nobody there
	_, c := start(t, func(c *wds.Config) { c.Addresses = append([]string{ln.Addr().String()}, c.Addresses...) })
	resolve(t, c, "10.96.0.1:80")
}

func TestTheTokenIsReadAnew(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	write := func(token string) {
		if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("old")
	istiod, c := start(t, func(c *wds.Config) { c.Token, c.TokenFile = nil, file })
	err := c.Ready(within(t, time.Second))
	if err == nil || !strings.Contains(err.Error(), "not accept the token") || !strings.Contains(err.Error(), "istio-ca") || !strings.Contains(err.Error(), "edge/gateway") {
		t.Errorf("with a wrong token: %v", err)
	}
	write("token")
	if err := c.Ready(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	istiod.SetToken("newer")
	write("newer")
	istiod.Disconnect()
	istiod.Wait(t, "a second stream", func(r wdstest.Request) bool { return r.Stream == 2 })
}

func TestErrorsSayWhatToDo(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*wds.Config)
		want   string
	}{
		"roots that are none": {func(c *wds.Config) { c.Roots = func() ([]byte, error) { return []byte("x"), nil } }, "the roots hold no certificate"},
		"no roots file":       {func(c *wds.Config) { c.Roots, c.RootsFile = nil, "/nonexistent" }, "read roots"},
		"no token file":       {func(c *wds.Config) { c.Token, c.TokenFile = nil, "/nonexistent" }, "read token"},
		"a token that fails": {func(c *wds.Config) {
			c.Token = func(context.Context) (string, error) { return "", errors.New("vault is sealed") }
		}, "vault is sealed"},
		"another server name": {func(c *wds.Config) { c.ServerName = "istiod-canary.istio-system.svc" }, "Config.ServerName"},
		"foreign roots":       {func(c *wds.Config) { c.Roots = wdstest.New(t).Roots }, "Config.RootsFile"},
		"plaintext to TLS":    {func(c *wds.Config) { c.Token, c.Insecure = nil, true }, "istiod at"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // each mostly waits
			_, c := start(t, tt.change)
			if err := c.Ready(within(t, 700*time.Millisecond)); err == nil || !strings.Contains(err.Error(), tt.want) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// A resource that is asked for and cannot be read is named, rather than "istiod did not answer" alone.
func TestWaitingForABadResourceSaysSo(t *testing.T) {
	istiod, c := start(t)
	istiod.SetRaw(wdstest.AddressType, "shop/bad", []byte{0xff}, "/10.96.0.8")
	_, err := c.Resolve(within(t, 500*time.Millisecond), "tcp", "10.96.0.8:80")
	if err == nil || !strings.Contains(err.Error(), "shop/bad") {
		t.Errorf("got %v", err)
	}
}

func TestMaxNames(t *testing.T) {
	_, c := start(t, func(c *wds.Config) { c.MaxNames, c.AbsentFor = 3, 200*time.Millisecond })
	resolve(t, c, "10.96.0.1:80")
	absent := func(n int) error {
		_, err := c.Resolve(within(t, 10*time.Second), "tcp", fmt.Sprintf("192.0.2.%d:80", n))
		return err
	}
	for n := range 2 {
		if err := absent(n); !strings.Contains(fmt.Sprint(err), "outside the mesh") {
			t.Fatal(err)
		}
	}
	if err := absent(2); !strings.Contains(fmt.Sprint(err), "Config.MaxNames") {
		t.Errorf("a fourth name: %v", err)
	}
	resolve(t, c, "10.96.0.1:80")
	// Names that lead nowhere make room in time, else a scan of addresses would end all look-ups for good.
	time.Sleep(250 * time.Millisecond)
	for n := range 2 {
		if err := absent(10 + n); !strings.Contains(fmt.Sprint(err), "outside the mesh") {
			t.Errorf("after a while: %v", err)
		}
	}
	resolve(t, c, "10.96.0.1:80")
}

// An address that a workload no longer has is not waited for.
func TestAnAddressThatMovedAway(t *testing.T) {
	istiod, c := start(t)
	resolve(t, c, "10.244.1.1:80")
	istiod.SetWorkload(pod("cart-1", "10.244.1.99", cartKey))
	eventually(t, c, "the move", func() bool {
		_, err := c.Resolve(within(t, time.Second), "tcp", "10.244.1.1:80")
		_, final := errors.AsType[*route.Error](err)
		return final
	})
}

func TestCancelAndClose(t *testing.T) {
	before := runtime.NumGoroutine()
	istiod := wdstest.New(t)
	istiod.SetSilent(true)
	c := client(t, istiod)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := c.Resolve(ctx, "tcp", "10.96.0.1:80")
		done <- err
	}()
	istiod.Wait(t, "the VIP", asksFor("/10.96.0.1"))
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("after cancel: %v", err)
	}
	waits := map[string]func() error{
		"Resolve":  func() error { _, err := c.Resolve(t.Context(), "tcp", "10.96.0.1:80"); return err },
		"Ready":    func() error { return c.Ready(t.Context()) },
		"Workload": func() error { _, err := c.Workload(t.Context(), netip.MustParseAddr("10.96.0.1")); return err },
	}
	for _, f := range waits {
		go func() { done <- f() }()
	}
	time.Sleep(50 * time.Millisecond)
	c.Close()
	for range waits {
		select {
		case err := <-done:
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("a wait after Close: %v", err)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("Close leaves a wait")
		}
	}
	for name, f := range waits {
		if err := f(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s of a closed client: %v", name, err)
		}
	}
	c.Close()
	istiod.Stop()
	for end := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			buf := make([]byte, 1<<20)
			t.Fatalf("goroutines are left:\n%s", buf[:runtime.Stack(buf, true)])
		}
	}
}
