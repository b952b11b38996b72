package manifeststest

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	waypoint = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: edge, labels: {isthmus.dev/owner: edge.public, istio.io/waypoint-for: service}}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
`
	copied = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: copy, namespace: edge, labels: {isthmus.dev/owner: edge.public}}
spec: {gatewayClassName: other, listeners: [{name: http, port: 80, protocol: HTTP}]}
`
	ordersService = `{apiVersion: v1, kind: Service, metadata: {name: orders, namespace: edge}}`
	theNamespace  = `{apiVersion: v1, kind: Namespace, metadata: {name: edge}}`
	theDeployment = `{apiVersion: apps/v1, kind: Deployment, metadata: {name: gateway, namespace: edge}}`
	theDaemonSet  = `{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: gateway, namespace: edge}}`
	theGateway    = `{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: http, namespace: edge}}`
	theIngress    = `{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: orders, namespace: edge}}`
	theCopy       = `{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: copy, namespace: edge}}`
	theWaypoint   = `{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: waypoint, namespace: edge}}`
	theLock       = `{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: lock, namespace: edge}}`
	thePolicy     = `{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: theirs, namespace: edge}}`
	theEdge       = `{apiVersion: isthmus.dev/v1alpha1, kind: AmbientEdge, metadata: {name: bounds, namespace: edge}}`
)

// lockPolicy is an AuthorizationPolicy of the edge's namespace; selector ends with a comma, or is empty.
func lockPolicy(name, label, action, selector string) string {
	return "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: " + name + ", namespace: edge, labels: {" + label + "}}, spec: {" + selector +
		"action: " + action + ", rules: [{from: [{source: {principals: [cluster.local/ns/edge/sa/gateway]}}], to: [{operation: {ports: [\"8080\"]}}]}]}}"
}

// witnessService is a Service of the edge's namespace, more is of its spec, with a comma before it.
func witnessService(name, labels, more string) string {
	return "{apiVersion: v1, kind: Service, metadata: {name: " + name + ", namespace: edge, labels: {" + labels + "}}, spec: {ports: [{name: http, port: 80}]" + more + "}}"
}

// paired is an AuthorizationPolicy of the edge's namespace by a name that Pair gives.
func paired(name, label, action, at, rules string) string {
	return "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: " + name + ", namespace: edge, labels: {" + label + "}}, spec: {action: " + action + ", " + at + ", rules: " + rules + "}}"
}

const (
	owned     = "isthmus.dev/owner: edge.public"
	atService = "targetRefs: [{kind: Service, name: orders}]"
	atPods    = "selector: {matchLabels: {app: orders}}"
	someRule  = "[{from: [{source: {namespaces: [batch]}}]}]"
	admitted  = `[{from: [{source: {principals: [cluster.local/ns/edge/sa/waypoint]}}], to: [{operation: {ports: ["8080"]}}]}]`
	closed    = `[{from: [{source: {notPrincipals: [cluster.local/ns/edge/sa/waypoint]}}], to: [{operation: {ports: ["8080"]}}]}]`
	pinned    = `[{from: [{source: {notPrincipals: [cluster.local/ns/edge/sa/gateway]}}], to: [{operation: {ports: ["80"]}}], when: [{key: "request.headers[x-tenant-id]", values: ["*"]}]}]`
	shown     = "[{to: [{operation: {notPaths: [/isthmus/x]}}]}]"
)

// attempt is a write; an empty patch creates or deletes the object.
type attempt struct {
	name, object, patch string
	sub                 string
	delete              bool
}

func (a attempt) do(t *testing.T, c client.Client) error {
	t.Helper()
	u := parse(a.object)
	patch := client.RawPatch(types.MergePatchType, []byte(a.patch))
	switch {
	case a.delete:
		return c.Delete(t.Context(), u, client.DryRunAll)
	case a.patch == "" && a.sub != "":
		sub := &unstructured.Unstructured{}
		sub.SetGroupVersionKind(schema.GroupVersionKind{Group: "authentication.k8s.io", Version: "v1", Kind: "TokenRequest"})
		return c.SubResource(a.sub).Create(t.Context(), u, sub)
	case a.patch == "":
		return c.Create(t.Context(), u, client.DryRunAll)
	case a.sub != "":
		return c.SubResource(a.sub).Patch(t.Context(), u, patch, client.DryRunAll)
	}
	return c.Patch(t.Context(), u, patch, client.DryRunAll)
}

