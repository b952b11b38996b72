package check

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

func findGatewayNamespaces(w *World, found func(Finding)) {
	all := w.crossings()
	for i := range all {
		c := &all[i]
		v := c.view
		if v.Object == nil || len(v.Pods) == 0 || len(c.ids) == 0 || slices.ContainsFunc(v.Pods, func(p *plan.Pod) bool { return p.Namespace == v.Key.Namespace }) {
			continue
		}
		_, refused := w.refused(c)
		if !refused && len(w.pods[v.Key.Namespace]) > 0 {
			continue // others of that namespace may be meant
		}
		for _, ref := range w.policiesOf(c.backend.Service) {
			p := w.guard().byRef[ref]
			if p == nil || !refused && p.Spec.Action == actionAllow {
				continue
			}
			for _, l := range lists(p) {
				if l.not || !namesNamespace(&l, p.Namespace, v.Key.Namespace) {
					continue
				}
				what := "is not let in by this"
				if p.Spec.Action != actionAllow {
					what = "is not what this is about"
				}
				f := Finding{
					Severity: v1alpha1.SeverityError, Object: accessObject(p), Field: l.field, Related: []Object{c.object(), serviceNamed(c.backend.Key)},
					Message: fmt.Sprintf("this names namespace %s, where %s is, and its pods run in namespace %s: what the gateway sends to %s comes from %s, and %s",
						v.Key.Namespace,
						c.object(), v.Pods[0].Namespace, c.backend.Key, principalText(c.ids[0]), what),
					Fix: "name principal " + principalText(c.ids[0]) + " in its place",
				}
				if !refused {
					f.Severity = v1alpha1.SeverityWarning
				}
				found(f)
			}
		}
	}
}

// policiesOf are the policies that are enforced for a Service, at its waypoint and at its pods.
func (w *World) policiesOf(s *corev1.Service) []policy.Ref {
	var list []policy.Ref
	if waypoint, ok := w.leadsTo(s); ok {
		list = w.behind(waypoint, types.NamespacedName{Namespace: s.Namespace, Name: s.Name}).Policies()
	}
	points, _ := w.pointsOf(s)
	for _, p := range points {
		for _, ref := range p.Policies() {
			if !slices.Contains(list, ref) {
				list = append(list, ref)
			}
		}
	}
	return list
}

// namesNamespace says whether a field of a source names who is in a namespace.
func namesNamespace(l *listed, own, namespace string) bool {
	return slices.ContainsFunc(l.values, func(v string) bool {
		switch l.plainName() {
		case "namespaces":
			return v == namespace
		case "serviceAccounts":
			ns, _, ok := strings.Cut(v, "/")
			return ok && ns == namespace || !ok && own == namespace
		case "principals":
			return strings.Contains(v, "/ns/"+namespace+"/sa/")
		}
		return false
	})
}
