package plan

import (
	"slices"

	typev1beta1 "istio.io/api/type/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
)

// targeting is the spec of a policy that waypoints enforce.
type targeting interface {
	GetTargetRef() *typev1beta1.PolicyTargetReference
	GetTargetRefs() []*typev1beta1.PolicyTargetReference
}

// extension is something else that waypoints obey.
type extension struct{ o *unstructured.Unstructured }

// GetTargetRef is the older form, which WasmPlugins have.
func (e extension) GetTargetRef() *typev1beta1.PolicyTargetReference {
	if list := e.refs("targetRef"); len(list) > 0 {
		return list[0]
	}
	return nil
}

func (e extension) GetTargetRefs() []*typev1beta1.PolicyTargetReference { return e.refs("targetRefs") }

func (e extension) refs(field string) []*typev1beta1.PolicyTargetReference {
	var list []*typev1beta1.PolicyTargetReference
	for _, ref := range items(e.o.Object, []string{"spec", field}) {
		kind, _ := ref["kind"].(string)
		name, _ := ref["name"].(string)
		list = append(list, &typev1beta1.PolicyTargetReference{Kind: kind, Name: name})
	}
	return list
}

var _ targeting = extension{}

// refers says whether targetRefs name an object.
func refers(spec targeting, kind, name string) bool {
	return slices.ContainsFunc(slices.Concat(spec.GetTargetRefs(), []*typev1beta1.PolicyTargetReference{spec.GetTargetRef()}), func(t *typev1beta1.PolicyTargetReference) bool {
		return t != nil && t.GetKind() == kind && t.GetName() == name
	})
}

// targets says whether a policy's targetRefs name an object of its own namespace.
func targets(o metav1.Object, spec targeting, key types.NamespacedName, kind string) bool {
	return o.GetNamespace() == key.Namespace && refers(spec, kind, key.Name)
}

// targetsClass says whether a policy is for all waypoints: in the root namespace, by their class.
func (m *maker) targetsClass(o metav1.Object, spec targeting) bool {
	return o.GetNamespace() == m.Root() && refers(spec, "GatewayClass", WaypointClass)
}

// enforced names the policies for an object that only a waypoint enforces, and what else it obeys: those for all waypoints too, with class. Our own are not
// among them.
func (m *maker) enforced(key types.NamespacedName, kind string, class bool) []string {
	var names []string
	add := func(policy string, o metav1.Object, spec targeting) {
		if targets(o, spec, key, kind) || class && m.targetsClass(o, spec) {
			names = append(names, object(policy, keyOf(o)))
		}
	}
	namespaces := []string{key.Namespace}
	if class {
		namespaces = append(namespaces, m.Root())
	}
	for _, p := range m.policiesIn(namespaces...) {
		if m.pairs(p) {
			continue // it goes with the wiring
		}
		add("AuthorizationPolicy", p, &p.Spec)
	}
	for _, p := range m.tokensIn(namespaces...) {
		add("RequestAuthentication", p, &p.Spec)
	}
	for _, o := range m.extensionsIn(namespaces...) {
		add(o.GetKind(), o, extension{o})
	}
	slices.Sort(names)
	return names
}
