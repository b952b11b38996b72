package run

import (
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/isthmus-mesh/isthmus/controller/edge"
)

// ViewRules are the rights that looking takes: reading all that a plan depends on, or a check. They are for people, and write nothing.
func ViewRules() []rbacv1.PolicyRule { return append(planRules(), checkRules()...) }

// planRules are the rights to read all that a plan depends on.
func planRules() []rbacv1.PolicyRule {
	read := []string{"get", "list", "watch"}
	rules := []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"namespaces", "pods", "services"}, Verbs: read},
		{APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{Istiod{}.ConfigMap().Name}, Verbs: []string{"get"}}, // of the mesh
		{APIGroups: []string{"admissionregistration.k8s.io"}, Resources: []string{"mutatingwebhookconfigurations", "validatingwebhookconfigurations"}, Verbs: read},
		{APIGroups: []string{"apiregistration.k8s.io"}, Resources: []string{"apiservices"}, Verbs: read},
		{APIGroups: []string{"apps"}, Resources: []string{"daemonsets", "deployments"}, Verbs: read},
		{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, ResourceNames: []string{"isthmus-controller"}, Verbs: []string{"get"}}, // whether one is at work
		{APIGroups: []string{"extensions.istio.io"}, Resources: []string{"trafficextensions", "wasmplugins"}, Verbs: read},
		{APIGroups: []string{"gateway.networking.k8s.io"}, Resources: []string{"gatewayclasses", "gateways", "grpcroutes", "httproutes", "listenersets", "referencegrants", "tcproutes", "tlsroutes", "udproutes"}, Verbs: read},
		{APIGroups: []string{"gateway.networking.x-k8s.io"}, Resources: []string{"xlistenersets"}, Verbs: read},
		{APIGroups: []string{"isthmus.dev"}, Resources: []string{"ambientedges"}, Verbs: read},
		{APIGroups: []string{"networking.istio.io"}, Resources: []string{"envoyfilters", "serviceentries"}, Verbs: read},
		{APIGroups: []string{"networking.k8s.io"}, Resources: []string{"ingressclasses", "ingresses"}, Verbs: read},
		{APIGroups: []string{"security.istio.io"}, Resources: []string{"authorizationpolicies", "peerauthentications", "requestauthentications"}, Verbs: read},
	}
	for _, u := range edge.Uses() {
		rules = append(rules, rbacv1.PolicyRule{APIGroups: []string{u.Group}, Resources: []string{u.Resource}, Verbs: read})
	}
	return rules
}

// ObserveRules are the rights of a controller that observes: all that a plan depends on, what says what gateways do to requests, the names of CRDs, as kinds come and go, the status of AmbientEdges, and Events about them. Events go to
// events.k8s.io; leader election still writes those of the old group.
func ObserveRules() []rbacv1.PolicyRule {
	rules := planRules()
	for _, f := range ruleFamilies() {
		rules = append(rules, rbacv1.PolicyRule{APIGroups: []string{f[0].Group}, Resources: []string{f[0].Resource}, Verbs: []string{"get", "list", "watch"}})
	}
	return append(rules,
		rbacv1.PolicyRule{APIGroups: []string{"apiextensions.k8s.io"}, Resources: []string{"customresourcedefinitions"}, Verbs: []string{"list", "watch"}},
		rbacv1.PolicyRule{APIGroups: []string{"", "events.k8s.io"}, Resources: []string{"events"}, Verbs: []string{"create", "patch"}},
		rbacv1.PolicyRule{APIGroups: []string{"isthmus.dev"}, Resources: []string{"ambientedges/status"}, Verbs: []string{"patch"}},
	)
}

// ManageRules are the rights that managing takes on top of ObserveRules.
func ManageRules() []rbacv1.PolicyRule {
	rules := []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"namespaces"}, Verbs: []string{"patch"}},
		{APIGroups: []string{""}, Resources: []string{"services"}, Verbs: []string{"create", "delete", "patch"}}, // it makes witnesses
		{APIGroups: []string{"apps"}, Resources: []string{"daemonsets", "deployments"}, Verbs: []string{"patch"}},
		{APIGroups: []string{"gateway.networking.k8s.io"}, Resources: []string{"gateways"}, Verbs: []string{"create", "delete", "patch"}},
		{APIGroups: []string{"isthmus.dev"}, Resources: []string{"ambientedges"}, Verbs: []string{"patch"}},
		{APIGroups: []string{"isthmus.dev"}, Resources: []string{"ambientedges/finalizers"}, Verbs: []string{"update"}},
		{APIGroups: []string{"networking.k8s.io"}, Resources: []string{"ingresses"}, Verbs: []string{"patch"}},
		{APIGroups: []string{"security.istio.io"}, Resources: []string{"authorizationpolicies"}, Verbs: []string{"create", "delete", "patch"}},
	}
	for _, u := range edge.Uses() {
		verbs := []string{}
		if u.Make {
			verbs = append(verbs, "create", "delete")
		}
		if u.Patch {
			rules = append(rules, rbacv1.PolicyRule{APIGroups: []string{u.Group}, Resources: []string{u.Resource}, Verbs: append(verbs, "patch")})
		}
	}
	return rules
}
