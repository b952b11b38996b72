package run

import (
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/isthmus-mesh/isthmus/controller/check"
	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/edge/rules"
)

// policies are the kinds of objects that say what an edge does to requests, but for those that have Go types.
func policies() (list []family) {
	older := map[string][]string{"VirtualService": {"v1beta1", "v1alpha3"}, "DestinationRule": {"v1beta1", "v1alpha3"}, "BackendTLSPolicy": {"v1alpha3"}}
	for _, k := range rules.Kinds() {
		if k.Group == "security.istio.io" || k.Group == "networking.k8s.io" || k.Group == "" {
			continue
		}
		resource, _ := meta.UnsafeGuessKindToResource(k)
		list = append(list, versions(k.Group, k.Kind, resource.Resource, append([]string{k.Version}, older[k.Kind]...)...))
	}
	return list
}

// checkFamilies are all kinds that checks read without their Go types, each once.
func checkFamilies() []family {
	all := families()
	for _, f := range policies() {
		if !slices.ContainsFunc(all, func(g family) bool { return groupKind(g[0]) == groupKind(f[0]) }) {
			all = append(all, f)
		}
	}
	return append(all, versions("networking.istio.io", "WorkloadEntry", "workloadentries", "v1", "v1beta1", "v1alpha3"))
}

func groupKind(k edge.Kind) schema.GroupKind { return schema.GroupKind{Group: k.Group, Kind: k.Kind} }

// settings are the names of ConfigMaps that checks look at.
func settings() (names []string) {
	for _, key := range check.ConfigMaps() {
		names = append(names, key.Name)
	}
	return names
}

// checkRules are the rights that checks need on top of plans. Of service accounts and slices of endpoints nobody reads more than they need: there are
// no secrets in them.
func checkRules() []rbacv1.PolicyRule {
	read := []string{"get", "list", "watch"}
	list := []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"serviceaccounts"}, Verbs: read},
		{APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: settings(), Verbs: []string{"get"}},
		{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: read},
		{APIGroups: []string{"networking.k8s.io"}, Resources: []string{"networkpolicies"}, Verbs: read},
	}
	for _, f := range checkFamilies()[len(families()):] {
		list = append(list, rbacv1.PolicyRule{APIGroups: []string{f[0].Group}, Resources: []string{f[0].Resource}, Verbs: read})
	}
	return list
}
