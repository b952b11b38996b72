package check

import (
	"slices"

	typev1beta1 "istio.io/api/type/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// carry finds the pods of a namespace before which ztunnel stands. In files, a Service whose pods nobody has seen stands for them, where its namespace is
// in the mesh.
func (g *guards) carry(w *World, namespace string) {
	list := slices.DeleteFunc(slices.Clone(w.pods[namespace]), func(p *plan.Pod) bool { return !w.ztunnelBefore(p) })
	if w.Paper && w.namespaceLabels(namespace)[plan.LabelDataplaneMode] == "ambient" {
		list = append(list, w.standIns(namespace)...)
	}
	for _, p := range w.pods[namespace] {
		g.users[types.NamespacedName{Namespace: namespace, Name: p.Spec.ServiceAccountName}] = true
	}
	g.carried[namespace] = list
	for _, p := range list {
		for k, v := range p.Labels {
			if at := k + "=" + v; g.selected[namespace][at] || g.selected[w.Root()][at] {
				key := namespace + "/" + at
				g.labelled[key] = append(g.labelled[key], p)
			}
		}
	}
}

// standIns are pods for the Services of a namespace whose own nobody has seen.
func (w *World) standIns(namespace string) (list []*plan.Pod) {
	labelled := map[string][]*plan.Pod{}
	for _, p := range w.pods[namespace] {
		for k, v := range p.Labels {
			labelled[k+"="+v] = append(labelled[k+"="+v], p)
		}
	}
	for _, s := range w.servicesOf[namespace] {
		if len(s.Spec.Selector) == 0 {
			continue
		}
		k := sortedKeys(s.Spec.Selector)[0]
		if !slices.ContainsFunc(labelled[k+"="+s.Spec.Selector[k]], func(p *plan.Pod) bool { return has(p.Labels, s.Spec.Selector) }) {
			list = append(list, &plan.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "of-" + s.Name, Labels: s.Spec.Selector}})
		}
	}
	return list
}

// ztunnelBefore says whether ztunnel, or a server that does as it does, stands before a pod, and no proxy that reads requests.
func (w *World) ztunnelBefore(p *plan.Pod) bool {
	for _, is := range []bool{
		p.Annotations["sidecar.istio.io/status"] != "", p.Labels["sidecar.istio.io/inject"] == "true", p.Annotations["sidecar.istio.io/inject"] == "true",
		p.Annotations["inject.istio.io/templates"] != "", p.Labels["gateway.istio.io/managed"] != "",
	} {
		if is {
			return false
		}
	}
	return w.InMesh(p) || p.Labels["networking.istio.io/tunnel"] == "http"
}

// carriedPods are the pods of a namespace that have all labels, and before which ztunnel stands. No selector selects all, one without labels none.
func (w *World) carriedPods(namespace string, selector *typev1beta1.WorkloadSelector) []*plan.Pod {
	g := w.guard()
	if selector == nil {
		return g.carried[namespace]
	}
	var least []*plan.Pod
	first := true
	for k, v := range selector.GetMatchLabels() {
		if list := g.labelled[namespace+"/"+k+"="+v]; first || len(list) < len(least) {
			least, first = list, false
		}
	}
	var list []*plan.Pod
	for _, p := range least {
		if has(p.Labels, selector.GetMatchLabels()) {
			list = append(list, p)
		}
	}
	return list
}

// podUnder is a pod before which ztunnel enforces a policy that is attached to pods, or nil.
func (w *World) podUnder(namespace string, selector *typev1beta1.WorkloadSelector) *plan.Pod {
	spaces := []string{namespace}
	if namespace == w.Root() {
		spaces = append(spaces, sortedKeys(w.namespaces)...)
	}
	for _, ns := range spaces {
		if list := w.carriedPods(ns, selector); len(list) > 0 {
			return list[0]
		}
	}
	return nil
}
