package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// Istio's labels by which a share of requests goes to another waypoint, and the annotation that says how much of them, in per cent.
const (
	LabelCanary          = "istio.io/use-waypoint-canary"
	LabelCanaryNamespace = "istio.io/use-waypoint-canary-namespace"
	AnnotationCanary     = "istio.io/use-waypoint-canary-weight"
)

// CanaryOf is the canary waypoint that the labels of a Service, or of a namespace, name. It reports whether there is one.
func CanaryOf(namespace string, labels map[string]string) (types.NamespacedName, bool) {
	name := labels[LabelCanary]
	if name == "" || name == modeNone {
		return types.NamespacedName{}, false
	}
	return types.NamespacedName{Namespace: cmp.Or(labels[LabelCanaryNamespace], namespace), Name: name}, true
}

// canary is a second waypoint of a backend.
type canary struct {
	key    types.NamespacedName
	by     string // the object that names it; empty: there is none
	weight string // what the annotation says
	weighs string // the object that has it; empty: none has, and its weight is 0 as yet
}

// canaried is the canary that a backend has, or will have, beside its waypoint. As istiod does, it looks at the Service before its namespace, for the name as
// for the weight, and at the namespace only where that leads the Service to its waypoint.
func (m *maker) canaried(b *backend) (c canary) {
	type carries struct {
		object metav1.Object
		kind   string
	}
	list := []carries{{b.service, "Service"}}
	if ns := m.namespace(b.key.Namespace); ns != nil && m.way(b) == nil {
		list = append(list, carries{ns, "Namespace"})
	}
	for _, at := range list {
		if _, names := at.object.GetLabels()[LabelCanary]; names { // be it that there is none
			if key, is := CanaryOf(b.key.Namespace, at.object.GetLabels()); is {
				c.key, c.by = key, object(at.kind, keyOf(at.object))
			}
			break
		}
	}
	for _, at := range list {
		if text, weighs := at.object.GetAnnotations()[AnnotationCanary]; weighs {
			c.weight, c.weighs = text, object(at.kind, keyOf(at.object))
			break
		}
	}
	return c
}

// canaries sees that the canaries of backends answer, as a share of requests goes there with the wiring, and finds those that take no part.
func (m *maker) canaries(chosen map[types.NamespacedName]bool) {
	also := map[types.NamespacedName][]string{}
	for _, b := range m.backends {
		if b.hidden || !b.wanted {
			continue
		}
		c := m.canaried(b)
		if c.by == "" || c.key == b.waypoint {
			continue
		}
		weight, err := strconv.Atoi(c.weight)
		f := v1alpha1.Finding{Code: v1alpha1.FindingCanary, Severity: v1alpha1.SeverityWarning, Object: c.by}
		switch {
		case c.weighs != "" && (err != nil || weight < 0 || weight > 100):
			f.Object, f.Field = c.weighs, "metadata.annotations["+AnnotationCanary+"]"
			f.Message = fmt.Sprintf("%q is no number from 0 to 100: canary %s gets nothing, and all requests go to waypoint %s", c.weight, c.key, b.waypoint)
			f.Fix = "write a number of per cent"
		case m.gateway(c.key) == nil && !m.Paper:
			f.Field = "metadata.labels[" + LabelCanary + "]"
			f.Message = fmt.Sprintf("canary %s does not exist: all requests go to waypoint %s", c.key, b.waypoint)
			f.Fix = "create it, or correct the label"
		default:
			if !chosen[c.key] && m.gateway(c.key) != nil && (c.weighs == "" || weight > 0) {
				also[c.key] = append(also[c.key], b.String())
			}
			continue
		}
		m.once(f)
	}
	for _, key := range slices.SortedFunc(maps.Keys(also), compareKeys) {
		m.about(also[key], func() { m.awaitWaypoint(key, also[key]) })
	}
}
