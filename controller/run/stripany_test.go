package run

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// TestCachesKeepLittleOfWhatHasNoType: what plans look at stays, and none of the rest, be it ever so long.
func TestCachesKeepLittleOfWhatHasNoType(t *testing.T) {
	long := strings.Repeat("x", 10_000)
	for name, c := range map[string]struct{ object, want string }{
		"a webhook's certificates": {
			`{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingWebhookConfiguration, metadata: {name: a}, webhooks: [{name: b, clientConfig: {caBundle: LONG, service: {namespace: ns, name: s}}}]}`,
			`{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingWebhookConfiguration, metadata: {name: a}, webhooks: [{clientConfig: {service: {namespace: ns, name: s}}}]}`,
		},
		"an aggregated API's": {
			`{apiVersion: apiregistration.k8s.io/v1, kind: APIService, metadata: {name: a}, spec: {caBundle: LONG, service: {name: s}}, status: {conditions: [{message: LONG}]}}`,
			`{apiVersion: apiregistration.k8s.io/v1, kind: APIService, metadata: {name: a}, spec: {service: {name: s}}}`,
		},
		"names of a ServiceEntry's ports": {
			`{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: a, labels: {a: b}}, spec: {hosts: [a.test], resolution: STATIC, location: LONG, endpoints: [{address: 10.0.0.1, labels: {a: LONG}}], workloadSelector: {labels: {app: a}}, ports: [{name: LONG, number: 80, targetPort: 8080}]}}`,
			`{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: a, labels: {a: b}}, spec: {hosts: [a.test], resolution: STATIC, endpoints: [{address: 10.0.0.1}], workloadSelector: {labels: {app: a}}, ports: [{number: 80, targetPort: 8080}]}}`,
		},
		"what a route asks for beside methods": {
			`{apiVersion: gateway.networking.k8s.io/v1, kind: GRPCRoute, metadata: {name: a, annotations: {note: LONG}, managedFields: [{manager: m, operation: Apply}]}, spec: {hostnames: [a.test], parentRefs: [{name: p, port: 80}],
			  rules: [{name: LONG, matches: [{method: {service: s}, headers: [{type: Exact, name: LONG, value: LONG}]}], filters: [{type: RequestMirror, requestMirror: {backendRef: {name: m, port: 1}}}, {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: host, value: v}]}}],
			  backendRefs: [{name: s, port: 80, weight: 3}]}]},
			  status: {parents: [{controllerName: c, parentRef: {name: p}, conditions: [{type: Accepted, status: "True", observedGeneration: 1, message: LONG}]}]}}`,
			`{apiVersion: gateway.networking.k8s.io/v1, kind: GRPCRoute, metadata: {name: a}, spec: {hostnames: [a.test], parentRefs: [{name: p, port: 80}],
			  rules: [{matches: [{method: {service: s}, headers: [{type: Exact}]}], filters: [{type: RequestMirror, requestMirror: {backendRef: {name: m, port: 1}}}, {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: host, value: v}]}}],
			  backendRefs: [{name: s, port: 80}]}]},
			  status: {parents: [{controllerName: c, parentRef: {name: p}, conditions: [{type: Accepted, status: "True", observedGeneration: 1}]}]}}`,
		},
		"listeners": {
			`{apiVersion: gateway.networking.k8s.io/v1, kind: ListenerSet, metadata: {name: a}, spec: {parentRef: {name: g}, listeners: [{name: LONG}]}, status: {conditions: [{type: Accepted, status: "True", message: LONG}], listeners: [{name: LONG}]}}`,
			`{apiVersion: gateway.networking.k8s.io/v1, kind: ListenerSet, metadata: {name: a}, spec: {parentRef: {name: g}}, status: {conditions: [{type: Accepted, status: "True"}]}}`,
		},
		"the rest of a policy": {
			`{apiVersion: gateway.envoyproxy.io/v1alpha1, kind: BackendTrafficPolicy, metadata: {name: a}, spec: {routingType: Service, targetRefs: [{kind: Gateway, name: g}], loadBalancer: {type: ConsistentHash, consistentHash: {header: LONG}}, responseOverride: [LONG]}}`,
			`{apiVersion: gateway.envoyproxy.io/v1alpha1, kind: BackendTrafficPolicy, metadata: {name: a}, spec: {routingType: Service, targetRefs: [{kind: Gateway, name: g}], loadBalancer: {type: ConsistentHash}}}`,
		},
		"the rest of a list": {
			`{apiVersion: traefik.io/v1alpha1, kind: IngressRoute, metadata: {name: a}, spec: {routes: [{match: LONG, services: [{name: s, namespace: n, nativeLB: true, port: 80}]}, {match: LONG}]}}`,
			`{apiVersion: traefik.io/v1alpha1, kind: IngressRoute, metadata: {name: a}, spec: {routes: [{services: [{name: s, namespace: n, nativeLB: true}]}, {}]}}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := parsed(t, []byte(strings.ReplaceAll(c.object, "LONG", long)))
			if _, err := strip(o); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(parsed(t, []byte(c.want)).Object, o.Object); d != "" {
				t.Errorf("-want +kept\n%s", d)
			}
		})
	}
	hook := parsed(t, []byte(`{apiVersion: admissionregistration.k8s.io/v1, kind: MutatingWebhookConfiguration, metadata: {name: a}, webhooks: [{clientConfig: {service: {namespace: ns, name: s}}}, {clientConfig: {url: "https://x"}}]}`))
	want := plan.CalleesOf(hook)
	if stripAny(hook); len(want) != 1 || !cmp.Equal(want, plan.CalleesOf(hook)) {
		t.Errorf("callees are %v, and were %v", plan.CalleesOf(hook), want)
	}
}
