package plan

import (
	"cmp"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/isthmus-mesh/isthmus/controller/edge"
)

// mayFollow says whether a gateway sends to a backend's address, be it a part of its requests, as far as it is seen: whoever has set a switch for that, and
// whichever of its vendor's; what may not be seen may say so. Of sendsPast it is no opposite: either is cautious.
func (m *maker) mayFollow(g *gateway, b *backend) bool {
	return !m.sendsPast(g, b) || slices.ContainsFunc(m.Hidden, g.vendor.Uses) || slices.ContainsFunc(g.vendor.Switches, func(s edge.Switch) bool { return g.fits(&s) && m.isSet(g, &s, b) })
}

// isSet says whether an object that tells a gateway of a backend has a switch.
func (m *maker) isSet(g *gateway, s *edge.Switch, b *backend) bool {
	is := func(v any) bool { return fmt.Sprint(v) == fmt.Sprint(s.Value) }
	set := func(o *unstructured.Unstructured) bool {
		v, _ := value(o, s.Path)
		return is(v)
	}
	switch s.On {
	case edge.OnService:
		v, _ := value(b.service, s.Path)
		return is(v)
	case edge.OnIngress:
		for _, in := range m.ingresses(g) {
			if v, _ := value(in, s.Path); is(v) && slices.Contains(servicesOfIngress(in), b.key) {
				return true
			}
		}
	case edge.OnParameters:
		o := m.vendorObject(s.Kind, g.key.Namespace, parametersRef(g, s))
		return o != nil && set(o)
	case edge.OnGateway:
		for _, o := range m.objects(s.Kind) {
			if services, whole := m.routed(g, o); set(o) && (whole || slices.Contains(services, b.key)) {
				return true
			}
		}
	case edge.OnServiceByRef:
		return slices.ContainsFunc(m.objects(s.Kind), func(o *unstructured.Unstructured) bool {
			return set(o) && o.GetNamespace() == b.key.Namespace && targeted(o, s.Target[1], b.key.Name)
		})
	case edge.OnList:
		for _, o := range m.objects(s.Kind) {
			for _, item := range items(o.Object, s.List) {
				ns, _ := item["namespace"].(string)
				if v, _, _ := unstructured.NestedFieldNoCopy(item, s.Path...); is(v) && item[s.Name] == b.key.Name && cmp.Or(ns, o.GetNamespace()) == b.key.Namespace {
					return true
				}
			}
		}
	}
	return false
}
