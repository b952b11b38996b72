package run

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// reports remembers what was reported last for an edge: the cache may not have it yet, and whoever compares with an older status tells of
// a step twice, or of one that was done meanwhile never. The zero value remembers nothing.
type reports struct {
	mu   sync.Mutex // guards the field below
	last map[types.NamespacedName]report
}

// report is a status of the AmbientEdge with this UID.
type report struct {
	uid    types.UID
	status v1alpha1.AmbientEdgeStatus
}

// before is the status that was reported last, or the one of e where we have not reported on it.
func (r *reports) before(e *v1alpha1.AmbientEdge) v1alpha1.AmbientEdgeStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	if last, ok := r.last[client.ObjectKeyFromObject(e)]; ok && last.uid == e.UID {
		return last.status
	}
	return e.Status
}

// add remembers that e.Status was reported.
func (r *reports) add(e *v1alpha1.AmbientEdge) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == nil {
		r.last = map[types.NamespacedName]report{}
	}
	r.last[client.ObjectKeyFromObject(e)] = report{e.UID, *e.Status.DeepCopy()}
}

// forget what was reported for an edge that is gone.
func (r *reports) forget(key types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.last, key)
}
