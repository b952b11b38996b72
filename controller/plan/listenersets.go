package plan

import (
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// parent is what a route names to be of a gateway: the Gateway, or one of its ListenerSets; or a route that delegates to it.
type parent struct {
	group, kind string
	key         types.NamespacedName
	why         string // routes that name it do not count; empty: they may
	decided     bool   // that is not going to change by itself
}

// is says whether a reference of a route is to the parent.
func (p *parent) is(ref *gatewayv1.ParentReference, namespace string) bool {
	return string(ref.Name) == p.key.Name && named(ref, namespace) == p.id()
}

// parents are the Gateway and its ListenerSets.
func (m *maker) parents(g *gateway) []parent {
	if g.parents != nil || g.object == nil {
		return g.parents
	}
	g.parents = []parent{{group: gatewayv1.GroupName, kind: "Gateway", key: g.key}}
	for _, o := range m.ListenerSets {
		if ListenerSetOf(o) != g.key {
			continue
		}
		p := parent{group: o.GroupVersionKind().Group, kind: o.GetKind(), key: keyOf(o)}
		p.why, p.decided = m.refusal(g, o)
		g.parents = append(g.parents, p)
	}
	return g.parents
}

// ListenerSetOf is the Gateway that a ListenerSet adds listeners to, or no name.
func ListenerSetOf(o *unstructured.Unstructured) types.NamespacedName {
	for _, ref := range items(o.Object, []string{"spec", "parentRef"}) {
		p := parent{group: gatewayv1.GroupName, kind: "Gateway", key: types.NamespacedName{Namespace: o.GetNamespace()}}
		p.key.Name, _ = ref["name"].(string)
		if ns, ok := ref["namespace"].(string); ok {
			p.key.Namespace = ns
		}
		is := gatewayv1.ParentReference{Group: text[gatewayv1.Group](ref, "group"), Kind: text[gatewayv1.Kind](ref, "kind"), Name: gatewayv1.ObjectName(p.key.Name)}
		if p.is(&is, p.key.Namespace) {
			return p.key
		}
	}
	return types.NamespacedName{}
}

// refusal says why a ListenerSet of a gateway is not in force, or "": the Gateway must admit its namespace, and have accepted it at its present
// generation. decided: it is, or will stay so until somebody acts.
func (m *maker) refusal(g *gateway, o *unstructured.Unstructured) (why string, decided bool) {
	name := object(o.GetKind(), keyOf(o))
	if !m.admitsSets(g.object, o.GetNamespace()) {
		return fmt.Sprintf("it names %s, and spec.allowedListeners of %s admits none of namespace %s", name, g, o.GetNamespace()), true
	}
	accepted := string(gatewayv1.ListenerSetConditionAccepted)
	for _, c := range items(o.Object, []string{"status", "conditions"}) {
		if generation, _ := c["observedGeneration"].(int64); c["type"] != accepted || generation != o.GetGeneration() {
			continue
		}
		if c["status"] == string(metav1.ConditionTrue) {
			return "", true
		}
		decided = c["status"] == string(metav1.ConditionFalse)
	}
	return fmt.Sprintf("it names %s, of which %s has not said Accepted for generation %d", name, g, o.GetGeneration()), decided
}

// admitsSets says whether a Gateway takes ListenerSets of a namespace: none, unless it says so.
func (m *maker) admitsSets(g *gatewayv1.Gateway, namespace string) bool {
	l := g.Spec.AllowedListeners
	if l == nil || l.Namespaces == nil || l.Namespaces.From == nil {
		return false
	}
	switch *l.Namespaces.From {
	case gatewayv1.NamespacesFromAll:
		return true
	case gatewayv1.NamespacesFromSame:
		return namespace == g.Namespace
	case gatewayv1.NamespacesFromSelector:
		selector, err := metav1.LabelSelectorAsSelector(l.Namespaces.Selector)
		ns := m.namespace(namespace)
		return err == nil && ns != nil && selector.Matches(labels.Set(ns.Labels))
	}
	return false
}

// parented says whether the route names the Gateway, or a ListenerSet of it.
func (m *maker) parented(r *route, g *gateway) bool {
	parents := m.parents(g)
	return slices.ContainsFunc(parents, func(p parent) bool { return r.names(&p) })
}
