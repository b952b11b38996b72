package story

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/e2e/story/state"
)

// edgeKey is the AmbientEdge of the captured gateway, and nativeKey that of the one that speaks HBONE itself.
func edgeKey() types.NamespacedName   { return types.NamespacedName{Namespace: "edge", Name: "public"} }
func nativeKey() types.NamespacedName { return types.NamespacedName{Namespace: "edge", Name: "native"} }

// wait bounds what a scene waits for.
const wait = 30 * time.Second

// Strict makes the shop refuse plaintext, and returns what then comes of a request through the gateway: where plaintext is not Redirected
// nobody refuses it.
func (w *World) Strict(ctx context.Context) (*Passage, error) {
	if err := w.ApplyFile(ctx, "strict"); err != nil {
		return nil, err
	}
	want := 502
	if !w.Redirected() {
		want = 200
	}
	p, err := w.becomes(ctx, want, func() (*Passage, error) { return w.FromOutside(ctx, Plain) })
	if err == nil {
		w.before, err = state.Read(ctx, w.Config)
	}
	return p, err
}

// Before is every object before the AmbientEdge came, as Strict left them.
func (w *World) Before() state.Objects { return w.before }

// Deny adds a policy against the gateway's identity, and returns what then comes of a request.
func (w *World) Deny(ctx context.Context) (*Passage, error) {
	if err := w.ApplyFile(ctx, w.DenyFile()); err != nil {
		return nil, err
	}
	want := 403
	if !w.Envoy {
		want = 502 // the gateway's connection is refused
	}
	return w.becomes(ctx, want, func() (*Passage, error) { return w.FromOutside(ctx, Plain) })
}

// Allow takes Deny back.
func (w *World) Allow(ctx context.Context) (*Passage, error) {
	if err := w.DeleteFile(ctx, w.DenyFile()); err != nil {
		return nil, err
	}
	return w.becomes(ctx, 200, func() (*Passage, error) { return w.FromOutside(ctx, Plain) })
}

// DenyFile is the file with the policy of Deny, for ApplyFile.
func (w *World) DenyFile() string {
	if w.Envoy {
		return "deny"
	}
	return "deny-l4"
}

// becomes repeats send until its status is want: what has been applied takes a moment to reach everybody.
func (w *World) becomes(ctx context.Context, want int, send func() (*Passage, error)) (*Passage, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, wait, fmt.Errorf("waited %v", wait))
	defer cancel()
	var p *Passage
	err := until(ctx, func() error {
		got, err := send()
		if err != nil {
			return err
		}
		p = got
		if p.Status != want {
			return fmt.Errorf("the request is answered with %d (%s), want %d; hops %s", p.Status, p.Err, want, describe(p.Hops))
		}
		return nil
	})
	return p, err
}

func describe(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Plan runs isthmus plan on the AmbientEdge that is not applied yet, and returns what it printed.
func (w *World) Plan(ctx context.Context) (string, error) {
	text, err := files.ReadFile("manifests/" + w.EdgeFile() + ".yaml")
	if err != nil {
		return "", err
	}
	cmd := w.Command(ctx, w.Binary, "plan", "-f", "-")
	var stdout, stderr strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(string(text)), &stdout, &stderr
	if err := w.NS.Start(cmd); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("isthmus plan: %w: %s", err, stderr.String())
	}
	return stdout.String(), nil
}

// EdgeFile is the file with the AmbientEdge, for ApplyFile.
func (w *World) EdgeFile() string {
	if w.Envoy {
		return "ambientedge"
	}
	return "ambientedge-l4"
}

func (w *World) nativeFile() string {
	if w.Envoy {
		return "ambientedge-native"
	}
	return "ambientedge-native-l4"
}

// Step is a step of the plan when its state changed.
type Step struct {
	v1alpha1.Step
	After time.Duration // since the AmbientEdge was applied
}

// Join applies the AmbientEdge and waits until it is ready; step is told of each step as its state changes. It returns how long that took.
func (w *World) Join(ctx context.Context, step func(Step)) (time.Duration, error) {
	_, took, err := w.join(ctx, w.EdgeFile(), edgeKey(), step)
	return took, err
}

