package explain

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// The objects of forms. A gateway of an unknown kind, of kgateway or of Istio; a Service that leads to a waypoint; a policy that only a waypoint enforces.
const (
	formMesh = `# cluster
{apiVersion: v1, kind: Namespace, metadata: {name: edge}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: istio-waypoint}, spec: {controllerName: istio.io/mesh-controller}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: edge}, spec: {controllerName: CONTROLLER}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: http, namespace: edge}, spec: {gatewayClassName: edge}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: kgateway, namespace: edge}, spec: {selector: {matchLabels: {kgateway: kgateway}}, template: {metadata: {labels: {app.kubernetes.io/name: kgateway, kgateway: kgateway}}, spec: {containers: [{name: c, image: "x/kgateway:v2", env: [{name: KGW_ENABLE_WAYPOINT, value: "true"}]}]}}}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r, namespace: shop, generation: 1}, spec: {parentRefs: [{name: http, namespace: edge}], rules: [{backendRefs: [{name: orders, port: 80}]}]}, status: {parents: [{parentRef: {name: http, namespace: edge}, controllerName: CONTROLLER, conditions: [{type: Accepted, status: "True", observedGeneration: 1}, {type: ResolvedRefs, status: "True", observedGeneration: 1}]}]}}
---
{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: never, namespace: shop}, spec: {action: DENY, targetRefs: [{kind: Service, name: orders}], rules: [{}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: waypoint-1, namespace: shop, labels: {gateway.networking.k8s.io/gateway-name: waypoint}}, spec: {serviceAccountName: waypoint}}
---
{apiVersion: v1, kind: Pod, metadata: {name: orders-1, namespace: shop, labels: {app: orders}, annotations: {ambient.istio.io/redirection: enabled}}, spec: {serviceAccountName: orders}}
---
`
	formGateway  = "{apiVersion: v1, kind: Pod, metadata: {name: http-1, namespace: edge, labels: {gateway.networking.k8s.io/gateway-name: http}, annotations: {ambient.istio.io/redirection: enabled}}, spec: {serviceAccountName: http}}\n---\n"
	formWaypoint = "{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: waypoint, namespace: shop}, spec: {gatewayClassName: istio-waypoint}, status: {addresses: [{value: 10.96.0.99}]}}\n---\n"
	formService  = `{apiVersion: v1, kind: Service, metadata: {name: orders, namespace: shop, labels: {istio.io/use-waypoint: waypoint, istio.io/ingress-use-waypoint: "true"}}, spec: {clusterIP: 10.96.0.7, selector: {app: orders}, ports: [{port: 80, targetPort: 8080}]}, status: {conditions: [{type: istio.io/WaypointBound, status: "True"}]}}`
)

const (
	kgateway = "kgateway.dev/kgateway"
	bound    = `status: {conditions: [{type: istio.io/WaypointBound, status: "True"}]}`
	byPoint  = "gateway > waypoint shop/waypoint > pods: deny"
	straight = "gateway > pods: allow"
)

