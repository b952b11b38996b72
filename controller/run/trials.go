package run

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/apply"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// trials remembers which writes the API server has let through on trial. The zero value remembers none.
type trials struct {
	mu     sync.Mutex // guards the field below; not held across I/O
	passed map[types.NamespacedName]map[digest]bool
}

// digest tells one write from another.
type digest [sha256.Size]byte

// laterError is a refusal of a write that waits for others of its plan.
type laterError struct{ err error }

func (e *laterError) Error() string {
	return e.err.Error() + " (the write of a later step, tried ahead)"
}

// Unwrap gives the refusal.
func (e *laterError) Unwrap() error { return e.err }

// all tries the writes of a plan that have not been let through yet, those of later steps too, so that what the API server would refuse
// half-way is not begun. It blocks for two requests at most for each; Services are tried together, and a Service once with all that it is to
// get. What somebody has to do something about is handed to refused, and tried again the next time; so is all after an error of another kind.
//
// Later writes are tried against a state in which the steps before them are still to be done, and may be refused for that alone. Whoever
// knows this says so by AnnotationBegin, and only the writes that come next are tried.
func (t *trials) all(ctx context.Context, c client.Client, e *v1alpha1.AmbientEdge, p *plan.Plan, refused func(*plan.Write, error)) error {
	key := client.ObjectKeyFromObject(e)
	t.mu.Lock()
	before := t.passed[key]
	t.mu.Unlock()
	now, ahead := p.Writes(), p.Ahead()
	if e.Annotations[v1alpha1.AnnotationBegin] == v1alpha1.BeginConfirmed {
		ahead = now
	}
	var digests []digest // of those that are tried; those that have left the plan are forgotten
	var open []*plan.Write
	for i, w := range ahead {
		if covered(w, ahead[i+1:]) {
			continue
		}
		d, err := digestOf(w)
		if err != nil {
			return err
		}
		if digests = append(digests, d); !before[d] {
			open = append(open, w)
		}
	}
	passed := map[digest]bool{}
	for _, d := range digests {
		passed[d] = true
	}
	for _, batch := range batches(open) {
		left := p.Ahead()
		batch = slices.DeleteFunc(batch, func(w *plan.Write) bool { return !slices.Contains(left, w) }) // what depends on one that was refused
		answers := make([]error, len(batch))
		err := each(len(batch), atOnce, func(i int) error {
			err := try(ctx, c, e, batch[i], now)
			if _, told := stop(e, false, err); told {
				answers[i] = err
				return nil
			}
			return err
		})
		if err != nil {
			t.forget(key)
			return err
		}
		for i, err := range answers {
			if err == nil {
				continue
			}
			if !p.Apart(batch[i]) { // which stops all that would be tried after it
				t.forget(key)
				refused(batch[i], err)
				return nil
			}
			if d, err := digestOf(batch[i]); err == nil {
				delete(passed, d)
			}
			refused(batch[i], err)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.passed == nil {
		t.passed = map[types.NamespacedName]map[digest]bool{}
	}
	t.passed[key] = passed
	return nil
}

// try one write, in place of those that it covers too. now are those whose turn it is.
func try(ctx context.Context, c client.Client, e *v1alpha1.AmbientEdge, w *plan.Write, now []*plan.Write) error {
	err := apply.Try(ctx, c, e, w)
	if err == nil || slices.Contains(now, w) {
		return err
	}
	for _, first := range now {
		if covered(first, []*plan.Write{w}) {
			if err := apply.Try(ctx, c, e, first); err != nil {
				return err
			}
		}
	}
	return &laterError{err}
}

// covered says whether a later write has all fields of one to the same object: what lets that through lets this through. A write without
// fields takes some away, which is another matter.
func covered(w *plan.Write, later []*plan.Write) bool {
	return len(w.Fields) > 0 && w.UID != "" && slices.ContainsFunc(later, func(l *plan.Write) bool {
		return !l.Delete && l.UID == w.UID && l.Kind == w.Kind && l.Key == w.Key && has(l.Fields, w.Fields)
	})
}

// has says whether all fields are among others, with the same values.
func has(all, fields map[string]any) bool {
	for key, value := range fields {
		inner, isMap := value.(map[string]any)
		other, isToo := all[key].(map[string]any)
		if isMap && (!isToo || !has(other, inner)) || !isMap && !equality.Semantic.DeepEqual(all[key], value) {
			return false
		}
	}
	return true
}

// forget what was let through for an edge: it says nothing about what comes.
func (t *trials) forget(key types.NamespacedName) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.passed, key)
}

func digestOf(w *plan.Write) (digest, error) {
	text, err := json.Marshal(w)
	if err != nil {
		return digest{}, fmt.Errorf("encode %s: %w", w, err)
	}
	return sha256.Sum256(text), nil
}
