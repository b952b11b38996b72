package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// users finds what leads to a waypoint which is about to be deleted, and was not labelled for this edge. heirs are AmbientEdges, as namespace/name, that
// have labelled Services of it. used: something else leads there too, and the waypoint has to stay.
func (m *maker) users(key types.NamespacedName) (heirs []string, used bool) {
	g := m.gateway(key)
	var names []string
	leads := func(namespace string, o metav1.Object) bool {
		set := o.GetLabels()
		return set[LabelUseWaypoint] == key.Name && cmp.Or(set[LabelUseWaypointNamespace], namespace) == key.Namespace && m.admits(g, namespace)
	}
	add := func(kind, namespace string, o metav1.Object) {
		if leads(namespace, o) {
			names = append(names, object(kind, keyOf(o)))
		}
	}
	for i := range m.Namespaces {
		add("Namespace", m.Namespaces[i].Name, &m.Namespaces[i])
	}
	path := labelled(LabelUseWaypoint, "").managed()
	for i := range m.Services {
		s := &m.Services[i]
		if isWitness(s) && m.created(s) {
			continue // it goes before
		}
		if holds(s, m.Edge.FieldOwner(), path...) && m.wrote(s) && !m.shared(s, path) {
			continue
		}
		if edges := m.sharers(s, path...); len(edges) > 0 && len(othersHold(s, path...)) == 0 {
			if leads(s.Namespace, s) {
				heirs = append(heirs, edges...)
			}
			continue
		}
		add("Service", s.Namespace, s)
	}
	for _, o := range m.ServiceEntries {
		add("ServiceEntry", o.GetNamespace(), o)
	}
	for i := range m.Pods {
		if p := &m.Pods[i]; alive(p) {
			add("Pod", p.Namespace, p)
		}
	}
	slices.Sort(heirs)
	heirs = slices.Compact(heirs)
	if len(names) == 0 {
		return heirs, false
	}
	for _, e := range heirs {
		names = append(names, "AmbientEdge "+e)
	}
	return heirs, m.halt(object("Gateway", key), "this waypoint is used by what was not labelled for this edge: "+listed(names))
}

// sharers are the other AmbientEdges, as namespace/name, that hold a field of an object by what they apply; without a path any field.
func (m *maker) sharers(o metav1.Object, path ...string) []string {
	var names []string
	for _, f := range o.GetManagedFields() {
		owner, isEdge := strings.CutPrefix(f.Manager, v1alpha1.FieldOwnerPrefix)
		if namespace, name, ok := strings.Cut(owner, "."); isEdge && ok && f.Manager != m.Edge.FieldOwner() && f.Operation == metav1.ManagedFieldsOperationApply &&
			f.FieldsV1 != nil && hasPath(f.FieldsV1.GetRawBytes(), path) {
			names = append(names, namespace+"/"+name)
		}
	}
	return names
}

// handOver tells that what was made for this edge stays for others.
func (m *maker) handOver(c carrier, heirs []string) {
	m.found(v1alpha1.Finding{
		Code: v1alpha1.FindingHandedOver, Severity: v1alpha1.SeverityInfo, Object: c.String(),
		Message: fmt.Sprintf("this was made for AmbientEdge %s, and AmbientEdge %s needs it too: it stays, and no AmbientEdge deletes it any more", keyOf(m.Edge), strings.Join(heirs, ", ")),
		Fix:     fmt.Sprintf("delete it when AmbientEdge %s is gone too", strings.Join(heirs, ", ")),
	})
}

// bequeath has a waypoint left to the AmbientEdges that need it too, the last of which deletes it: they are written on it, as its owner label stays.
func (m *maker) bequeath(s *Step, g *gatewayv1.Gateway, heirs []string) {
	names := strings.Join(heirs, ",")
	s.Verb, s.Reason = VerbRelease, "leave the waypoint to whoever needs it too"
	s.Write.Delete, s.Write.Force = false, true
	s.Write.Fields = map[string]any{"metadata": map[string]any{"annotations": map[string]any{v1alpha1.AnnotationHeirs: names}}}
	if g.Annotations[v1alpha1.AnnotationHeirs] == names {
		s.State, s.Write = v1alpha1.StepDone, nil
	}
	m.found(v1alpha1.Finding{
		Code: v1alpha1.FindingHandedOver, Severity: v1alpha1.SeverityInfo, Object: s.Object,
		Message: fmt.Sprintf("AmbientEdge %s leaves this waypoint to AmbientEdge %s, which needs it too: the last of them takes it away", keyOf(m.Edge), strings.Join(heirs, ", ")),
	})
}

// inherits says whether a waypoint was left to the edge: that is written on it, and its label and its fields say that it was made for an AmbientEdge.
func (m *maker) inherits(g *gatewayv1.Gateway) bool {
	owner := g.Labels[v1alpha1.LabelOwner]
	return g.Spec.GatewayClassName == WaypointClass && slices.Contains(strings.Split(g.Annotations[v1alpha1.AnnotationHeirs], ","), keyOf(m.Edge).String()) &&
		slices.ContainsFunc(g.ManagedFields, func(f metav1.ManagedFieldsEntry) bool {
			return f.Operation == metav1.ManagedFieldsOperationUpdate && f.Subresource == "" && v1alpha1.Owns(f.Manager, owner)
		})
}

// admits says whether a waypoint takes what leads to it from a namespace, by its allowedRoutes. It takes its own where nothing is said.
func (m *maker) admits(g *gatewayv1.Gateway, namespace string) bool {
	if g == nil || g.Namespace == namespace {
		return true
	}
	return slices.ContainsFunc(g.Spec.Listeners, func(l gatewayv1.Listener) bool {
		if l.AllowedRoutes == nil || l.AllowedRoutes.Namespaces == nil || l.AllowedRoutes.Namespaces.From == nil {
			return false
		}
		switch *l.AllowedRoutes.Namespaces.From {
		case gatewayv1.NamespacesFromAll:
			return true
		case gatewayv1.NamespacesFromSelector:
			selector, err := metav1.LabelSelectorAsSelector(l.AllowedRoutes.Namespaces.Selector)
			return err == nil && selector.Matches(labels.Set(m.namespaceLabels(namespace)))
		}
		return false
	})
}
