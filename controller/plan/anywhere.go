package plan

import (
	"cmp"
	"slices"
)

// podsAnywhere are the pods of a Gateway whose vendor may put them into another namespace: that of its controller. Whoever may make a pod may give it
// their labels, so that of all other namespaces none counts. Where pods are beside several controllers, those beside the oldest are taken: nobody
// can make one in the past. A controller that is not here, or not known, tells nothing.
func (m *maker) podsAnywhere(g *gateway, labels map[string]string) []*Pod {
	all := m.podsWith("", labels)
	list := m.controllers(&g.vendor)
	if len(list) == 0 {
		return all
	}
	slices.SortStableFunc(list, func(a, b *workload) int {
		x, y := a.object.GetCreationTimestamp(), b.object.GetCreationTimestamp()
		return cmp.Or(x.Compare(y.Time), compareKeys(a.key, b.key))
	})
	in := func(namespace string) []*Pod {
		return slices.DeleteFunc(slices.Clone(all), func(p *Pod) bool { return p.Namespace != namespace })
	}
	pods := in(g.key.Namespace)
	for _, w := range list {
		if w.key.Namespace == g.key.Namespace {
			continue
		}
		if beside := in(w.key.Namespace); len(beside) > 0 {
			return append(pods, beside...)
		}
	}
	return pods
}