// JoinNative applies the AmbientEdge of the native gateway, and returns it as it is when it is ready, and how long that took.
func (w *World) JoinNative(ctx context.Context) (*v1alpha1.AmbientEdge, time.Duration, error) {
	return w.join(ctx, w.nativeFile(), nativeKey(), func(Step) {})
}

func (w *World) join(ctx context.Context, file string, key types.NamespacedName, step func(Step)) (*v1alpha1.AmbientEdge, time.Duration, error) {
	began := time.Now()
	if err := w.ApplyFile(ctx, file); err != nil {
		return nil, 0, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, wait, fmt.Errorf("waited %v", wait))
	defer cancel()
	states := map[string]string{}
	var e v1alpha1.AmbientEdge
	err := until(ctx, func() error {
		if err := w.edges.Get(ctx, key, &e); err != nil {
			return err
		}
		for _, s := range e.Status.Plan.Steps {
			if states[s.ID] != string(s.State) {
				states[s.ID] = string(s.State)
				step(Step{Step: s, After: time.Since(began)})
			}
		}
		return ready(&e)
	})
	return &e, time.Since(began), err
}

// ready is an error that says why an AmbientEdge is not.
func ready(e *v1alpha1.AmbientEdge) error {
	for _, c := range e.Status.Conditions {
		if c.Type == v1alpha1.ConditionReady {
			if c.Status == "True" && c.ObservedGeneration == e.Generation {
				return nil
			}
			return fmt.Errorf("not ready: %s: %s; findings %s", c.Reason, c.Message, describe(e.Status.Findings))
		}
	}
	return errors.New("the controller has not reported yet")
}

// Leave deletes the AmbientEdge. Where policies depend on the waypoint the controller halts first, until that is confirmed; halted
// is what it said then, or "".
func (w *World) Leave(ctx context.Context) (halted string, took time.Duration, err error) {
	return w.leave(ctx, w.EdgeFile(), edgeKey())
}

// LeaveNative deletes the AmbientEdge of the native gateway.
func (w *World) LeaveNative(ctx context.Context) error {
	halted, _, err := w.leave(ctx, w.nativeFile(), nativeKey())
	if err == nil && halted != "" {
		err = fmt.Errorf("the undo of AmbientEdge %s halted, and another edge needs the waypoint as well: %s", nativeKey(), halted)
	}
	return err
}

func (w *World) leave(ctx context.Context, file string, key types.NamespacedName) (halted string, took time.Duration, err error) {
	began := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, wait, fmt.Errorf("waited %v", wait))
	defer cancel()
	if err := w.DeleteFile(ctx, file); err != nil {
		return "", 0, err
	}
	err = until(ctx, func() error {
		var e v1alpha1.AmbientEdge
		err := w.edges.Get(ctx, key, &e)
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, f := range e.Status.Findings {
			if halted == "" && f.Code == v1alpha1.FindingUndoHalted {
				halted = f.Message
				patch := []byte(`{"metadata":{"annotations":{"` + v1alpha1.AnnotationUndo + `":"` + v1alpha1.UndoConfirmed + `"}}}`)
				if err := w.edges.Patch(ctx, &e, client.RawPatch(types.MergePatchType, patch)); err != nil {
					return err
				}
			}
		}
		return fmt.Errorf("still there: %s", describe(e.Status))
	})
	return halted, time.Since(began), err
}

// Same waits until the cluster is what it was, and returns what differs in the end: nothing, if all is well. Things that are
// deleted in the background take a moment.
func (w *World) Same(ctx context.Context, before state.Objects) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	var diff []string
	err := until(ctx, func() error {
		now, err := state.Read(ctx, w.Config)
		if err != nil {
			return err
		}
		if diff = before.Diff(now); len(diff) > 0 {
			return errors.New(strings.Join(diff, "; "))
		}
		return nil
	})
	if len(diff) > 0 {
		err = nil // the difference is the answer
	}
	return diff, err
}
