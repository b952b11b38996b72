package story_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/isthmus-mesh/isthmus/e2e/capture"
	"github.com/isthmus-mesh/isthmus/e2e/story"
	"github.com/isthmus-mesh/isthmus/e2e/story/state"
	"github.com/isthmus-mesh/isthmus/e2e/story/storytest"
	"github.com/isthmus-mesh/isthmus/e2e/world"
)

func TestMain(m *testing.M) {
	world.Enter(story.Funcs())
	ctrl.SetLogger(logr.Discard())
	if os.Getenv(forbidEnv) != "" {
		if err := forbidNFTables(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(storytest.Main(m, &shared))
}

// shared is the world of all tests.
var shared storytest.Shared

// Identities of the scene.
const (
	gateway  = "spiffe://cluster.local/ns/edge/sa/gateway"
	native   = "spiffe://cluster.local/ns/edge/sa/native-gateway"
	impostor = "spiffe://cluster.local/ns/edge/sa/impostor"
	waypoint = "spiffe://cluster.local/ns/shop/sa/waypoint"
	orders   = "spiffe://cluster.local/ns/shop/sa/orders"
)

// TestStory plays the whole story, and judges what was seen at every hop; once more as it is on a machine without Envoy.
func TestStory(t *testing.T) {
	w := shared.Get(t)
	if os.Getenv(forbidEnv) != "" && w.Redirected() {
		t.Fatal("there is nftables, and it was forbidden")
	}
	if w.Envoy {
		t.Run("with a waypoint", func(t *testing.T) { playAndJudge(t, w) })
		if err := w.WithoutWaypoint(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("without", func(t *testing.T) { playAndJudge(t, w) })
}

func playAndJudge(t *testing.T, w *story.World) {
	ctx := t.Context()
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
	// A policy of layer 4 wants to know who calls, where anybody asks it.
	asked := w.Redirected() && !w.Envoy
	open, shut := 200, 502
	if asked {
		open = shut
	}
	if !w.Redirected() {
		shut = open // nobody sees what comes in plaintext
	}
	if p.Status != open || !asked && !p.Clear {
		t.Errorf("outside the mesh: %d, in the clear %v; want %d", p.Status, p.Clear, open)
	}
	if w.Redirected() {
		if h := hop(p, "shop/orders", "capture"); h.Transport != capture.Plaintext || h.Source != "" || !decided(h, !asked) {
			t.Errorf("outside the mesh: %+v; want plaintext from nobody known", h)
		}
	}
	if p = play(w.Strict(ctx)); p.Status != shut {
		t.Errorf("outside the mesh, under STRICT: %d, want %d", p.Status, shut)
	}
	if w.Redirected() {
		if h := hop(p, "shop/orders", "capture"); !decided(h, false) || !strings.Contains(h.Policy, "strict") && !asked {
			t.Errorf("outside the mesh, under STRICT: %+v; want that what STRICT becomes refuses it", h)
		}
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
		if h := hop(p, "shop/waypoint", "Envoy"); h.Source != gateway || !decided(h, true) || h.Policy != "shop/orders-callers" || h.Status != 200 {
			t.Errorf("at the waypoint: %+v", h)
		}
		if h := hop(p, "shop/orders", "capture of shop/orders"); h.Transport != capture.HBONE || h.Source != waypoint || h.From != "shop/waypoint" || !decided(h, true) {
			t.Errorf("waypoint to backend: %+v", h)
		}
	} else if h := hop(p, "shop/orders", "capture of shop/orders"); h.Source != gateway || !decided(h, true) || h.Policy != "shop/orders-callers" && !capture.IsZtunnel() {
		t.Errorf("gateway to backend: %+v", h)
	}

	p = play(w.Deny(ctx))
	if at := hop(p, w.Decider(), w.DecidedBy()); !decided(at, false) || at.Policy != "shop/close-orders" || at.Source != gateway {
		t.Errorf("denied by %+v", at)
	}
	play(w.Allow(ctx))

	p = play(w.FromImpostor(ctx))
	if at := hop(p, w.Decider(), w.DecidedBy()); p.Status == 200 || !decided(at, false) || at.Source != impostor {
		t.Errorf("the impostor got %d: %+v", p.Status, at)
	}

	before, err := state.Read(ctx, w.Config)
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
	now, err := state.Read(ctx, w.Config)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range before.Diff(now) { // the gateway of an author who needs no capture is left alone
		if d != "referencegrants.gateway.networking.k8s.io shop/edges is new" && d != "ambientedges.isthmus.dev edge/native is new" {
			t.Errorf("edge/native has written: %s", d)
		}
	}
	p = play(w.FromOutside(ctx, story.Native))
	if at := hop(p, w.Decider(), w.DecidedBy()); p.Status != 200 || p.Clear || at.Source != native || !decided(at, true) {
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
	// A connection that the gateway has kept leads through the mesh until its capture has ended.
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if p, err = w.FromOutside(ctx, story.Plain); err != nil {
			t.Fatal(err)
		}
		if p.Status == shut {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("after undo: %+v, want %d again", p, shut)
		}
	}
}

// decided says whether a decision is known of a hop, and is this one.
func decided(h story.Hop, allowed bool) bool { return h.Allowed != nil && *h.Allowed == allowed }
