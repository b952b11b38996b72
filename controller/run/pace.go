package run

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// gather is how long changes for an edge are gathered after one was taken up: the answers to many writes come one by one, and are one thing
// to look at.
const gather = 100 * time.Millisecond

// pace keeps edges from being reconciled more often than is of use, however much happens, or however long nothing does. The zero value is ready.
type pace struct {
	mu sync.Mutex // guards the field below
	of map[types.NamespacedName]*turn
}

// turn is that of an edge.
type turn struct {
	began   time.Time // when it was reconciled last
	running bool
	since   time.Time // when the first change came that it was not reconciled for yet; zero: none has
	plan    digest    // how its plan stood
	same    time.Time // since when it has stood so
}

func (p *pace) turn(e types.NamespacedName) *turn {
	if p.of == nil {
		p.of = map[types.NamespacedName]*turn{}
	}
	if p.of[e] == nil {
		p.of[e] = &turn{}
	}
	return p.of[e]
}

// changed notes that something has changed for an edge, and says how long it may wait for more.
func (p *pace) changed(e types.NamespacedName) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	t, now := p.turn(e), time.Now()
	if t.since.IsZero() {
		t.since = now
	}
	if t.running {
		return gather
	}
	return max(0, gather-now.Sub(t.began))
}

// begin a reconciliation. It says since when a change has waited for it; zero if none has.
func (p *pace) begin(e types.NamespacedName) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.turn(e)
	since := t.since
	t.began, t.running, t.since = time.Now(), true, time.Time{}
	return since
}

// end it. A change since then is still to be answered; zero: none is.
func (p *pace) end(e types.NamespacedName, since time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.of[e]
	if t == nil {
		return // it is gone
	}
	t.running = false
	if !since.IsZero() {
		t.since = since
	}
}

// waits says how soon to look again at an edge whose plan waits, and stands so: soon, as long as it may be a matter of moments. Later on it is asked once in
// a while only what no watch tells, whether a waypoint answers.
func (p *pace) waits(e types.NamespacedName, stands digest) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	t, now := p.turn(e), time.Now()
	if t.plan != stands {
		t.plan, t.same = stands, now
	}
	if now.Sub(t.same) < patience {
		return soon
	}
	return while
}

// standing tells how a plan stands: what is done, waits and is wrong. What a reason says behind its first colon is told by others, and may be another each
// time that they are asked.
func standing(e *v1alpha1.AmbientEdge, p *plan.Plan) digest {
	h := sha256.New()
	fmt.Fprintln(h, e.Generation)
	for i := range p.Steps {
		s := &p.Steps[i]
		reason, _, _ := strings.Cut(s.Reason, ":")
		fmt.Fprintf(h, "%q %q %q\n", s.ID, s.State, reason)
	}
	for i := range p.Findings {
		f := &p.Findings[i]
		fmt.Fprintf(h, "%q %q %q\n", f.Code, f.Object, f.Severity)
	}
	return digest(h.Sum(nil))
}

// forget an edge that is gone.
func (p *pace) forget(e types.NamespacedName) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.of, e)
}