// bounds makes the objects that stand there while the controller tries.
func bounds(t *testing.T) {
	t.Helper()
	m := installed(t)
	if err := m.Apply(t.Context(), waypoint+"---\n"+copied+"---\n"+lockPolicy("lock", "isthmus.dev/owner: edge.public", "DENY", "selector: {matchLabels: {app: orders}}, ")+"\n---\n"+
		lockPolicy("theirs", "a: b", "ALLOW", "selector: {matchLabels: {app: orders}}, ")+"\n---\n"+
		witnessService("isthmus-witness-ours", owned, "")+"\n---\n"+witnessService("isthmus-witness-theirs", "a: b", "")+"\n---\n"+edge("bounds", manages)); err != nil {
		t.Fatal(err)
	}
}

func TestControllerDoesItsWork(t *testing.T) {
	bounds(t)
	c, err := as(installed(t), controllerUser, "system:serviceaccounts") // with the rights of its ClusterRole
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []attempt{
		{name: "label the namespace", object: theNamespace, patch: `{"metadata":{"labels":{"istio.io/dataplane-mode":"ambient"}}}`},
		{name: "set a Service's switch", object: ordersService, patch: `{"metadata":{"annotations":{"traefik.io/service.nativelb":"true","isthmus.dev/former":"{}"}}}`},
		{name: "set an Ingress's switch", object: theIngress, patch: `{"metadata":{"annotations":{"nginx.ingress.kubernetes.io/service-upstream":"true"}}}`},
		{name: "leave inbound connections of pods alone", object: theDeployment, patch: `{"spec":{"template":{"metadata":{"annotations":{"ambient.istio.io/bypass-inbound-capture":"true"}}}}}`},
		{name: "leave the DNS of pods alone", object: theDeployment, patch: `{"spec":{"template":{"metadata":{"annotations":{"ambient.istio.io/dns-capture":"false"}}}}}`},
		{name: "roll a DaemonSet", object: theDaemonSet, patch: `{"spec":{"template":{"metadata":{"annotations":{"isthmus.dev/rollout":"a"}}}}}`},
		{name: "leave inbound connections of a Gateway's pods alone", object: theGateway, patch: `{"spec":{"infrastructure":{"annotations":{"ambient.istio.io/bypass-inbound-capture":"true"}}}}`},
		{name: "leave the DNS of a Gateway's pods alone", object: theGateway, patch: `{"spec":{"infrastructure":{"annotations":{"ambient.istio.io/dns-capture":"false"}}}}`},
		{name: "unlabel it", object: theNamespace, patch: `{"metadata":{"labels":{"istio.io/dataplane-mode":null}}}`},
		{name: "wire a Service", object: ordersService, patch: `{"metadata":{"labels":{"istio.io/use-waypoint":"waypoint","istio.io/ingress-use-waypoint":"true"}}}`},
		{name: "label a Deployment's pods", object: theDeployment, patch: `{"spec":{"template":{"metadata":{"labels":{"istio.io/dataplane-mode":"ambient"}}}}}`},
		{name: "label a DaemonSet's pods", object: theDaemonSet, patch: `{"spec":{"template":{"metadata":{"labels":{"istio.io/dataplane-mode":"ambient"}}}}}`},
		{name: "label a Gateway's pods", object: theGateway, patch: `{"spec":{"infrastructure":{"labels":{"istio.io/dataplane-mode":"ambient"}}}}`},
		{name: "make a waypoint", object: `{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: another, namespace: edge, labels: {isthmus.dev/owner: edge.public}}, spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}}`},
		{name: "change a waypoint of ours", object: theWaypoint, patch: `{"metadata":{"labels":{"istio.io/waypoint-for":"all"}}}`},
		{name: "release a waypoint of ours", object: theWaypoint, patch: `{"metadata":{"labels":{"isthmus.dev/owner":null}}}`},
		{name: "delete a waypoint of ours", object: theWaypoint, delete: true},
		{name: "lock pods", object: lockPolicy("x", "isthmus.dev/owner: edge.public", "DENY", "selector: {matchLabels: {app: orders}}, ")},
		{name: "change a lock of ours", object: theLock, patch: `{"spec":{"rules":[{"from":[{"source":{"principals":["cluster.local/ns/edge/sa/other"]}}]}]}}`},
		{name: "release a lock of ours", object: theLock, patch: `{"metadata":{"labels":{"isthmus.dev/owner":null}}}`},
		{name: "delete a lock of ours", object: theLock, delete: true},
		{name: "close pods to all but a waypoint", object: paired("isthmus-lock-orders-b", owned, "DENY", atPods, closed)},
		{name: "have a waypoint deny", object: paired("isthmus-pair-orders-a-deny", owned, "DENY", atService, someRule)},
		{name: "have a waypoint deny what else leads there", object: paired("isthmus-pair-stock-a-guard", owned, "DENY", atService, someRule)},
		{name: "have a waypoint allow", object: paired("isthmus-pair-orders-a-allow", owned, "ALLOW", atService, someRule)},
		{name: "have a waypoint allow nobody", object: paired("isthmus-pair-orders-a-allow", owned, "ALLOW", atService, "[]")},
		{name: "admit a waypoint", object: paired("isthmus-pair-orders-a-admit", owned, "ALLOW", atPods, admitted)},
		{name: "have a waypoint deny a header to others", object: paired("isthmus-pair-orders-a-pin", owned, "DENY", atService, pinned)},
		{name: "have a waypoint show what it enforces", object: paired("isthmus-witness-a", owned, "DENY", "targetRefs: [{kind: Service, name: isthmus-witness-a}]", shown)},
		{name: "make a witness", object: witnessService("isthmus-witness-b", owned+", istio.io/use-waypoint: waypoint", "")},
		{name: "delete a witness of ours", object: witnessService("isthmus-witness-ours", owned, ""), delete: true},
		{name: "hold an AmbientEdge", object: theEdge, patch: `{"metadata":{"finalizers":["isthmus.dev/undo"]}}`},
		{name: "report", object: theEdge, patch: `{"status":{"observedGeneration":1}}`, sub: "status"},
		{name: "take the lease", object: `{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: isthmus-controller, namespace: isthmus-system}}`},
		{name: "tell", object: `{apiVersion: v1, kind: Event, metadata: {name: x, namespace: isthmus-system}, involvedObject: {namespace: isthmus-system}}`},
	} {
		if err := a.do(t, c); err != nil {
			t.Errorf("%s: %v", a.name, err)
		}
	}
}

