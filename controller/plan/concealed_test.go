package plan_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isthmus-mesh/isthmus/controller/plan"
)

const seekersEdge = `
{apiVersion: isthmus.dev/v1alpha1, kind: AmbientEdge, metadata: {name: seeker, namespace: edge},
 spec: {workloadRefs: [{kind: Deployment, name: gateway}], mode: Observe, backends: {services: [{namespace: victim, name: secret}]}, waypoint: WAYPOINT}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: edge, uid: n1}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: victim, annotations: {isthmus.dev/edges: other/edge}}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: gateway, namespace: edge}, spec: {selector: {matchLabels: {app: gateway}}, template: {metadata: {labels: {app: gateway}}}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: gateway-1, namespace: edge, labels: {app: gateway}}, spec: {serviceAccountName: gateway}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: istio-waypoint}, spec: {controllerName: istio.io/mesh-controller}}
`

const victims = `---
{apiVersion: v1, kind: Service, metadata: {name: secret, namespace: victim, uid: s1, labels: {LABELS}}, spec: {selector: {app: x}, clusterIP: CLUSTERIP}}
---
{apiVersion: v1, kind: Pod, metadata: {name: x-1, namespace: victim, labels: {app: x}}, spec: {serviceAccountName: x}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: waypoint, namespace: victim, labels: {istio.io/waypoint-for: workload}}, spec: {gatewayClassName: istio-waypoint}}
---
{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: hush, namespace: victim}, spec: {targetRefs: [{kind: Service, group: "", name: secret}]}}
---
{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: hush-too, namespace: victim}, spec: {selector: {matchLabels: {app: x}}}}
`

// TestWithoutConsentNothingIsTold: to make an edge that observes takes no rights, and its status is read by whoever made it. Whether a Service of a
// namespace without consent is there, with pods, policies and waypoints, makes no difference to it.
func TestWithoutConsentNothingIsTold(t *testing.T) {
	for name, waypoint := range map[string]string{
		"made": "{policy: Create, name: waypoint}", "by name": "{policy: Use, name: waypoint}", "what is there": "{policy: Use}", "none": "{policy: None}",
	} {
		t.Run(name, func(t *testing.T) {
			told := func(more string) string {
				s := snapshot(t, strings.Replace(seekersEdge, "WAYPOINT", waypoint, 1)+more)
				return describe(plan.Make(s), s.Edge)
			}
			none := told("")
			for _, word := range []string{"other/edge", "hush", "Policies:[v", "ISM1", "ISM2", "ISM308"} {
				if strings.Contains(none, word) {
					t.Errorf("%q is told:\n%s", word, none)
				}
			}
			if !strings.Contains(none, "ISM302") {
				t.Errorf("no consent is not told:\n%s", none)
			}
			for what, text := range map[string]string{
				"plain":    strings.NewReplacer("LABELS", "a: b", "CLUSTERIP", `"10.0.0.1"`).Replace(victims),
				"headless": strings.NewReplacer("LABELS", "a: b", "CLUSTERIP", "None").Replace(victims),
				"elsewhere": strings.NewReplacer("LABELS", "istio.io/use-waypoint: another, istio.io/use-waypoint-namespace: far", "CLUSTERIP", `"10.0.0.1"`).
					Replace(victims),
			} {
				if name == "what is there" && what == "elsewhere" {
					continue // nothing has to be written, and so it is planned for
				}
				if d := cmp.Diff(none, told(text)); d != "" {
					t.Errorf("a Service that is %s shows (-without +with):\n%s", what, d)
				}
			}
		})
	}
}
