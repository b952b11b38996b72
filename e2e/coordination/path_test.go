package coordination

import (
	"net/http"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/e2e/checktest"
)

// pastTheWaypoint is A1: a gateway looks up pods itself, and the waypoint is chosen by the Service's address.
func pastTheWaypoint(s *stage) {
	secret, page := request{by: "ingress", service: "s05", path: "/secret/05"}, request{by: "ingress", service: "s05", path: "/ok/05"}
	s.has(policyAt("waypoint", "a05", "s05", "action: ALLOW, rules: [{"+callers(ingressID, otherID)+", to: [{operation: {paths: [/ok/*]}}]}]"))
	s.gets(request{by: "other", service: "s05", path: "/secret/inside"}, http.StatusForbidden) // it is in force
	s.gets(secret, http.StatusOK)
	s.check.Found(s.T, v1alpha1.SeverityError, "ISM110", "Service shop/s05", "AuthorizationPolicy shop/a05")

	e := ambientEdge(ofIngress, "s05")
	shown := s.check.Plan(s.T, e)
	if step := shown.Step("Service shop/s05", v1alpha1.StepNext, v1alpha1.StepLater, v1alpha1.StepUnknown); shown.Blocked || step == nil {
		s.Errorf("isthmus plan does not show the switch: %+v", shown)
	}
	is := s.joins(e, v1alpha1.ReasonDone)
	if g := is.Status.Gateways; len(g) != 1 || g[0].Vendor != "istio" || g[0].Switch != edge.LabelIngressUseWaypoint+"=true" {
		s.Errorf("gateways are %+v", g)
	}
	s.gets(secret, http.StatusForbidden)
	s.gets(page, http.StatusOK)
	if r := s.seen(page, http.StatusOK); r.Peer != "spiffe://"+ingressID || r.Policy != "shop/a05" {
		s.Errorf("the waypoint has logged %+v", r)
	}
	s.check.Silent(s.T, "Service shop/s05", "ISM110")
}

// late is a waypoint that is never programmed: what its pods are to be is said in a ConfigMap that is not there.
const late = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: late, namespace: shop}
spec:
  gatewayClassName: istio-waypoint
  infrastructure: {parametersRef: {group: "", kind: ConfigMap, name: missing}}
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
`

// failOpen is A3: Istio leaves a waypoint out for many reasons, and what is led there goes to pods, past every policy of the waypoint.
func failOpen(s *stage) {
	const use, where = plan.LabelUseWaypoint, plan.LabelUseWaypointNamespace
	other := request{by: "other", service: "s06"}
	s.has(policyAt("waypoint", "a06", "s06", "action: DENY, rules: [{"+callers(otherID)+"}]"))
	s.has(late)
	labels := func(m map[string]string) func(*stage, checktest.Finding) {
		return func(s *stage, _ checktest.Finding) { s.label("s06", m) }
	}
	patch := func(s *stage, f checktest.Finding) { s.check.Mend(s.T, f) }
	for _, c := range []struct {
		name         string
		cause        func(*stage)
		severity     v1alpha1.Severity
		code, object string
		mend         func(*stage, checktest.Finding)
	}{
		{
			"it does not exist", func(s *stage) { s.label("s06", map[string]string{use: "shed"}) },
			v1alpha1.SeverityError, "ISM102", "Service shop/s06", labels(ledTo()),
		},
		{
			"the label is misspelt", func(s *stage) { s.label("s06", map[string]string{use: "", "istio.io/use_waypoint": "shared"}) },
			v1alpha1.SeverityWarning, "ISM116", "Service shop/s06", patch,
		},
		{
			"it is a gateway of another kind", func(s *stage) {
				s.label("s06", map[string]string{use: "web", where: "edge"})
			},
			v1alpha1.SeverityError, "ISM102", "Service shop/s06", labels(map[string]string{use: "shared", where: ""}),
		},
		{
			"it is never programmed", func(s *stage) { s.label("s06", map[string]string{use: "late"}) },
			v1alpha1.SeverityError, "ISM111", "Gateway shop/late", labels(ledTo()),
		},
		{
			"it is for workloads", func(s *stage) { s.waypointFor("workload") },
			v1alpha1.SeverityError, "ISM102", "Gateway shop/shared", patch,
		},
		{
			"it does not admit the namespace", func(s *stage) { s.waypointFor("service"); s.admits("elsewhere") },
			v1alpha1.SeverityError, "ISM114", "Gateway shop/shared", func(s *stage, _ checktest.Finding) { s.admits("shop") },
		},
	} {
		s.Run(c.name, func(t *testing.T) {
			s := s.of(t)
			c.cause(s)
			s.getsPast(other)
			f := s.check.Found(t, c.severity, c.code, c.object)
			c.mend(s, f)
			s.gets(other, http.StatusForbidden)
			s.check.Silent(t, c.object, c.code)
		})
	}
}

func (s *stage) sharedWaypoint() *gatewayv1.Gateway {
	return &gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "shared"}}
}

// waypointFor says what the waypoint is for.
func (s *stage) waypointFor(what string) {
	s.Helper()
	s.patch(s.sharedWaypoint(), map[string]any{"metadata": map[string]any{"labels": map[string]any{plan.LabelWaypointFor: what}}})
}

// admits has the waypoint admit one namespace alone.
func (s *stage) admits(namespace string) {
	s.Helper()
	s.patch(s.sharedWaypoint(), map[string]any{"spec": map[string]any{"listeners": []any{map[string]any{
		"name": "mesh", "port": 15008, "protocol": "HBONE", "allowedRoutes": map[string]any{"namespaces": map[string]any{
			"from": "Selector", "selector": map[string]any{"matchLabels": map[string]any{"kubernetes.io/metadata.name": namespace}},
		}},
	}}}})
}
