package run

import (
	"fmt"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

const (
	// bouts is how often the same is written within truce: when somebody else has taken it away so often, he means it.
	bouts = 2
	truce = 10 * time.Minute
	// lag is how long a cache may take to show what was created, and stale how long it is waited for to show a version: they may begin anew
	// where a cluster is restored.
	lag   = 2 * time.Second
	stale = time.Minute
)

// fights remembers what was written for each edge, and how often it was the same. The zero value remembers nothing.
type fights struct {
	mu sync.Mutex // guards the field below
	of map[types.NamespacedName]*fight
}

// fight is about one state of an AmbientEdge: whoever changes it starts anew.
type fight struct {
	about string
	wrote map[digest]*bout
}

// bout is one write, made once or more.
type bout struct {
	version string // of the object, after the last
	times   []time.Time
}

// about tells one spec of an AmbientEdge, and what its annotations confirm, from another.
func about(e *v1alpha1.AmbientEdge) string {
	return fmt.Sprint(e.UID, e.Generation, e.DeletionTimestamp != nil, e.Annotations)
}

// state of a write that is wanted.
type state int

const (
	wanted  state = iota // make it
	pending              // it was made, and the cache does not show it yet
	lost                 // it was made, and taken back, too often
)

// look says how a write stands whose object is now as o; nil: it is not there.
func (f *fights) look(e *v1alpha1.AmbientEdge, d digest, o metav1.Object) state {
	f.mu.Lock()
	defer f.mu.Unlock()
	it := f.of[client.ObjectKeyFromObject(e)]
	if it == nil || it.about != about(e) || it.wrote[d] == nil {
		return wanted
	}
	b := it.wrote[d]
	now := time.Now()
	for len(b.times) > 0 && now.Sub(b.times[0]) > truce {
		b.times = b.times[1:]
	}
	if len(b.times) == 0 {
		return wanted
	}
	switch ago := now.Sub(b.times[len(b.times)-1]); {
	case o != nil && older(o.GetResourceVersion(), b.version) && ago < stale, o == nil && ago < lag:
		return pending
	case len(b.times) >= bouts:
		return lost
	}
	return wanted
}

// add notes that a write was made, with the version of its object.
func (f *fights) add(e *v1alpha1.AmbientEdge, d digest, version string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := client.ObjectKeyFromObject(e)
	if f.of == nil {
		f.of = map[types.NamespacedName]*fight{}
	}
	if f.of[key] == nil || f.of[key].about != about(e) {
		f.of[key] = &fight{about: about(e), wrote: map[digest]*bout{}}
	}
	wrote := f.of[key].wrote
	if wrote[d] == nil {
		wrote[d] = &bout{}
	}
	wrote[d].version = version
	wrote[d].times = append(wrote[d].times, time.Now())
}

func (f *fights) forget(e types.NamespacedName) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.of, e)
}

// left are the writes that are to be made: not those which the cache does not show yet, nor those that somebody else takes back again and again, which are
// handed to given.
func (f *fights) left(e *v1alpha1.AmbientEdge, s *plan.Snapshot, writes []*plan.Write, given func(*plan.Write, error)) ([]*plan.Write, error) {
	var list []*plan.Write
	for _, w := range writes {
		d, err := digestOf(w)
		if err != nil {
			return nil, err
		}
		o := objectOf(s, w)
		switch f.look(e, d, o) {
		case wanted:
			list = append(list, w)
		case lost:
			by, at := lastManager(o)
			given(w, &lostError{edge: client.ObjectKeyFromObject(e), object: w.String(), manager: by, at: at, gone: o == nil})
		}
	}
	return list, nil
}

// lostError says that a write is not made, as somebody else has taken it back too often.
type lostError struct {
	edge            types.NamespacedName
	object, manager string
	at              time.Time // when manager changed it last
	gone            bool      // the object is not there
}

func (e *lostError) Error() string {
	by := "somebody else (who takes a field away leaves no name: the API server's audit log has it)"
	switch {
	case e.gone:
		by = "somebody who deleted it (the object is gone, and only the API server's audit log says by whom)"
	case e.manager != "":
		by = fmt.Sprintf("somebody else (%q changed it last, at %s)", e.manager, e.at.UTC().Format(time.RFC3339))
	}
	return fmt.Sprintf("write %s: it was taken back %d times within %v by %s; it is not written again", e.object, bouts, truce, by)
}

func (e *lostError) finding() v1alpha1.Finding {
	return v1alpha1.Finding{
		Code: v1alpha1.FindingFight, Severity: v1alpha1.SeverityError, Object: e.object, Message: e.Error(),
		Fix: fmt.Sprintf("let it stand there, or take the object from what this AmbientEdge is about; it is tried again when the AmbientEdge changes, or after %v: "+
			"kubectl annotate --overwrite ambientedge -n %s %s %s=$(date +%%s)", truce, e.edge.Namespace, e.edge.Name, v1alpha1.AnnotationRetry),
	}
}

// objectOf is the object that a write is about, as it was seen. Nil: it was not.
func objectOf(s *plan.Snapshot, w *plan.Write) metav1.Object {
	switch w.Kind {
	case "Namespace":
		return find(s.Namespaces, w)
	case "Service":
		return find(s.Services, w)
	case "Deployment":
		return find(s.Deployments, w)
	case "DaemonSet":
		return find(s.DaemonSets, w)
	case "Gateway":
		return find(s.Gateways, w)
	case "Ingress":
		return find(s.Ingresses, w)
	case "AuthorizationPolicy":
		for _, o := range s.Policies {
			if client.ObjectKeyFromObject(o) == w.Key {
				return o
			}
		}
	default:
		group, _, _ := strings.Cut(w.APIVersion, "/")
		for _, o := range s.Objects { // of vendors
			if k := o.GroupVersionKind(); k.Kind == w.Kind && k.Group == group && client.ObjectKeyFromObject(o) == w.Key {
				return o
			}
		}
	}
	return nil
}

func find[T any, P interface {
	*T
	metav1.Object
}](list []T, w *plan.Write) metav1.Object {
	for i := range list {
		if o := P(&list[i]); o.GetNamespace() == w.Key.Namespace && o.GetName() == w.Key.Name {
			return o
		}
	}
	return nil
}

// lastManager is who of others wrote to an object last, and when.
func lastManager(o metav1.Object) (name string, last time.Time) {
	if o == nil {
		return "", last
	}
	for _, m := range o.GetManagedFields() {
		if m.Time != nil && m.Time.After(last) && !strings.HasPrefix(m.Manager, v1alpha1.FieldOwnerPrefix) {
			name, last = m.Manager, m.Time.Time
		}
	}
	return name, last
}
