package coordination

import (
	"fmt"
	"strings"
)

// Identities of the scene, as policies write them.
const (
	ingressID  = "cluster.local/ns/edge/sa/ingress-istio"
	gatewayID  = "cluster.local/ns/edge/sa/gateway"
	otherID    = "cluster.local/ns/shop/sa/other"
	webID      = "cluster.local/ns/envoy-gateway-system/sa/envoy-edge-web"
	waypointID = "cluster.local/ns/shop/sa/shared"
)

// vendor is what Envoy Gateway, whose gateway a gate plays, has in a cluster: its class, and as much of its kinds as the stories need.
const vendor = `
{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: eg}, spec: {controllerName: gateway.envoyproxy.io/gatewayclass-controller}}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: envoyproxies.gateway.envoyproxy.io}
spec:
  group: gateway.envoyproxy.io
  scope: Namespaced
  names: {kind: EnvoyProxy, listKind: EnvoyProxyList, plural: envoyproxies, singular: envoyproxy}
  versions: [{name: v1alpha1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, x-kubernetes-preserve-unknown-fields: true}}}}}]
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: clienttrafficpolicies.gateway.envoyproxy.io}
spec:
  group: gateway.envoyproxy.io
  scope: Namespaced
  names: {kind: ClientTrafficPolicy, listKind: ClientTrafficPolicyList, plural: clienttrafficpolicies, singular: clienttrafficpolicy}
  versions: [{name: v1alpha1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, x-kubernetes-preserve-unknown-fields: true}}}}}]
---
`

// scene is what all stories share: Istio's ingress gateway, a gateway that is captured, one of Envoy Gateway's whose pods are elsewhere, a waypoint, and
// somebody of the shop who calls. Each story has a Service of its own, led to the waypoint and the ingress gateway to it, if it does not lead it there itself.
func scene() string {
	var b strings.Builder
	b.WriteString(vendor + `
{apiVersion: v1, kind: Namespace, metadata: {name: edge, labels: {istio.io/dataplane-mode: ambient}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: envoy-gateway-system, labels: {istio.io/dataplane-mode: ambient}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}, annotations: {isthmus.dev/edges: edge/public}}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: orders, namespace: shop}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: shared, namespace: shop, labels: {istio.io/waypoint-for: service}}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: ingress, namespace: edge, annotations: {networking.istio.io/service-type: ClusterIP}}
spec: {gatewayClassName: istio, listeners: [{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web, namespace: edge}
spec:
  gatewayClassName: eg
  infrastructure: {parametersRef: {group: gateway.envoyproxy.io, kind: EnvoyProxy, name: addresses}}
  listeners: [{name: http, port: 8080, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]
---
{apiVersion: gateway.envoyproxy.io/v1alpha1, kind: EnvoyProxy, metadata: {name: addresses, namespace: edge}, spec: {routingType: Service}}
---
`)
	b.WriteString(gateObjects("edge", "gateway", "gateway", ", istio.io/dataplane-mode: ambient")) // so that nobody restarts it
	b.WriteString(gateObjects("envoy-gateway-system", "web", "envoy-edge-web", ", gateway.envoyproxy.io/owning-gateway-name: web, gateway.envoyproxy.io/owning-gateway-namespace: edge"))
	b.WriteString(gateObjects("shop", "other", "other", ""))
	for _, pod := range []string{"orders", "s01", "s02", "s03", "s04", "s12"} {
		b.WriteString(backendPod("shop", pod))
	}
	for _, name := range []string{"s01", "s02", "s03", "s04", "s12"} {
		b.WriteString(service("shop", name, name, ""))
	}
	b.WriteString(service("shop", "s05", "orders", "istio.io/use-waypoint: shared"))
	b.WriteString(service("shop", "s06", "orders", ""))
	for _, name := range []string{"s07", "s08", "s09", "s10", "s11", "s13", "s16"} {
		b.WriteString(service("shop", name, "orders", `istio.io/use-waypoint: shared, istio.io/ingress-use-waypoint: "true"`))
	}
	for _, name := range []string{"s05", "s07", "s08", "s09", "s10", "s11", "s12", "s16"} {
		b.WriteString(route(name, "ingress", name, ""))
	}
	b.WriteString(route("s11-web", "web", "s11", "") + route("s13-web", "web", "s13", ""))
	return b.String()
}

// gateObjects are a gate as the one pod of a Deployment. labels are the pod's on top of app, each with a comma before it.
func gateObjects(namespace, name, account, labels string) string {
	return fmt.Sprintf(`
{apiVersion: v1, kind: ServiceAccount, metadata: {name: %[3]s, namespace: %[1]s}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[2]s, namespace: %[1]s}
spec:
  selector: {matchLabels: {app: %[2]s}}
  template:
    metadata: {labels: {app: %[2]s%[4]s}}
    spec:
      serviceAccountName: %[3]s
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 0
      containers: [{name: gate, image: gate, readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}}]
---`, namespace, name, account, labels)
}

// backendPod is a pod of the backend.
func backendPod(namespace, name string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %[2]s, namespace: %[1]s, labels: {app: %[2]s}}
spec:
  serviceAccountName: orders
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 0
  containers: [{name: orders, image: orders, readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}}]
---`, namespace, name)
}

// service is a Service of a pod. Without labels it has none, so that nobody owns an empty set of them.
func service(namespace, name, pod, labels string) string {
	if labels != "" {
		labels = ", labels: {" + labels + "}"
	}
	return fmt.Sprintf(`
{apiVersion: v1, kind: Service, metadata: {name: %s, namespace: %s%s}, spec: {selector: {app: %s}, ports: [{name: http, port: 80, targetPort: 8080}]}}
---`, name, namespace, labels, pod)
}

// route sends what a Gateway of namespace edge gets for the host NAME.example.com, NAME being the route's up to a dash, to a Service of the shop.
func route(name, gateway, service, filters string) string {
	host, _, _ := strings.Cut(name, "-")
	return fmt.Sprintf(`
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: %s, namespace: shop}
spec:
  parentRefs: [{name: %s, namespace: edge}]
  hostnames: [%s.example.com]
  rules: [{filters: [%s], backendRefs: [{name: %s, port: 80}]}]
---`, name, gateway, host, filters, service)
}

// policyAt is an AuthorizationPolicy of the shop. at is "pods" or "waypoint": of the Service, or of its pods, that have the same name. rest is the rest of
// its spec.
func policyAt(at, name, service, rest string) string {
	target := "targetRefs: [{kind: Service, group: \"\", name: " + service + "}]"
	if at == "pods" {
		target = "selector: {matchLabels: {app: " + service + "}}"
	}
	return fmt.Sprintf(`
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: %s, namespace: shop}
spec: {%s, %s}
---`, name, target, rest)
}

// callers is a rule's from.
func callers(ids ...string) string {
	return "from: [{source: {principals: [" + strings.Join(ids, ", ") + "]}}]"
}

// ambientEdge is an AmbientEdge for what spec says of gateways, with one backend of the shop.
func ambientEdge(gateways, service string) string {
	return fmt.Sprintf(`
apiVersion: isthmus.dev/v1alpha1
kind: AmbientEdge
metadata: {name: public, namespace: edge}
spec:
  %s
  mode: Manage
  backends: {services: [{namespace: shop, name: %s}]}
  waypoint: {policy: Use, name: shared}
`, gateways, service)
}

// Gateways of an AmbientEdge.
const (
	ofGateway = "workloadRefs: [{kind: Deployment, name: gateway}]"
	ofIngress = "targetRefs: [{name: ingress}]"
)