// TestFormsOfWays: each way that a gateway's requests may take, and whether it is in doubt.
func TestFormsOfWays(t *testing.T) {
	for name, tt := range map[string]struct {
		controller string
		change     []string // old and new texts
		want       []string
		why        string
	}{
		"through the waypoint":                              {kgateway, nil, []string{byPoint}, "istiod has bound it"},
		"A1: a switch that is not set":                      {kgateway, []string{`, istio.io/ingress-use-waypoint: "true"`, ""}, []string{straight}, "istio.io/ingress-use-waypoint] is not true"},
		"A1: a switch that does nothing":                    {kgateway, []string{`name: KGW_ENABLE_WAYPOINT, value: "true"`, "name: X, value: another"}, []string{straight}, "KGW_ENABLE_WAYPOINT"},
		"A1: a gateway that has none":                       {"projectcontour.io/gateway-controller", []string{"gateway-name: http}", "gateway-name: http, projectcontour.io/owning-gateway-name: http, app: envoy-http}"}, []string{straight}, "Contour sends to pods"},
		"a gateway of a kind that is not known":             {"example.com/x", nil, []string{byPoint + "?", straight + "?"}, "what kind of gateway it is is not known"},
		"EP01: switched, and not in the mesh":               {kgateway, []string{"{ambient.istio.io/redirection: enabled}}, spec: {serviceAccountName: http}", "{}}, spec: {serviceAccountName: http}"}, []string{"gateway > pods (plaintext): allow"}, "nothing carries its connections"},
		"EP03: captured too late":                           {kgateway, []string{"annotations: {ambient.istio.io/redirection: enabled}}, spec: {serviceAccountName: http}", `annotations: {ambient.istio.io/redirection: enabled}, managedFields: [{manager: cni, operation: Update, time: "2026-01-02T00:00:00Z", fieldsV1: {"f:metadata": {"f:annotations": {"f:ambient.istio.io/redirection": {}}}}}]}, spec: {serviceAccountName: http}, status: {containerStatuses: [{state: {running: {startedAt: "2026-01-01T00:00:00Z"}}}]}`}, []string{straight}, "captured after it had connected"},
		"speaks HBONE itself":                               {"istio.io/gateway-controller", []string{"annotations: {ambient.istio.io/redirection: enabled}}, spec: {serviceAccountName: http}", "annotations: {}}, spec: {serviceAccountName: http}", "gateway-name: http}", "gateway-name: http, istio.io/dataplane-mode: none}"}, []string{byPoint}, "it speaks HBONE itself"},
		"has a sidecar":                                     {kgateway, []string{"annotations: {ambient.istio.io/redirection: enabled}}, spec: {serviceAccountName: http}", "annotations: {sidecar.istio.io/status: x}}, spec: {serviceAccountName: http}"}, []string{byPoint + "?", straight + "?", "gateway > pods (plaintext): allow?"}, ""},
		"A3: no waypoint, and istiod says so":               {kgateway, []string{formWaypoint, "", bound, `status: {conditions: [{type: istio.io/WaypointBound, status: "False", reason: Missing, message: "no waypoint"}]}`}, []string{straight}, "but istiod has not bound it (no waypoint): it fails open"},
		"A3: no waypoint, and istiod has said nothing":      {kgateway, []string{formWaypoint, "", bound, "status: {}"}, []string{straight}, "but there is no waypoint shop/waypoint: it fails open"},
		"no waypoint any more, and istiod still says so":    {kgateway, []string{formWaypoint, ""}, []string{byPoint + "?", straight + "?"}, ""},
		"A3: not programmed":                                {kgateway, []string{"{addresses: [{value: 10.96.0.99}]}", "{}", bound, "status: {}"}, []string{straight}, "has no address: it is not programmed"},
		"A7: for workloads":                                 {kgateway, []string{"metadata: {name: waypoint, namespace: shop}", "metadata: {name: waypoint, namespace: shop, labels: {istio.io/waypoint-for: workload}}", bound, "status: {}"}, []string{straight}, "is not for services"},
		"A3: of a namespace that it does not take":          {kgateway, []string{"metadata: {name: waypoint, namespace: shop}", "metadata: {name: waypoint, namespace: edge}", "istio.io/use-waypoint: waypoint,", "istio.io/use-waypoint: waypoint, istio.io/use-waypoint-namespace: edge,", bound, "status: {}"}, []string{straight}, "takes nothing from namespace shop"},
		"nobody says whether it is bound":                   {kgateway, []string{bound, "status: {}"}, []string{byPoint + "?", straight + "?"}, ""},
		"labelled none":                                     {kgateway, []string{"istio.io/use-waypoint: waypoint,", "istio.io/use-waypoint: none,"}, []string{straight}, "is labelled with a waypoint"},
		"a waypoint without a ready pod":                    {kgateway, []string{"spec: {serviceAccountName: waypoint}}", `spec: {serviceAccountName: waypoint}, status: {conditions: [{type: Ready, status: "False"}]}}`}, []string{byPoint}, ""},
		"headless":                                          {kgateway, []string{"clusterIP: 10.96.0.7", "clusterIP: None"}, []string{straight}, "the Service is headless"},
		"pods outside the mesh behind the waypoint":         {kgateway, []string{"annotations: {ambient.istio.io/redirection: enabled}}, spec: {serviceAccountName: orders}", "annotations: {}}, spec: {serviceAccountName: orders}"}, []string{"gateway > waypoint shop/waypoint > pods (plaintext): deny"}, ""},
		"no pods of the gateway":                            {kgateway, []string{formGateway, ""}, []string{byPoint + "?", "gateway > pods (plaintext): allow?"}, ""},
		"a Service whose endpoints are none of the cluster": {kgateway, []string{"selector: {app: orders}, ports", "ports"}, []string{"gateway > waypoint shop/waypoint > pods (plaintext): deny"}, ""},
		"a Service that is a name for something else":       {kgateway, []string{"clusterIP: 10.96.0.7, selector: {app: orders}", "type: ExternalName, externalName: x.example"}, []string{"gateway > waypoint shop/waypoint > pods (plaintext): deny?", "gateway > pods (plaintext): depends?"}, "the Service is a name for something else"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.ReplaceAll(formMesh, "CONTROLLER", tt.controller) + formGateway + formWaypoint + formService
			for i := 0; i < len(tt.change); i += 2 {
				if !strings.Contains(text, tt.change[i]) {
					t.Fatalf("%q is not there to be changed", tt.change[i])
				}
				text = strings.ReplaceAll(text, tt.change[i], tt.change[i+1])
			}
			a, err := From(worldOf(t, text), Question{From: Source{Key: keyOf(named2("edge", "http"))}, To: Target{Key: keyOf(named2("shop", "orders")), Port: "80"}})
			if err != nil {
				t.Fatal(err)
			}
			var got, why []string
			for i := range a.Ways {
				w := &a.Ways[i]
				doubt := ""
				if w.Doubt != "" {
					doubt = "?"
				}
				got = append(got, fmt.Sprintf("%s: %v%s", w.Short(), w.Verdict, doubt))
				why = append(append(why, w.Why...), w.Doubt)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q\n%s", got, tt.want, strings.Join(why, "\n"))
			}
			if !strings.Contains(strings.Join(why, "\n"), tt.why) {
				t.Errorf("%q is not among\n%s", tt.why, strings.Join(why, "\n"))
			}
		})
	}
}

