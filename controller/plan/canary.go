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

// canaried is the object by which a backend has, or will have, a canary beside its waypoint: the Service itself, or else its namespace. nil: it has none.
func (m *maker) canaried(b *backend) (o metav1.Object, kind string, canary types.NamespacedName) {
	if key, is := CanaryOf(b.key.Namespace, b.service.Labels); is {
		return b.service, "Service", key
	}
	if ns := m.namespace(b.key.Namespace); ns != nil && b.service.Labels[LabelUseWaypoint] == "" {
		if key, is := CanaryOf(ns.Name, ns.Labels); is {
			return ns, "Namespace", key
		}
	}
	return nil, "", types.NamespacedName{}
}

// canaries sees that the canaries of backends answer, as a share of requests goes there with the wiring, and finds those that take no part.
func (m *maker) canaries(chosen map[types.NamespacedName]bool) {
	also := map[types.NamespacedName][]string{}
	for _, b := range m.backends {
		if b.hidden || !b.wanted {
			continue
		}
		o, kind, key := m.canaried(b)
		if o == nil || key == b.waypoint {
			continue
		}
		text, weighs := o.GetAnnotations()[AnnotationCanary]
		weight, err := strconv.Atoi(text)
		f := v1alpha1.Finding{Code: v1alpha1.FindingCanary, Severity: v1alpha1.SeverityWarning, Object: object(kind, keyOf(o))}
		switch {
		case weighs && (err != nil || weight < 0 || weight > 100):
			f.Field = "metadata.annotations[" + AnnotationCanary + "]"
			f.Message = fmt.Sprintf("%q is no number from 0 to 100: canary %s gets nothing, and all requests go to waypoint %s", text, key, b.waypoint)
			f.Fix = "write a number of per cent"
		case m.gateway(key) == nil && !m.Paper:
			f.Field = "metadata.labels[" + LabelCanary + "]"
			f.Message = fmt.Sprintf("canary %s does not exist: all requests go to waypoint %s", key, b.waypoint)
			f.Fix = "create it, or correct the label"
		default:
			if !chosen[key] && m.gateway(key) != nil && (!weighs || weight > 0) {
				also[key] = append(also[key], b.String())
			}
			continue
		}
		m.once(f)
	}
	for _, key := range slices.SortedFunc(maps.Keys(also), compareKeys) {
		m.about(also[key], func() { m.awaitWaypoint(key, also[key]) })
	}
}
