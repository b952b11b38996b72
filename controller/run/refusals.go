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

// refusals remembers what was refused last for an edge, by the object that was to be written; "" is the AmbientEdge itself. The zero value remembers
// nothing.
type refusals struct {
	mu   sync.Mutex // guards the field below
	last map[types.NamespacedName]map[string]refusal
}

// refusal is the answer to what was asked.
type refusal struct {
	asked   digest
	finding v1alpha1.Finding
	pause   time.Duration
	until   time.Time
}

// hold holds back in a plan what refusals that still stand are about: the same would be asked, and the pause has not ended. Whoever changes the
// AmbientEdge asks for something else. It says how long the shortest pause lasts; zero: there is none.
func (r *refusals) hold(e *v1alpha1.AmbientEdge, p *plan.Plan) (left time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := r.last[client.ObjectKeyFromObject(e)]
	if len(last) == 0 {
		return 0
	}
	if of, ok := last[""]; ok && time.Until(of.until) > 0 && of.asked == asked(e, p, nil) {
		p.Stop(of.finding)
		return time.Until(of.until)
	}
	for _, w := range p.Ahead() {
		of, ok := last[w.String()]
		rest := time.Until(of.until)
		if !ok || rest <= 0 || of.asked != asked(e, p, w) {
			continue
		}
		p.Hold(w, of.finding)
		if left == 0 || rest < left {
			left = rest
		}
	}
	return left
}

// add remembers a refusal, and says how long the pause is.
func (r *refusals) add(e *v1alpha1.AmbientEdge, object string, question digest, f v1alpha1.Finding) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := client.ObjectKeyFromObject(e)
	pause := firstPause
	if last, ok := r.last[key][object]; ok && last.finding.Code == f.Code && last.finding.Object == f.Object {
		pause = min(2*last.pause, lastPause)
	}
	if r.last == nil {
		r.last = map[types.NamespacedName]map[string]refusal{}
	}
	if r.last[key] == nil {
		r.last[key] = map[string]refusal{}
	}
	r.last[key][object] = refusal{asked: question, finding: f, pause: pause, until: time.Now().Add(pause)}
	return pause
}

// keep forgets the refusals of an edge that are not in its plan any more: it went well, or is not wanted.
func (r *refusals) keep(e *v1alpha1.AmbientEdge, p *plan.Plan) {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := r.last[client.ObjectKeyFromObject(e)]
	for object, of := range last {
		if !p.Says(of.finding) {
			delete(last, object)
		}
	}
}

// forget what was refused for an edge.
func (r *refusals) forget(key types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.last, key)
}

// asked tells what is asked of the API server by a write: of one that concerns a backend only that, of one for the whole edge all that are left; and what
// else decides about it.
func asked(e *v1alpha1.AmbientEdge, p *plan.Plan, w *plan.Write) digest {
	question := struct {
		UID         types.UID
		Generation  int64
		Deleting    bool
		Annotations map[string]string
		Writes      []*plan.Write
	}{e.UID, e.Generation, e.DeletionTimestamp != nil, e.Annotations, []*plan.Write{w}}
	if !p.Apart(w) {
		question.Writes = p.Wanted()
	}
	text, err := json.Marshal(question)
	if err != nil {
		return digest{} // such a write is an error before it is asked for
	}
	return sha256.Sum256(text)
}
