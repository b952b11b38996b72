package plan_test

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// TestASwitchOfTwoServicesIsForBoth: it comes when both are served, and neither goes by its waypoint before.
func TestASwitchOfTwoServicesIsForBoth(t *testing.T) {
	const another = `---
{apiVersion: v1, kind: Service, metadata: {name: stock, namespace: shop, uid: s2, labels: {istio.io/use-waypoint: waypoint}, annotations: {SILENT}}, spec: {selector: {app: stock}, clusterIP: "10.96.0.8"}, status: {conditions: [{type: istio.io/WaypointBound, status: "True"}]}}
`
	for name, c := range map[string]struct {
		of, object string
		edits      []string
	}{
		"of an Ingress": {"ingress-nginx-set-by-others", "Ingress shop/orders", []string{
			`nginx.ingress.kubernetes.io/service-upstream: "true"`, "",
			"backend: {service: {name: orders, port: {number: 80}}}}]", "backend: {service: {name: orders, port: {number: 80}}}}, {path: /stock, pathType: Prefix, backend: {service: {name: stock, port: {number: 80}}}}]",
		}},
		"of a policy": {"nginx-gateway-fabric-set-by-others", "UpstreamSettingsPolicy shop/upstreams", []string{
			"targetRefs: [{group: core, kind: Service, name: orders}], useClusterIP: true", "targetRefs: [{group: core, kind: Service, name: orders}, {group: core, kind: Service, name: stock}]",
		}},
	} {
		for _, silent := range []bool{true, false} {
			says := ""
			if silent {
				says = `test/silent: "yes"`
			}
			s := snapshot(t, golden(t, c.of, c.edits...)+strings.Replace(another, "SILENT", says, 1))
			s.Edge.Spec.Backends = &v1alpha1.Backends{Services: []v1alpha1.ServiceRef{{Namespace: "shop", Name: "orders"}, {Namespace: "shop", Name: "stock"}}}
			for _, q := range plan.ServicesToAsk(s) {
				if q.Service.Annotations["test/silent"] == "" {
					s.Served[types.NamespacedName{Namespace: q.Service.Namespace, Name: q.Service.Name}] = plan.WaypointFact{Answers: true}
				}
			}
			p := plan.Make(s)
			w := stepsOf(p, c.object)[plan.VerbSwitch]
			if (w.Write == nil) != silent || silent && w.State != v1alpha1.StepLater {
				t.Errorf("%s: one is silent: %t, and the switch is %s: %s; %+v", name, silent, w.State, w.Reason, p.Findings)
			}
			for _, service := range []string{"shop/orders", "shop/stock"} {
				if b := backend(p.Status(s.Edge), service); b.Path != "gateway > pods of "+service {
					t.Errorf("%s: one is silent: %t, and the path of %s is %q", name, silent, service, b.Path)
				}
			}
		}
	}
}
