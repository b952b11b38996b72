package soak

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/e2e/story"
)

// events are what happens to the world in turn.
type events struct {
	w    *story.World
	load *load
	long bool // there is time to let each state last
}

// event is one of them. It returns when the world is as it was, and all phases but its own are over.
type event struct {
	name     string
	run      func(ctx context.Context) error
	restarts bool // processes begin a new life by it
}

// choose those of a comma-separated list, or all.
func (e *events) choose(names string) ([]event, error) {
	all := []event{
		{"backend rollout", e.rollBackend, true},
		{"policy", e.denyAndAllow, false},
		{"istiod away", e.istiodAway, false},
		{"gateway rollout", e.rollGateway, true},
		{"edge away", e.edgeAway, true},
		{"controller killed", e.controllerKilled, true},
	}
	if names == "" {
		return all, nil
	}
	var chosen []event
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(all, func(e event) bool { return e.name == strings.TrimSpace(name) })
		if i < 0 {
			return nil, fmt.Errorf("there is no event %q", name)
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// patience bounds each wait.
const patience = 45 * time.Second

// atRest is what answers are when nothing happens: 200 through both gateways, a refusal for the impostor.
func (e *events) atRest(l *lane, kind string) bool {
	if l.impostor {
		return kind == e.refused()
	}
	return kind == "200"
}

// refused is what a client of a captured pod gets when a policy denies: the waypoint's answer, or without waypoint none at all.
func (e *events) refused() string {
	if e.w.Envoy {
		return "403"
	}
	return "0"
}

// shut is what the captured gateway answers when a policy denies.
func (e *events) shut() string {
	if e.w.Envoy {
		return "403"
	}
	return "502" // its connection is refused
}

// outside is what the captured gateway answers when it is outside of the mesh.
func (e *events) outside() string {
	if e.w.Redirected() {
		return "502" // STRICT refuses it
	}
	return "200"
}

// stay lets a state last.
func (e *events) stay(ctx context.Context) error {
	d := time.Second
	if e.long {
		d = 5 * time.Second
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// until waits for twenty answers of a kind in a row, in every lane that is not native.
func (e *events) until(ctx context.Context, kind func(l *lane) string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, l := range e.load.lanes {
		if l.gateway == story.Native {
			continue
		}
		for row := 0; row < 20; {
			a := e.load.ask(ctx, l, l.http[row%len(l.http)])
			if row++; a.kind != kind(l) {
				row = 0
			}
			if ctx.Err() != nil {
				return fmt.Errorf("%s gets %s (%s), want %s: %w", l.name, a.kind, a.text, kind(l), ctx.Err())
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	return nil
}

// normal waits until everybody gets what he gets at rest.
func (e *events) normal(ctx context.Context) error {
	return e.until(ctx, func(l *lane) string {
		if l.impostor {
			return e.refused()
		}
		return "200"
	})
}

// rollBackend replaces both pods of orders, one by one. Nothing is tolerated: a pod that is to end serves on for two seconds, as its
// preStop hook says, and everybody has learned by then.
func (e *events) rollBackend(ctx context.Context) error {
	e.load.ledger.enter(&phase{event: "backend rollout", name: "backend rollout"})
	return e.roll(ctx, "shop", "orders")
}

// rollGateway replaces the captured gateway. Nothing is tolerated: its preStop hook keeps it until nobody is sent there any more, and a
// client whose kept connection ends sends its request again.
func (e *events) rollGateway(ctx context.Context) error {
	e.load.ledger.enter(&phase{event: "gateway rollout", name: "gateway rollout"})
	return e.roll(ctx, "edge", story.Plain)
}

// roll restarts a Deployment and waits until its former pods are gone.
func (e *events) roll(ctx context.Context, namespace, name string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var before corev1.PodList
	if err := e.w.Client().List(ctx, &before, client.InNamespace(namespace), client.MatchingLabels{"app": name}); err != nil {
		return err
	}
	if _, err := e.w.Run(ctx, "kubectl", "-n", namespace, "rollout", "restart", "deployment/"+name); err != nil {
		return err
	}
	for i := range before.Items {
		if err := e.w.Node.WaitGone(ctx, namespace, before.Items[i].Name); err != nil {
			return err
		}
	}
	_, err := e.w.Run(ctx, "kubectl", "-n", namespace, "rollout", "status", "deployment/"+name)
	return err
}

// denyAndAllow adds a policy against the captured gateway's identity and takes it away again. While it comes and goes that gateway may get
// either answer; in between it must be refused, and the native one, who is somebody else, must not notice.
func (e *events) denyAndAllow(ctx context.Context) error {
	file := "deny"
	if !e.w.Envoy {
		file = "deny-l4"
	}
	captured := func(l *lane) bool { return l.gateway == story.Plain }
	either := func(l *lane, kind string) bool { return captured(l) && kind == e.shut() || e.atRest(l, kind) }
	e.load.ledger.enter(&phase{event: "policy", name: "policy comes", want: either})
	if err := e.w.ApplyFile(ctx, file); err != nil {
		return err
	}
	err := e.until(ctx, func(l *lane) string {
		if l.impostor {
			return e.refused()
		}
		return e.shut()
	})
	if err != nil {
		return err
	}
	e.load.ledger.enter(&phase{event: "policy", name: "policy in force", want: func(l *lane, kind string) bool {
		if captured(l) {
			return kind == e.shut()
		}
		return e.atRest(l, kind)
	}})
	if err := e.stay(ctx); err != nil {
		return err
	}
	e.load.ledger.enter(&phase{event: "policy", name: "policy goes", want: either})
	if err := e.w.DeleteFile(ctx, file); err != nil {
		return err
	}
	return e.normal(ctx)
}

// istiodAway kills istiod and starts it again. Nothing is tolerated: what everybody knows stays in force.
func (e *events) istiodAway(ctx context.Context) error {
	e.load.ledger.enter(&phase{event: "istiod away", name: "istiod away"})
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := e.w.StopIstiod(); err != nil {
		return err
	}
	if err := e.stay(ctx); err != nil {
		return err
	}
	if err := e.w.StartIstiod(ctx); err != nil {
		return err
	}
	return e.stay(ctx)
}

// edgeAway deletes the AmbientEdge, with confirmation, and applies it again. Outside of the mesh the captured gateway is refused by
// STRICT, which it answers with 502. Where there is a waypoint it goes too, and with it the policy against the impostor, as the
// controller has warned. The native gateway is in the mesh without the AmbientEdge: it must not notice, but for two moments. istiod tells
// the waypoint and those who call it at once that a Service is led there, or is no more. Who calls the waypoint before it has heard is cut
// off, and who calls it after it has heard is answered 503.
func (e *events) edgeAway(ctx context.Context) error {
	without := func(l *lane, kind string) bool {
		switch {
		case l.impostor:
			return kind == e.refused() || e.w.Envoy && kind == "200"
		case l.gateway == story.Plain:
			return kind == "200" || kind == "502"
		}
		return kind == "200"
	}
	e.load.ledger.enter(&phase{event: "edge away", name: "edge leaves", want: func(l *lane, kind string) bool {
		return without(l, kind) || e.w.Envoy && kind == "503"
	}})
	halted, _, err := e.w.Leave(ctx)
	if err != nil {
		return err
	}
	if e.w.Envoy != strings.Contains(halted, "shop/orders-callers") {
		return fmt.Errorf("undo halted for %q", halted)
	}
	e.load.ledger.enter(&phase{event: "edge away", name: "edge is away", want: without})
	if err := e.until(ctx, func(l *lane) string {
		switch {
		case !l.impostor:
			return e.outside()
		case e.w.Envoy:
			return "200"
		}
		return e.refused()
	}); err != nil {
		return err
	}
	if err := e.stay(ctx); err != nil {
		return err
	}
	e.load.ledger.enter(&phase{event: "edge away", name: "edge comes", want: func(l *lane, kind string) bool {
		cut := "502"
		if l.impostor {
			cut = "0"
		}
		return without(l, kind) || e.w.Envoy && kind == cut
	}})
	if _, err := e.w.Join(ctx, func(story.Step) {}); err != nil {
		return err
	}
	return e.normal(ctx)
}

// prepare makes two replicas of orders, and lets pods that are to end serve until everybody has learned of it.
func prepare(ctx context.Context, w *story.World) error {
	const linger = `{"spec":{"template":{"spec":{"containers":[{"name":%q,"lifecycle":{"preStop":{"sleep":{"seconds":2}}}}]}}%s}}`
	for _, d := range []struct{ namespace, name, container, more string }{
		{"shop", "orders", "orders", `,"replicas":2,"strategy":{"rollingUpdate":{"maxSurge":1,"maxUnavailable":0}}`},
		{"edge", story.Plain, "gateway", ""},
	} {
		if _, err := w.Run(ctx, "kubectl", "-n", d.namespace, "patch", "deployment", d.name, "-p", fmt.Sprintf(linger, d.container, d.more)); err != nil {
			return err
		}
		if _, err := w.Run(ctx, "kubectl", "-n", d.namespace, "rollout", "status", "deployment/"+d.name, "--timeout=60s"); err != nil {
			return err
		}
	}
	// The mesh and its gateway settle before anybody counts.
	if _, err := w.Strict(ctx); err != nil {
		return err
	}
	_, err := w.Join(ctx, func(story.Step) {})
	return err
}