// TestFilesLeaveMuchOpen: what files do not tell is in doubt, and what they tell is not.
func TestFilesLeaveMuchOpen(t *testing.T) {
	const deny = "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: never, namespace: shop}, spec: {action: DENY, rules: [{from: [{source: {namespaces: [web]}}]}]}}\n---\n"
	const pods = "{apiVersion: v1, kind: Pod, metadata: {name: orders-1, namespace: shop, labels: {app: orders}}, spec: {serviceAccountName: orders}}\n---\n"
	const service = "{apiVersion: v1, kind: Service, metadata: {name: orders, namespace: shop}, spec: {clusterIP: 10.96.0.7, selector: {app: orders}, ports: [{port: 80}]}}\n---\n"
	ambient := func(ns string) string {
		return "{apiVersion: v1, kind: Namespace, metadata: {name: " + ns + ", labels: {istio.io/dataplane-mode: ambient}}}\n---\n"
	}
	for name, tt := range map[string]struct {
		world string
		want  policy.Verdict
	}{
		"both are in the mesh":             {ambient("shop") + ambient("web") + pods + service + deny, policy.Deny},
		"whether the pods are is not said": {ambient("web") + pods + service + deny, policy.Depends},
		"nobody denies it in either case":  {ambient("web") + pods + service, policy.Allow},
		"the pods are outside":             {"{apiVersion: v1, kind: Namespace, metadata: {name: shop}}\n---\n" + pods + service + deny, policy.Allow},
		"a waypoint that no file has":      {ambient("shop") + pods + strings.Replace(service, "namespace: shop", "namespace: shop, labels: {istio.io/use-waypoint: waypoint}", 1) + strings.Replace(deny, "action", "targetRefs: [{kind: Service, name: orders}], action", 1), policy.Depends},
	} {
		a, err := From(worldOf(t, tt.world), Question{From: Source{Kind: "ServiceAccount", Key: keyOf(named2("web", "front"))}, To: Target{Key: keyOf(named2("shop", "orders"))}})
		if err != nil {
			t.Fatal(err)
		}
		if a.Verdict != tt.want {
			t.Errorf("%s: %s, want %v", name, a.Title(), tt.want)
		}
	}
}

func TestNamesAreParsed(t *testing.T) {
	for text, want := range map[string]string{
		"gateways/http": "gateways/http", "deploy/a/b": "deployment/a/b", "SA/a/b": "serviceaccount/a/b", "spiffe://x/ns/a/sa/b": "spiffe://x/ns/a/sa/b", "pod/a/b": "pod/a/b",
	} {
		if s, err := ParseSource(text); err != nil || s.String() != want {
			t.Errorf("%s is %q, %v", text, s, err)
		}
	}
	for text, want := range map[string]string{"a/b": "a/b", "svc/a/b:80": "a/b:80", "pod/a/b:http": "pod/a/b:http", "service/a/b": "a/b"} {
		if s, err := ParseTarget(text); err != nil || s.String() != want {
			t.Errorf("%s is %q, %v", text, s, err)
		}
	}
	for _, text := range []string{"", "a", "/a", "a/", "x/a/b", "a/b/c/d", "spiffe://", "http://x/ns/a/sa/b"} {
		if s, err := ParseSource(text); err == nil {
			t.Errorf("%q is %v", text, s)
		}
		if s, err := ParseTarget(text); err == nil {
			t.Errorf("%q is %v", text, s)
		}
	}
}