func TestControllerHasBounds(t *testing.T) {
	bounds(t)
	c, err := as(installed(t), controllerUser, "system:masters") // as if its ClusterRole admitted everything
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []attempt{
		{name: "make a ConfigMap", object: configMap},
		{name: "make a Secret", object: `{apiVersion: v1, kind: Secret, metadata: {name: x, namespace: edge}}`},
		{name: "make a Pod", object: `{apiVersion: v1, kind: Pod, metadata: {name: x, namespace: edge, labels: {isthmus.dev/owner: a.b}}, spec: {containers: [{name: c, image: c}]}}`},
		{name: "make a ClusterRoleBinding", object: `{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: x}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}}`},
		{name: "make an AuthorizationPolicy", object: `{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: x, namespace: edge}, spec: {}}`},
		{name: "make a policy without our label", object: lockPolicy("x", "a: b", "DENY", "selector: {matchLabels: {app: orders}}, ")},
		{name: "make a policy that allows", object: lockPolicy("x", "isthmus.dev/owner: a.b", "ALLOW", "selector: {matchLabels: {app: orders}}, ")},
		{name: "make a policy for a whole namespace", object: lockPolicy("x", "isthmus.dev/owner: a.b", "DENY", "")},
		{name: "make a policy that denies everybody", object: strings.Replace(lockPolicy("x", "isthmus.dev/owner: a.b", "DENY", "selector: {matchLabels: {app: orders}}, "), "from: [{source: {principals: [cluster.local/ns/edge/sa/gateway]}}], ", "", 1)},
		{name: "make a policy that denies whoever has an identity", object: strings.Replace(lockPolicy("x", "isthmus.dev/owner: a.b", "DENY", "selector: {matchLabels: {app: orders}}, "), "cluster.local/ns/edge/sa/gateway", `"*"`, 1)},
		{name: "close pods by another name", object: paired("x", owned, "DENY", atPods, closed)},
		{name: "close pods without our label", object: paired("isthmus-lock-orders-b", "a: b", "DENY", atPods, closed)},
		{name: "open pods to all but a waypoint", object: paired("isthmus-lock-orders-b", owned, "ALLOW", atPods, closed)},
		{name: "close all pods of a namespace", object: paired("isthmus-lock-orders-b", owned, "DENY", "selector: {}", closed)},
		{name: "close all ports of pods", object: paired("isthmus-lock-orders-b", owned, "DENY", atPods, strings.Replace(closed, `, to: [{operation: {ports: ["8080"]}}]`, "", 1))},
		{name: "close pods to all but a namespace", object: paired("isthmus-lock-orders-b", owned, "DENY", atPods, strings.Replace(closed, "cluster.local/ns/edge/sa/waypoint", `"cluster.local/ns/edge/*"`, 1))},
		{name: "close pods to all but nobody", object: paired("isthmus-lock-orders-b", owned, "DENY", atPods, strings.Replace(closed, "cluster.local/ns/edge/sa/waypoint", "", 1))},
		{name: "close pods by namespaces too", object: paired("isthmus-lock-orders-b", owned, "DENY", atPods, strings.Replace(closed, "notPrincipals:", "namespaces: [shop], notPrincipals:", 1))},
		{name: "close pods twice", object: paired("isthmus-lock-orders-b", owned, "DENY", atPods, strings.TrimSuffix(closed, "]")+", {}]")},
		{name: "have a lock of ours allow", object: theLock, patch: `{"spec":{"action":"ALLOW"}}`},
		{name: "have a lock of ours deny everybody", object: theLock, patch: `{"spec":{"rules":[{}]}}`},
		{name: "give a lock to somebody else", object: theLock, patch: `{"metadata":{"labels":{"isthmus.dev/owner":"a.b"}}}`},
		{name: "change a policy of others", object: thePolicy, patch: `{"spec":{"action":"DENY"}}`},
		{name: "delete a policy of others", object: thePolicy, delete: true},
		{name: "have a waypoint allow by another name", object: paired("allow", owned, "ALLOW", atService, someRule)},
		{name: "have all waypoints of a Gateway allow", object: paired("isthmus-pair-orders-a-allow", owned, "ALLOW", "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: waypoint}]", someRule)},
		{name: "allow at pods by the name of a twin", object: paired("isthmus-pair-orders-a-allow", owned, "ALLOW", atPods, someRule)},
		{name: "have a waypoint allow what a name denies", object: paired("isthmus-pair-orders-a-deny", owned, "ALLOW", atService, someRule)},
		{name: "have a waypoint allow what a guard denies", object: paired("isthmus-pair-stock-a-guard", owned, "ALLOW", atService, someRule)},
		{name: "make a guard without our label", object: paired("isthmus-pair-stock-a-guard", "a: b", "DENY", atService, someRule)},
		{name: "admit everybody", object: paired("isthmus-pair-orders-a-admit", owned, "ALLOW", atPods, "[{}]")},
		{name: "admit a namespace", object: paired("isthmus-pair-orders-a-admit", owned, "ALLOW", atPods, strings.Replace(admitted, "cluster.local/ns/edge/sa/waypoint", `"cluster.local/ns/edge/*"`, 1))},
		{name: "admit to all ports", object: paired("isthmus-pair-orders-a-admit", owned, "ALLOW", atPods, "[{from: [{source: {principals: [cluster.local/ns/edge/sa/waypoint]}}]}]")},
		{name: "admit to all pods", object: paired("isthmus-pair-orders-a-admit", owned, "ALLOW", "selector: {}", admitted)},
		{name: "admit twice", object: paired("isthmus-pair-orders-a-admit", owned, "ALLOW", atPods, strings.TrimSuffix(admitted, "]")+", {}]")},
		{name: "admit a waypoint without our label", object: paired("isthmus-pair-orders-a-admit", "a: b", "ALLOW", atPods, admitted)},
		{name: "allow by the name of a pin", object: paired("isthmus-pair-orders-a-pin", owned, "ALLOW", atService, pinned)},
		{name: "pin a header at pods", object: paired("isthmus-pair-orders-a-pin", owned, "DENY", atPods, pinned)},
		{name: "pin for a whole waypoint", object: paired("isthmus-pair-orders-a-pin", owned, "DENY", "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: waypoint}]", pinned)},
		{name: "pin a header without our label", object: paired("isthmus-pair-orders-a-pin", "a: b", "DENY", atService, pinned)},
		{name: "deny whatever has no header by the name of a pin", object: paired("isthmus-pair-orders-a-pin", owned, "DENY", atService, strings.Replace(pinned, `, when: [{key: "request.headers[x-tenant-id]", values: ["*"]}]`, "", 1))},
		{name: "deny by a path by the name of a pin", object: paired("isthmus-pair-orders-a-pin", owned, "DENY", atService, strings.Replace(pinned, `ports: ["80"]`, `ports: ["80"], paths: [/]`, 1))},
		{name: "deny a principal by the name of a pin", object: paired("isthmus-pair-orders-a-pin", owned, "DENY", atService, strings.Replace(pinned, "notPrincipals", "principals", 1))},
		{name: "deny everybody a header", object: paired("isthmus-pair-orders-a-pin", owned, "DENY", atService, strings.Replace(pinned, "from: [{source: {notPrincipals: [cluster.local/ns/edge/sa/gateway]}}], ", "", 1))},
		{name: "pin a header to nobody that there is", object: paired("isthmus-pair-orders-a-pin", owned, "DENY", atService, strings.Replace(pinned, "cluster.local/ns/edge/sa/gateway", `"cluster.local/ns/edge/*"`, 1))},
		{name: "deny a value of a header by the name of a pin", object: paired("isthmus-pair-orders-a-pin", owned, "DENY", atService, strings.Replace(pinned, `["*"]`, "[acme]", 1))},
		{name: "deny by a condition that is about no header by the name of a pin", object: paired("isthmus-pair-orders-a-pin", owned, "DENY", atService, strings.Replace(pinned, "request.headers[x-tenant-id]", "source.namespace", 1))},
		{name: "allow by the name of a witness", object: paired("isthmus-witness-a", owned, "ALLOW", "targetRefs: [{kind: Service, name: isthmus-witness-a}]", shown)},
		{name: "deny others by the name of a witness", object: paired("isthmus-witness-a", owned, "DENY", atService, shown)},
		{name: "make a Service", object: witnessService("x", owned, "")},
		{name: "make a witness without our label", object: witnessService("isthmus-witness-b", "a: b", "")},
		{name: "make a witness with pods", object: witnessService("isthmus-witness-b", owned, ", selector: {app: orders}")},
		{name: "make a witness outside", object: witnessService("isthmus-witness-b", owned, `, externalIPs: ["192.0.2.1"]`)},
		{name: "make a witness that is elsewhere", object: witnessService("isthmus-witness-b", owned, ", type: ExternalName, externalName: example.com")},
		{name: "make a witness with labels of others", object: witnessService("isthmus-witness-b", owned+", app: x", "")},
		{name: "delete a witness of others", object: witnessService("isthmus-witness-theirs", "a: b", ""), delete: true},
		{name: "make an AmbientEdge", object: edge("x", manages)},
		{name: "make a Namespace", object: `{apiVersion: v1, kind: Namespace, metadata: {name: x}}`},
		{name: "make a Gateway without our label", object: `{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: x, namespace: edge}, spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}}`},
		{name: "make a Gateway of another class", object: `{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: x, namespace: edge, labels: {isthmus.dev/owner: a.b}}, spec: {gatewayClassName: some, listeners: [{name: a, port: 80, protocol: HTTP}]}}`},
		{name: "make a lease elsewhere", object: `{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: x, namespace: kube-system}}`},
		{name: "get a token of another account", object: `{apiVersion: v1, kind: ServiceAccount, metadata: {name: default, namespace: edge}}`, sub: "token"},

		{name: "delete a Service", object: ordersService, delete: true},
		{name: "delete the namespace", object: theNamespace, delete: true},
		{name: "delete a Gateway of others", object: theGateway, delete: true},
		{name: "delete a Gateway of others with a copied label", object: theCopy, delete: true},
		{name: "delete an AmbientEdge", object: theEdge, delete: true},
		{name: "delete a Deployment", object: theDeployment, delete: true},

		{name: "weaken pod security", object: theNamespace, patch: `{"metadata":{"labels":{"pod-security.kubernetes.io/enforce":"privileged"}}}`},
		{name: "take another label away", object: theNamespace, patch: `{"metadata":{"labels":{"kubernetes.io/metadata.name":null,"a":"b"}}}`},
		{name: "consent in another's name", object: theNamespace, patch: `{"metadata":{"annotations":{"isthmus.dev/edges":"edge/public"}}}`},
		{name: "choose the revision", object: theNamespace, patch: `{"metadata":{"labels":{"istio.io/rev":"x"}}}`},

		{name: "change a selector", object: ordersService, patch: `{"spec":{"selector":{"app":"mine"}}}`},
		{name: "add external IPs", object: ordersService, patch: `{"spec":{"externalIPs":["192.0.2.1"]}}`},
		{name: "change a label of others", object: ordersService, patch: `{"metadata":{"labels":{"app":"x"}}}`},
		{name: "remove a label of others", object: ordersService, patch: `{"metadata":{"labels":{"app":null}}}`},
		{name: "change an annotation", object: ordersService, patch: `{"metadata":{"annotations":{"note":"y"}}}`},
		{name: "remove an annotation", object: ordersService, patch: `{"metadata":{"annotations":null}}`},
		{name: "own a Service", object: ordersService, patch: `{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":"x","uid":"x"}]}}`},
		{name: "hold a Service", object: ordersService, patch: `{"metadata":{"finalizers":["isthmus.dev/undo"]}}`},
		{name: "change a Service's status", object: ordersService, patch: `{"status":{"conditions":[{"type":"x","status":"True","reason":"x","message":"x","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}`, sub: "status"},

		{name: "change an image", object: theDeployment, patch: `{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"mine"}]}}}}`},
		{name: "change the account", object: theDeployment, patch: `{"spec":{"template":{"spec":{"serviceAccountName":"other"}}}}`},
		{name: "annotate pods", object: theDeployment, patch: `{"spec":{"template":{"metadata":{"annotations":{"x":"y"}}}}}`},
		{name: "label pods otherwise", object: theDeployment, patch: `{"spec":{"template":{"metadata":{"labels":{"x":"y"}}}}}`},
		{name: "label a Deployment", object: theDeployment, patch: `{"metadata":{"labels":{"istio.io/dataplane-mode":"ambient"}}}`},
		{name: "change replicas", object: theDeployment, patch: `{"spec":{"replicas":0}}`},
		{name: "change scale", object: theDeployment, patch: `{"spec":{"replicas":0}}`, sub: "scale"},
		{name: "change a DaemonSet's image", object: theDaemonSet, patch: `{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"mine"}]}}}}`},

		{name: "annotate a DaemonSet", object: theDaemonSet, patch: `{"metadata":{"annotations":{"x":"y"}}}`},

		{name: "change listeners", object: theGateway, patch: `{"spec":{"listeners":[{"name":"x","port":81,"protocol":"HTTP"}]}}`},
		{name: "change the class", object: theGateway, patch: `{"spec":{"gatewayClassName":"istio-waypoint"}}`},
		{name: "claim a Gateway of others", object: theGateway, patch: `{"metadata":{"labels":{"isthmus.dev/owner":"edge.public"}}}`},
		{name: "annotate a Gateway's pods", object: theGateway, patch: `{"spec":{"infrastructure":{"annotations":{"x":"y"}}}}`},
		{name: "label a Gateway's pods otherwise", object: theGateway, patch: `{"spec":{"infrastructure":{"labels":{"team":"y"}}}}`},
		{name: "give a Gateway's pods parameters", object: theGateway, patch: `{"spec":{"infrastructure":{"parametersRef":{"group":"","kind":"ConfigMap","name":"x"}}}}`},
		{name: "give a waypoint away", object: theWaypoint, patch: `{"metadata":{"labels":{"isthmus.dev/owner":"other.edge"}}}`},
		{name: "make a waypoint another gateway", object: theWaypoint, patch: `{"spec":{"gatewayClassName":"some"}}`},

		{name: "lead an Ingress elsewhere", object: theIngress, patch: `{"spec":{"defaultBackend":{"service":{"name":"mine","port":{"number":80}}}}}`},
		{name: "annotate an Ingress otherwise", object: theIngress, patch: `{"metadata":{"annotations":{"nginx.ingress.kubernetes.io/server-snippet":"x"}}}`},
		{name: "label an Ingress", object: theIngress, patch: `{"metadata":{"labels":{"istio.io/use-waypoint":"x"}}}`},
		{name: "delete an Ingress", object: theIngress, delete: true},

		{name: "change an AmbientEdge", object: theEdge, patch: `{"spec":{"mode":"Observe"}}`},
		{name: "confirm undo", object: theEdge, patch: `{"metadata":{"annotations":{"isthmus.dev/undo":"confirmed"}}}`},
		{name: "label an AmbientEdge", object: theEdge, patch: `{"metadata":{"labels":{"a":"b"}}}`},
	} {
		if err := a.do(t, c); !refused(err) {
			t.Errorf("%s: %v, want a refusal", a.name, err)
		}
	}
}

