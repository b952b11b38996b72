package run

import (
	"crypto/sha256"
	"encoding/json"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// How long the API server is left alone after a refusal, as no watch tells when it would let a write through: the pause doubles while the
// same object is refused.
const (
	firstPause = 2 * time.Second
	lastPause  = time.Minute
)

// refusals remembers what was refused last for an edge. The zero value remembers nothing.
type refusals struct {
	mu   sync.Mutex // guards the field below
	last map[types.NamespacedName]refusal
}

// refusal is the answer to what was asked.
type refusal struct {
	asked   digest
	finding v1alpha1.Finding
	pause   time.Duration
	until   time.Time
}

// held is the finding of a refusal that still stands, and for how long: the same would be asked, and the pause has not ended. Whoever
// changes the AmbientEdge asks for something else.
func (r *refusals) held(e *v1alpha1.AmbientEdge, p *plan.Plan) (v1alpha1.Finding, time.Duration, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	last, ok := r.last[client.ObjectKeyFromObject(e)]
	left := time.Until(last.until)
	if !ok || left <= 0 || last.asked != asked(e, p) {
		return v1alpha1.Finding{}, 0, false
	}
	return last.finding, left, true
}

// add remembers a refusal, and says how long the pause is.
func (r *refusals) add(e *v1alpha1.AmbientEdge, question digest, f v1alpha1.Finding) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := client.ObjectKeyFromObject(e)
	pause := firstPause
	if last, ok := r.last[key]; ok && last.finding.Code == f.Code && last.finding.Object == f.Object {
		pause = min(2*last.pause, lastPause)
	}
	if r.last == nil {
		r.last = map[types.NamespacedName]refusal{}
	}
	r.last[key] = refusal{asked: question, finding: f, pause: pause, until: time.Now().Add(pause)}
	return pause
}

// forget what was refused for an edge.
func (r *refusals) forget(key types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.last, key)
}

// asked tells what is asked of the API server for an edge: the writes that are left, and what else decides about them.
func asked(e *v1alpha1.AmbientEdge, p *plan.Plan) digest {
	text, err := json.Marshal(struct {
		UID         types.UID
		Generation  int64
		Deleting    bool
		Annotations map[string]string
		Now, Ahead  []*plan.Write
	}{e.UID, e.Generation, e.DeletionTimestamp != nil, e.Annotations, p.Writes(), p.Ahead()})
	if err != nil {
		return digest{} // such a write is an error before it is asked for
	}
	return sha256.Sum256(text)
}
