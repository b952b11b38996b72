package plan

import (
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// Annotations of Ingresses and their classes, from the time before classes.
const (
	annotationIngressClass = "kubernetes.io/ingress.class"
	annotationDefaultClass = "ingressclass.kubernetes.io/is-default-class"
)

// ingresses are those that a gateway obeys: of the classes of its vendor's controller.
func (m *maker) ingresses(g *gateway) []*networkingv1.Ingress {
	if g.kind == "Gateway" || len(g.vendor.IngressControllers) == 0 {
		return nil
	}
	var list []*networkingv1.Ingress
	for i := range m.Ingresses {
		if in := &m.Ingresses[i]; g.vendor.Obeys(m.ingressController(in)) {
			list = append(list, in)
		}
	}
	return list
}

// ingressController is the controller of an Ingress's class, or "".
func (m *maker) ingressController(in *networkingv1.Ingress) string {
	class := func(ok func(*networkingv1.IngressClass) bool) string {
		if c := find(m.IngressClasses, ok); c != nil {
			return c.Spec.Controller
		}
		return ""
	}
	name := in.Annotations[annotationIngressClass]
	if in.Spec.IngressClassName != nil {
		name = *in.Spec.IngressClassName
	}
	if name == "" {
		return class(func(c *networkingv1.IngressClass) bool { return c.Annotations[annotationDefaultClass] == "true" })
	}
	return class(func(c *networkingv1.IngressClass) bool { return c.Name == name })
}

// IngressServices are the Services that the edge sends to by Ingresses, as far as its gateways and Ingresses are in the snapshot.
func IngressServices(s *Snapshot) []types.NamespacedName {
	m := &maker{Snapshot: s}
	m.findGateways()
	return m.ingressServices()
}

// ingressServices are the Services that Ingresses name, where the edge asks for those.
func (m *maker) ingressServices() []types.NamespacedName {
	if b := m.Edge.Spec.Backends; b == nil || b.From != v1alpha1.FromIngresses {
		return nil
	}
	var keys []types.NamespacedName
	for i := range m.Ingresses {
		in := &m.Ingresses[i]
		switch controller := m.ingressController(in); {
		case controller == "":
			// Its class may come back, or come at all: what was done for it stays.
			m.doubts = append(m.doubts, doubt{object: object("Ingress", keyOf(in)), why: "its IngressClass is not there", decided: true, services: servicesOfIngress(in)})
		case slices.ContainsFunc(m.gateways, func(g *gateway) bool { return g.kind != "Gateway" && g.vendor.Obeys(controller) }):
			m.counted++
			keys = append(keys, servicesOfIngress(in)...)
		}
	}
	return keys
}

// servicesOfIngress are the Services that an Ingress sends to.
func servicesOfIngress(in *networkingv1.Ingress) []types.NamespacedName {
	var keys []types.NamespacedName
	add := func(b *networkingv1.IngressBackend) {
		if b != nil && b.Service != nil {
			keys = append(keys, types.NamespacedName{Namespace: in.Namespace, Name: b.Service.Name})
		}
	}
	add(in.Spec.DefaultBackend)
	for i := range in.Spec.Rules {
		if h := in.Spec.Rules[i].HTTP; h != nil {
			for j := range h.Paths {
				add(&h.Paths[j].Backend)
			}
		}
	}
	slices.SortFunc(keys, compareKeys)
	return slices.Compact(keys)
}