// TestControllerHasBoundsWhereverItRuns: kustomize gives it another namespace or name, and does not know that CEL names either.
func TestControllerHasBoundsWhereverItRuns(t *testing.T) {
	bounds(t)
	lease := func(namespace string) string {
		return `{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: isthmus-controller, namespace: ` + namespace + `}}`
	}
	if err := installed(t).Apply(t.Context(), `{apiVersion: v1, kind: Namespace, metadata: {name: elsewhere}}`); err != nil {
		t.Fatal(err)
	}
	for _, account := range []string{"elsewhere:isthmus-controller", "elsewhere:team-isthmus-controller-v2"} {
		c, err := as(installed(t), "system:serviceaccount:"+account, "system:masters")
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range []attempt{
			{name: "make a ConfigMap", object: configMap},
			{name: "change a selector", object: ordersService, patch: `{"spec":{"selector":{"app":"mine"}}}`},
			{name: "make a lease in another namespace", object: lease("isthmus-system")},
		} {
			if err := a.do(t, c); !refused(err) {
				t.Errorf("%s: %s: %v, want a refusal", account, a.name, err)
			}
		}
		if err := (attempt{object: lease("elsewhere")}).do(t, c); err != nil {
			t.Errorf("%s: take the lease: %v", account, err)
		}
	}
}

func TestOthersAreNotBoundByTheControllersPolicy(t *testing.T) {
	bounds(t)
	c, err := as(installed(t), "administrator", "system:masters")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []attempt{
		{name: "make a ConfigMap", object: configMap},
		{name: "change a selector", object: ordersService, patch: `{"spec":{"selector":{"app":"mine"}}}`},
		{name: "delete a Gateway", object: theGateway, delete: true},
	} {
		if err := a.do(t, c); err != nil {
			t.Errorf("%s: %v", a.name, err)
		}
	}
}
