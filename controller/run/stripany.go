package run

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/isthmus-mesh/isthmus/controller/edge"
)

// stripAny keeps of an object of a family its metadata, and the fields that plans look at.
func stripAny(o *unstructured.Unstructured) {
	stripMeta(o)
	if isRule(o.GroupVersionKind().GroupKind()) {
		o.SetManagedFields(nil) // nobody here writes them
		delete(o.Object, "status")
		return
	}
	if isRoute(o.GetKind()) {
		o.SetAnnotations(nil)
		o.SetManagedFields(nil)
	}
	kept := map[string]any{}
	for _, field := range []string{"apiVersion", "kind", "metadata"} {
		if v, is := o.Object[field]; is {
			kept[field] = v
		}
	}
	for _, path := range looksAt(o.GroupVersionKind().Group, o.GetKind()) {
		merge(kept, only(o.Object, path))
	}
	o.Object = kept
}

// isRoute says whether a kind is one of otherRoutes.
func isRoute(kind string) bool {
	return slices.ContainsFunc(otherRoutes(), func(f family) bool { return f[0].Kind == kind })
}

func isListenerSet(kind string) bool {
	return slices.ContainsFunc(listenerSets(), func(f family) bool { return f[0].Kind == kind })
}

// looksAt are the fields of a kind that plans look at.
func looksAt(group, kind string) [][]string {
	paths := func(list ...string) [][]string {
		var out [][]string
		for _, p := range list {
			out = append(out, strings.Split(p, "."))
		}
		return out
	}
	switch {
	case kind == "ServiceEntry":
		return paths("spec.workloadSelector", "spec.ports.number", "spec.ports.targetPort", "spec.resolution", "spec.hosts", "spec.endpoints.address")
	case kind == "APIService":
		return paths("spec.service")
	case strings.HasSuffix(kind, "WebhookConfiguration"):
		return paths("webhooks.clientConfig.service")
	case isRoute(kind):
		const rules = "spec.rules"
		list := []string{"spec.parentRefs", "status.parents.parentRef", "status.parents.controllerName"}
		for _, field := range []string{"type", "requestMirror.backendRef", "requestHeaderModifier", "extensionRef"} {
			list = append(list, rules+".filters."+field, rules+".backendRefs.filters."+field)
		}
		for _, field := range []string{"group", "kind", "namespace", "name", "port"} {
			list = append(list, rules+".backendRefs."+field)
		}
		list = append(list, "spec.hostnames", rules+".matches.method", rules+".matches.headers.type")
		for _, field := range []string{"type", "status", "observedGeneration"} {
			list = append(list, "status.parents.conditions."+field)
		}
		return paths(list...)
	case isListenerSet(kind):
		return paths("spec.parentRef", "status.conditions.type", "status.conditions.status", "status.conditions.observedGeneration")
	case kind == "EnvoyProxy": // what may change much of what its gateways do
		return append(edge.Reads(group, kind), paths("spec.bootstrap", "spec.filterOrder")...)
	case slices.ContainsFunc(extensions(), func(f family) bool { return f[0].Kind == kind }):
		return append(edge.Reads(group, kind), paths("spec.selector", "spec.workloadSelector")...)
	}
	return edge.Reads(group, kind)
}

// only is a tree with nothing in it but what is at the end of a path through maps and lists. Items of lists keep their places.
func only(tree any, path []string) any {
	if len(path) == 0 {
		return tree
	}
	switch t := tree.(type) {
	case map[string]any:
		v, is := t[path[0]]
		if !is {
			return map[string]any{}
		}
		return map[string]any{path[0]: only(v, path[1:])}
	case []any:
		list := make([]any, len(t))
		for i := range t {
			list[i] = only(t[i], path)
		}
		return list
	}
	return nil
}

// merge adds to a tree what another has, of the same object: lists are of one length.
func merge(into, more any) any {
	switch more := more.(type) {
	case map[string]any:
		to, is := into.(map[string]any)
		if !is {
			return more
		}
		for k, v := range more {
			to[k] = merge(to[k], v)
		}
		return to
	case []any:
		to, is := into.([]any)
		if !is || len(to) != len(more) {
			return more
		}
		for i := range more {
			to[i] = merge(to[i], more[i])
		}
		return to
	}
	return more
}
