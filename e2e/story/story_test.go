package story_test

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/capture"
	"github.com/isthmus-mesh/isthmus/e2e/story"
	"github.com/isthmus-mesh/isthmus/e2e/world"
)

func TestMain(m *testing.M) {
	world.Enter(story.Funcs())
	os.Exit(m.Run())
}

// Identities of the scene.
const (
	gateway  = "spiffe://cluster.local/ns/edge/sa/gateway"
	native   = "spiffe://cluster.local/ns/edge/sa/native-gateway"
	impostor = "spiffe://cluster.local/ns/edge/sa/impostor"
	waypoint = "spiffe://cluster.local/ns/shop/sa/waypoint"
	orders   = "spiffe://cluster.local/ns/shop/sa/orders"
)

// TestStory plays the whole story, and judges what was seen at every hop.
func TestStory(t *testing.T) {
	ctx := t.Context()
	w, err := story.Start(ctx, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			w.Keep()
			t.Logf("logs are in %s", w.Dir)
		}
		if err := w.Stop(); err != nil {
			t.Error(err)
		}
	})
	t.Logf("the scene is set after %v", w.Took.Round(10*time.Millisecond))
	play := func(p *story.Passage, err error) *story.Passage {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range p.Hops {
			t.Logf("%s > %s: %s source=%s peer=%s status=%d policy=%s (%s) %s", h.From, h.To, h.Transport, h.Source, h.Peer, h.Status, h.Policy, h.By, h.Error)
		}
		return p
	}
	hop := func(p *story.Passage, to, by string) story.Hop {
		t.Helper()
		at := slices.IndexFunc(p.Hops, func(h story.Hop) bool { return h.To == to && strings.HasPrefix(h.By, by) })
		if at < 0 {
			t.Fatalf("no hop to %s is logged by %s: %+v", to, by, p.Hops)
		}
		return p.Hops[at]
	}

	p := play(w.FromOutside(ctx, story.Plain))
	if h := hop(p, "shop/orders", "capture"); p.Status != 200 && w.Envoy || !p.Clear || h.Transport != capture.Plaintext || h.Source != "" {
		t.Errorf("outside the mesh: %+v; want 200, in the clear, from nobody known", p)
	}
	p = play(w.Strict(ctx))
	if h := hop(p, "shop/orders", "capture"); p.Status != 502 || *h.Allowed || !strings.Contains(h.Policy, "strict") {
		t.Errorf("outside the mesh, under STRICT: %+v; want 502, refused by what STRICT becomes", p)
	}

	// The native gateway keeps this tunnel for later requests; none of them may go past the waypoint that is yet to come.
	p = play(w.FromOutside(ctx, story.Native))
	if p.Status != 200 || p.Clear || slices.ContainsFunc(p.Hops, func(h story.Hop) bool { return h.To == "shop/waypoint" }) {
		t.Errorf("the native gateway before there is a waypoint: %+v; want 200 by HBONE straight to orders", p)
	}

	text, err := w.Plan(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("isthmus plan:\n%s", text)
	took, err := w.Join(ctx, func(s story.Step) { t.Logf("%5.2fs %s %s: %s", s.After.Seconds(), s.State, s.ID, s.Reason) })
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("ready after %v", took.Round(10*time.Millisecond))

	p = play(w.FromOutside(ctx, story.Plain))
	if p.Status != 200 || p.Clear {
		t.Errorf("in the mesh: %d, in the clear %v; want 200, and nothing in the clear", p.Status, p.Clear)
	}
	if w.Envoy {
		if h := hop(p, "shop/waypoint", "capture of edge/gateway"); h.Transport != capture.HBONE || h.Source != gateway || h.Peer != waypoint {
			t.Errorf("gateway to waypoint: %+v", h)
		}
		if h := hop(p, "shop/waypoint", "Envoy"); h.Source != gateway || !*h.Allowed || h.Policy != "shop/orders-callers" || h.Status != 200 {
			t.Errorf("at the waypoint: %+v", h)
		}
		if h := hop(p, "shop/orders", "capture of shop/orders"); h.Transport != capture.HBONE || h.Source != waypoint || h.From != "shop/waypoint" || !*h.Allowed {
			t.Errorf("waypoint to backend: %+v", h)
		}
	} else if h := hop(p, "shop/orders", "capture of shop/orders"); h.Source != gateway || !*h.Allowed || h.Policy != "shop/orders-callers" {
		t.Errorf("gateway to backend: %+v", h)
	}

	p = play(w.Deny(ctx))
	if at := hop(p, w.Decider(), w.DecidedBy()); *at.Allowed || at.Policy != "shop/close-orders" || at.Source != gateway {
		t.Errorf("denied by %+v", at)
	}
	play(w.Allow(ctx))

	p = play(w.FromImpostor(ctx))
	if at := hop(p, w.Decider(), w.DecidedBy()); p.Status == 200 || *at.Allowed || at.Source != impostor {
		t.Errorf("the impostor got %d: %+v", p.Status, at)
	}

	before, err := story.ReadState(ctx, w.Config)
	if err != nil {
		t.Fatal(err)
	}
	e, took, err := w.JoinNative(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("edge/native is ready after %v", took.Round(10*time.Millisecond))
	if g := e.Status.Gateways; len(g) != 1 || g[0].Captured != 0 || g[0].Pods != 1 || g[0].Identity != native {
		t.Errorf("gateways of edge/native are %+v; want one, not captured", g)
	}
	if b := e.Status.Backends; len(b) != 1 || (b[0].Waypoint == "shop/waypoint") != w.Envoy {
		t.Errorf("backends of edge/native are %+v", b)
	}
	now, err := story.ReadState(ctx, w.Config)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range before.Diff(now) { // the gateway of an author who needs no capture is left alone
		if d != "referencegrants.gateway.networking.k8s.io shop/edges is new" && d != "ambientedges.isthmus.dev edge/native is new" {
			t.Errorf("edge/native has written: %s", d)
		}
	}
	p = play(w.FromOutside(ctx, story.Native))
	if at := hop(p, w.Decider(), w.DecidedBy()); p.Status != 200 || p.Clear || at.Source != native || !*at.Allowed {
		t.Errorf("the native gateway got %d, in the clear %v: %+v", p.Status, p.Clear, at)
	}

	if err := w.LeaveNative(ctx); err != nil {
		t.Fatal(err)
	}
	p = play(w.FromOutside(ctx, story.Plain))
	if at := hop(p, w.Decider(), w.DecidedBy()); p.Status != 200 || at.Source != gateway {
		t.Errorf("the captured gateway got %d when the other edge had left: %+v", p.Status, at)
	}
	halted, took, err := w.Leave(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("undone after %v; halted: %s", took.Round(10*time.Millisecond), halted)
	if w.Envoy != strings.Contains(halted, "shop/orders-callers") {
		t.Errorf("undo halted for %q", halted)
	}
	diff, err := w.Same(ctx, w.Before())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range diff {
		t.Errorf("not as before: %s", d)
	}
	p = play(w.FromOutside(ctx, story.Plain))
	if p.Status != 502 {
		t.Errorf("after undo: %d, want 502 again", p.Status)
	}
}
