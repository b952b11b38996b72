package run

import (
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// ruleFamilies are the kinds of objects that say what gateways do to requests, of the vendors of which plans look at that, but for those that are read
// anyway. They are read whole, and only where an AmbientEdge depends on them: there may be many.
func ruleFamilies() (list []family) {
	of := plan.RuleKinds()
	for _, f := range policies() {
		gk := groupKind(f[0])
		read := slices.ContainsFunc(families(), func(g family) bool { return groupKind(g[0]) == gk })
		if !read && slices.ContainsFunc(of, func(k schema.GroupVersionKind) bool { return k.GroupKind() == gk }) {
			list = append(list, f)
		}
	}
	return list
}

var ruleKinds = sync.OnceValue(func() map[schema.GroupKind]bool {
	all := map[schema.GroupKind]bool{}
	for _, f := range ruleFamilies() {
		all[groupKind(f[0])] = true
	}
	return all
})

// isRule says whether a kind is one of ruleFamilies.
func isRule(gk schema.GroupKind) bool { return ruleKinds()[gk] }
