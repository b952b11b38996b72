package manifeststest

import (
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// user has rules in namespace edge, each in YAML, and the API server knows of them.
func user(t *testing.T, name string, rules ...string) client.Client {
	t.Helper()
	if len(rules) > 0 {
		if err := installed(t).Apply(t.Context(), `
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: `+name+`, namespace: edge}
rules:
- `+strings.Join(rules, "\n- ")+`
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: `+name+`, namespace: edge}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: `+name+`}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: `+name+`}]
`); err != nil {
			t.Fatal(err)
		}
		granted(t, name, rules...)
	}
	c, err := as(installed(t), name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// granted waits until a user has rules in namespace edge.
func granted(t *testing.T, name string, rules ...string) {
	t.Helper()
	for _, text := range rules {
		var rule rbacv1.PolicyRule
		if err := yaml.Unmarshal([]byte(text), &rule); err != nil {
			t.Fatalf("rule %s: %v", text, err)
		}
		if err := installed(t).WaitGranted(t.Context(), "edge", name, rule); err != nil {
			t.Fatal(err)
		}
	}
}

// The rights that an author needs.
const (
	patchNamespace  = `{apiGroups: [""], resources: [namespaces], resourceNames: [edge], verbs: [patch]}`
	patchDeployment = `{apiGroups: [apps], resources: [deployments], resourceNames: [gateway], verbs: [patch]}`
	patchDaemonSet  = `{apiGroups: [apps], resources: [daemonsets], resourceNames: [gateway], verbs: [patch]}`
	patchGateway    = `{apiGroups: [gateway.networking.k8s.io], resources: [gateways], resourceNames: [http], verbs: [patch]}`
	patchHTTP       = `{apiGroups: [apps], resources: [deployments], resourceNames: [http], verbs: [patch]}`
	allDeployments  = `{apiGroups: [apps], resources: [deployments], verbs: [patch]}`
	allDaemonSets   = `{apiGroups: [apps], resources: [daemonsets], verbs: [patch]}`
	envoyProxies    = `{apiGroups: [gateway.envoyproxy.io], resources: [envoyproxies], verbs: [patch]}`
	trafficPolicies = `{apiGroups: [gateway.envoyproxy.io], resources: [backendtrafficpolicies], verbs: [create, patch]}`
	nginxProxies    = `{apiGroups: [gateway.nginx.org], resources: [nginxproxies], verbs: [patch]}`
	upstreams       = `{apiGroups: [gateway.nginx.org], resources: [upstreamsettingspolicies], verbs: [create, patch]}`
	patchService    = `{apiGroups: [""], resources: [services], resourceNames: [orders], verbs: [patch]}`
	patchServices   = `{apiGroups: [""], resources: [services], verbs: [patch]}`
	patchIngresses  = `{apiGroups: [networking.k8s.io], resources: [ingresses], verbs: [patch]}`
	makeServices    = `{apiGroups: [""], resources: [services], verbs: [create]}`
	deleteServices  = `{apiGroups: [""], resources: [services], verbs: [delete]}`
	createGateways  = `{apiGroups: [gateway.networking.k8s.io], resources: [gateways], verbs: [create]}`
	createPolicies  = `{apiGroups: [security.istio.io], resources: [authorizationpolicies], verbs: [create]}`
)

func TestAuthorNeedsTheRightsThatTheControllerUses(t *testing.T) {
	installed(t)
	for _, c := range []struct {
		name  string
		spec  string
		needs map[string]string // right: what the refusal says
	}{
		{"deployment", manages, map[string]string{patchNamespace: "patch this Namespace", patchDeployment: "patch these Deployments", patchService: "patch those of this namespace", createPolicies: "AuthorizationPolicies"}},
		{"daemonset", `{mode: Manage, workloadRefs: [{kind: DaemonSet, name: gateway}], backends: {services: [{namespace: edge, name: orders}]}}`,
			map[string]string{patchNamespace: "patch this Namespace", patchDaemonSet: "patch these DaemonSets", patchService: "patch those", createPolicies: "AuthorizationPolicies"}},
		{"gateway", `{mode: Manage, targetRefs: [{name: http}]}`,
			map[string]string{patchNamespace: "patch this Namespace", patchGateway: "labels its Gateways", allDeployments: "Deployments", allDaemonSets: "DaemonSets", patchServices: "patch those", createPolicies: "AuthorizationPolicies",
				envoyProxies: "EnvoyProxies", trafficPolicies: "BackendTrafficPolicies", nginxProxies: "NginxProxies", upstreams: "UpstreamSettingsPolicies"}},
		{"gateway-without-waypoints", `{mode: Manage, capture: Native, targetRefs: [{name: http}], waypoint: {policy: None}}`,
			map[string]string{patchGateway: "labels its Gateways", allDeployments: "Deployments", allDaemonSets: "DaemonSets", patchServices: "patch those", createPolicies: "AuthorizationPolicies"}},
		{"ingresses", `{mode: Manage, capture: None, workloadRefs: [{kind: Deployment, name: gateway}], backends: {from: Ingresses}}`,
			map[string]string{patchDeployment: "Deployments", patchServices: "patch those", patchIngresses: "annotates them", createPolicies: "AuthorizationPolicies"}},
		{"waypoint", `{mode: Manage, capture: None, workloadRefs: [{kind: Deployment, name: gateway}], backends: {services: [{namespace: shop, name: orders}]}, waypoint: {policy: Create, name: w}}`,
			map[string]string{patchDeployment: "Deployments", createGateways: "create Gateways", createPolicies: "AuthorizationPolicies"}},
		{"pair", `{mode: Manage, workloadRefs: [{kind: Deployment, name: gateway}], backends: {services: [{namespace: edge, name: orders}]}, authorization: {mode: Pair}}`,
			map[string]string{patchNamespace: "patch this Namespace", patchDeployment: "Deployments", patchService: "patch those", createPolicies: "AuthorizationPolicies", makeServices: "create and delete Services", deleteServices: "create and delete Services"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var all []string
			for r := range c.needs {
				all = append(all, r)
			}
			author := user(t, c.name+"-author", all...)
			if err := author.Create(t.Context(), parse(edge(c.name, c.spec)), client.DryRunAll); err != nil {
				t.Errorf("with all rights: %v", err)
			}
			i := 0
			for left, says := range c.needs {
				var rest []string
				for r := range c.needs {
					if r != left {
						rest = append(rest, r)
					}
				}
				i++
				err := user(t, c.name+"-lacks-"+string(rune('a'+i)), rest...).Create(t.Context(), parse(edge(c.name, c.spec)), client.DryRunAll)
				if !refused(err) || !strings.Contains(err.Error(), says) {
					t.Errorf("without %s: %v, want a refusal that says %q", left, err, says)
				}
			}
		})
	}
}

// TestARightToOneDeploymentIsNotThatToSharedProxies: those of a Gateway may have any name, and Native takes them out of the mesh.
func TestARightToOneDeploymentIsNotThatToSharedProxies(t *testing.T) {
	rights := []string{patchNamespace, patchGateway, patchHTTP, allDaemonSets, patchServices, createPolicies, envoyProxies, trafficPolicies, nginxProxies, upstreams}
	err := user(t, "shared", rights...).Create(t.Context(), parse(edge("shared", `{mode: Manage, capture: Native, targetRefs: [{name: http}]}`)), client.DryRunAll)
	if !refused(err) || !strings.Contains(err.Error(), "Deployments") {
		t.Errorf("got %v, want a refusal that names Deployments", err)
	}
}

// TestTheRoleForAuthorsIsEnough, and is for the namespace that it is given in.
func TestTheRoleForAuthorsIsEnough(t *testing.T) {
	if err := installed(t).Apply(t.Context(), `
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: authors, namespace: edge}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: isthmus-author}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: by-role}]
`); err != nil {
		t.Fatal(err)
	}
	granted(t, "by-role", createPolicies) // of all the role's rights this is one, and they come together
	author := user(t, "by-role")
	for name, spec := range map[string]string{
		"a-gateway": `{mode: Manage, targetRefs: [{name: http}], waypoint: {policy: Create, name: w}}`, "a-workload": capturing,
		"ingresses": `{mode: Manage, workloadRefs: [{kind: DaemonSet, name: gateway}], backends: {from: Ingresses}}`,
	} {
		e := parse(held(name, spec))
		if err := author.Create(t.Context(), e, client.DryRunAll); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := installed(t).Apply(t.Context(), held(name, spec)); err != nil {
			t.Fatal(err)
		}
		if err := author.Delete(t.Context(), e, client.DryRunAll); err != nil {
			t.Errorf("delete %s: %v", name, err)
		}
	}
	elsewhere := parse(edge("elsewhere", capturing))
	elsewhere.SetNamespace("default")
	if err := author.Create(t.Context(), elsewhere, client.DryRunAll); err == nil {
		t.Error("it is enough in another namespace too")
	}
}

func TestManyReferencesNeedTheRightToAll(t *testing.T) {
	installed(t)
	spec := `{mode: Manage, capture: Native, workloadRefs: [{kind: Deployment, name: a}, {kind: Deployment, name: b}, {kind: Deployment, name: gateway}], backends: {services: [{namespace: shop, name: orders}]}}`
	err := user(t, "many-some", patchDeployment, createPolicies).Create(t.Context(), parse(edge("many", spec)), client.DryRunAll)
	if !refused(err) || !strings.Contains(err.Error(), "Deployments") {
		t.Errorf("with the right to one: %v", err)
	}
	all := `{apiGroups: [apps], resources: [deployments], verbs: [patch]}`
	if err := user(t, "many-all", all, createPolicies).Create(t.Context(), parse(edge("many", spec)), client.DryRunAll); err != nil {
		t.Errorf("with the right to all: %v", err)
	}
}

func TestObserveNeedsNoRights(t *testing.T) {
	installed(t)
	nobody := user(t, "nobody")
	for _, mode := range []string{"mode: Observe, ", ""} {
		spec := `{` + mode + `workloadRefs: [{kind: Deployment, name: gateway}], backends: {services: [{namespace: edge, name: orders}]}}`
		if err := nobody.Create(t.Context(), parse(edge("looks", spec)), client.DryRunAll); err != nil {
			t.Error(err)
		}
	}
}

func TestChangesAreCheckedAsCreationIs(t *testing.T) {
	m := installed(t)
	nobody := user(t, "nobody")
	ctx := t.Context()
	if err := m.Apply(ctx, edge("theirs", manages)); err != nil { // by the administrator
		t.Fatal(err)
	}
	patch := func(c client.Client, what string) error {
		u := parse(edge("theirs", "{}"))
		return c.Patch(ctx, u, client.RawPatch("application/merge-patch+json", []byte(what)), client.DryRunAll)
	}
	for name, what := range map[string]string{
		"another workload":    `{"spec":{"workloadRefs":[{"kind":"Deployment","name":"other"}]}}`,
		"another backend":     `{"spec":{"backends":{"services":[{"namespace":"shop","name":"orders"}]}}}`,
		"undo is confirmed":   `{"metadata":{"annotations":{"isthmus.dev/undo":"confirmed"}}}`,
		"what stays is taken": `{"spec":{"onDelete":"Keep"}}`,
		"it is to look only":  `{"spec":{"mode":"Observe"}}`,
		"both in one":         `{"metadata":{"annotations":{"isthmus.dev/undo":"confirmed"}},"spec":{"mode":"Observe"}}`,
		"it is to begin":      `{"metadata":{"annotations":{"isthmus.dev/begin":"confirmed"}}}`,
		"a plan is approved":  `{"metadata":{"annotations":{"isthmus.dev/plan":"confirmed"}}}`,
		"it gets an owner":    `{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":"x","uid":"x"}]}}`,
	} {
		if err := patch(nobody, what); !refused(err) {
			t.Errorf("%s: %v, want a refusal", name, err)
		}
	}
	for name, what := range map[string]string{
		"a label":              `{"metadata":{"labels":{"a":"b"}}}`,
		"nothing":              `{}`,
		"a finalizer is added": `{"metadata":{"finalizers":["isthmus.dev/undo"]}}`,
	} {
		if err := patch(nobody, what); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	approved := strings.Replace(edge("approved", manages), "name: approved", `annotations: {isthmus.dev/plan: confirmed}, name: approved`, 1)
	if err := m.Apply(ctx, approved); err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{`null`, `"other"`} {
		patch := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"annotations":{"isthmus.dev/plan":`+what+`}}}`))
		if err := nobody.Patch(ctx, parse(approved), patch, client.DryRunAll); !refused(err) {
			t.Errorf("its approval becomes %s: %v, want a refusal", what, err)
		}
	}
	looks := parse(edge("looking", `{mode: Observe, workloadRefs: [{kind: Deployment, name: gateway}], backends: {services: [{namespace: edge, name: orders}]}}`))
	if err := nobody.Create(ctx, looks); err != nil {
		t.Fatal(err)
	}
	if err := nobody.Patch(ctx, looks, client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"mode":"Manage"}}`)), client.DryRunAll); !refused(err) {
		t.Errorf("from Observe to Manage: %v, want a refusal", err)
	}
}
