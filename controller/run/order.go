package run

import (
	"cmp"
	"slices"
	"sort"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// sort brings the lists into the order of Observe's: a cache has none, and the order of a plan's steps may come from it.
func (v *viewer) sort() {
	sortObjects(v.s.Edges)
	sortObjects(v.s.Namespaces)
	sortObjects(v.s.Pods)
	sortObjects(v.s.Services)
	sortObjects(v.s.Deployments)
	sortObjects(v.s.DaemonSets)
	sortObjects(v.s.Gateways)
	sortObjects(v.s.Classes)
	sortObjects(v.s.ReferenceGrants)
	sortObjects(v.s.Ingresses)
	sortObjects(v.s.IngressClasses)
	slices.SortFunc(v.s.Strictness, func(a, b *securityv1.PeerAuthentication) int { return compareObjects(a, b) })
	slices.SortFunc(v.s.RequestAuthentications, func(a, b *securityv1.RequestAuthentication) int { return compareObjects(a, b) })
	slices.SortFunc(v.s.Policies, func(a, b *securityv1.AuthorizationPolicy) int { return compareObjects(a, b) })
}

func sortObjects[T any, P interface {
	*T
	metav1.Object
}](list []T) {
	// Not slices.SortFunc, which would copy each object for each comparison.
	sort.Slice(list, func(i, j int) bool { return compareObjects(P(&list[i]), P(&list[j])) < 0 })
}

func compareObjects(a, b metav1.Object) int {
	return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
}
