package story

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/e2e/capture"
)

// teller plays the story for people.
type teller struct {
	*World
	out io.Writer
	n   int
}

// Tell plays the story and writes what was seen. An error says where the story went another way.
func (w *World) Tell(ctx context.Context, out io.Writer) error {
	t := &teller{World: w, out: out}
	for _, scene := range []func(context.Context) error{t.outside, t.strict, t.inside, t.denied, t.stranger, t.native, t.undone} {
		if err := scene(ctx); err != nil {
			return fmt.Errorf("scene %d: %w", t.n, err)
		}
	}
	return nil
}

// scene begins a scene.
func (t *teller) scene(format string, args ...any) {
	t.n++
	fmt.Fprintf(t.out, "\n%d. %s\n", t.n, fmt.Sprintf(format, args...))
}

func (t *teller) say(format string, args ...any) { fmt.Fprintf(t.out, "   "+format+"\n", args...) }

func (t *teller) outside(ctx context.Context) error {
	t.scene("The gateway is outside the mesh, the shop is in it.")
	p, err := t.FromOutside(ctx, Plain)
	if err != nil {
		return err
	}
	t.passage("client > edge/gateway", p)
	if p.Clear {
		t.say("Anybody on the wire can read GET %s, and shop/orders does not know who calls.", p.Path)
	}
	if t.Envoy {
		t.say("AuthorizationPolicy shop/orders-callers says who may call; without a waypoint nobody enforces it.")
	}
	return nil
}

func (t *teller) strict(ctx context.Context) error {
	t.scene("The shop turns to STRICT: PeerAuthentication shop/default.")
	p, err := t.Strict(ctx)
	if err != nil {
		return err
	}
	t.passage("client > edge/gateway", p)
	if !t.Redirected() {
		t.say("Nobody refuses plaintext on this machine: that takes nftables.")
		return nil
	}
	t.say("Plaintext is refused now, and the shop is down for its customers.")
	return nil
}

func (t *teller) inside(ctx context.Context) error {
	t.scene("AmbientEdge edge/public is applied. isthmus plan said before:")
	text, err := t.Plan(ctx)
	if err != nil {
		return err
	}
	if at := strings.Index(text, "STEP "); at >= 0 {
		text = text[at:]
	}
	for line := range strings.Lines(strings.TrimRight(text, "\n")) {
		t.say("%s", strings.TrimRight(line, "\n"))
	}
	t.say("and this is what happens:")
	took, err := t.Join(ctx, func(s Step) {
		if s.State == v1alpha1.StepDone {
			t.say("%5.2f s  %-8s %-24s %s", s.After.Seconds(), s.Verb, s.Object, s.Reason)
		}
	})
	if err != nil {
		return err
	}
	t.say("Ready after %.1f s. The same gateway, not restarted:", took.Seconds())
	p, err := t.FromOutside(ctx, Plain)
	if err != nil {
		return err
	}
	t.passage("client > edge/gateway", p)
	if p.Clear {
		return errors.New("the request can be read on the wire")
	}
	t.say("Nothing of it can be read on the wires of gateway and backend.")
	return nil
}

func (t *teller) denied(ctx context.Context) error {
	t.scene("A policy is added: AuthorizationPolicy shop/close-orders, DENY for the gateway's identity.")
	p, err := t.Deny(ctx)
	if err != nil {
		return err
	}
	t.passage("client > edge/gateway", p)
	if p, err = t.Allow(ctx); err != nil {
		return err
	}
	t.say("It is taken away again: %d.", p.Status)
	return nil
}

func (t *teller) stranger(ctx context.Context) error {
	t.scene("An impostor, a pod in the mesh that is not the gateway, calls orders.")
	p, err := t.FromImpostor(ctx)
	if err != nil {
		return err
	}
	t.passage("edge/impostor", p)
	if p.Status == 200 {
		return errors.New("the impostor was let in")
	}
	return nil
}

func (t *teller) native(ctx context.Context) error {
	t.scene("Beside it, a gateway that embeds hbone (%d lines): AmbientEdge edge/native, capture Native.", nativeLines())
	e, took, err := t.JoinNative(ctx)
	if err != nil {
		return err
	}
	for _, g := range e.Status.Gateways {
		t.say("Ready after %.1f s: %d of %d pods are captured. That it speaks HBONE itself is assumed, and seen:", took.Seconds(), g.Captured, g.Pods)
	}
	p, err := t.FromOutside(ctx, Native)
	if err != nil {
		return err
	}
	t.passage("client > edge/native-gateway", p)
	if p.Status != 200 || p.Clear {
		return fmt.Errorf("the native gateway got %d; readable on the wire: %t", p.Status, p.Clear)
	}
	return nil
}

func (t *teller) undone(ctx context.Context) error {
	t.scene("AmbientEdge edge/native is deleted, then edge/public.")
	if err := t.LeaveNative(ctx); err != nil {
		return err
	}
	halted, took, err := t.Leave(ctx)
	if err != nil {
		return err
	}
	if halted != "" {
		t.say("It halts: %s.", strings.TrimPrefix(halted, "undo waits: "))
		t.say("Confirmed, by annotation isthmus.dev/undo.")
	}
	diff, err := t.Same(ctx, t.before)
	if err != nil {
		return err
	}
	if len(diff) > 0 {
		return fmt.Errorf("the world is not as it was: %s", strings.Join(diff, "; "))
	}
	t.say("Undone after %.1f s: each of %d objects is as it was before the AmbientEdges.", took.Seconds(), len(t.before))
	return nil
}

// passage tells of a request, hop by hop.
func (t *teller) passage(from string, p *Passage) {
	result := fmt.Sprint(p.Status)
	if p.Status == 0 {
		result = p.Err
	}
	t.say("%s: %s", from, result)
	for _, h := range p.Hops {
		t.say("  %s", h.line())
	}
}

// line is a hop for people.
func (h *Hop) line() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s > %s  ", h.From, h.To)
	switch {
	case h.Allowed == nil && h.Peer != "":
		fmt.Fprintf(&b, "HBONE as %s to %s", short(h.Source), short(h.Peer))
	case h.Source != "":
		b.WriteString(short(h.Source))
	case h.Transport == capture.Plaintext:
		b.WriteString("plaintext, caller unknown")
	}
	if h.Allowed != nil {
		word := " allowed"
		if !*h.Allowed {
			word = " denied"
		}
		if h.Source == "" {
			word = "," + word
		}
		b.WriteString(word)
		switch {
		case h.Policy != "":
			b.WriteString(" by " + strings.TrimPrefix(h.Policy, "istio-system/"))
		case !*h.Allowed:
			b.WriteString(": no ALLOW policy matches")
		default:
			b.WriteString(": no policy asks")
		}
	}
	if h.Error != "" {
		b.WriteString("; " + h.Error)
	}
	return b.String()
}
