package coordination

import (
	"net/http"
	"os"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/e2e/capture"
	"github.com/isthmus-mesh/isthmus/e2e/node"
)

// monitoringCutsTheEdge is B5: the first ALLOW of a workload refuses everybody whom it does not name. EI03 is the same of a gateway's own pods, whose clients
// have no identity at all.
func monitoringCutsTheEdge(s *stage) {
	scrape := callers("cluster.local/ns/monitoring/sa/prometheus")
	outside, other := request{by: "ingress", service: "s12"}, request{by: "other", service: "s12"}
	if os.Getenv(capture.ZtunnelEnv) != "" { // it goes on with connections that stood before the policy came
		s.apply(`
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a12, namespace: shop}
spec: {host: s12.shop.svc.cluster.local, trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 1}}}}
---`)
	}
	s.gets(outside, http.StatusOK)
	s.has(policyAt("pods", "a12", "s12", "action: ALLOW, rules: [{"+scrape+"}]"))
	s.gets(outside, http.StatusServiceUnavailable)
	s.gets(other, http.StatusBadGateway)
	s.check.Found(s.T, v1alpha1.SeverityError, "ISM206", "AuthorizationPolicy shop/a12", "Gateway edge/ingress", ingressID)

	s.apply(policyAt("pods", "a12", "s12", "action: ALLOW, rules: [{"+scrape+"}, {"+callers(ingressID)+"}]"))
	s.gets(outside, http.StatusOK)
	s.gets(other, http.StatusBadGateway)
	s.check.Silent(s.T, "AuthorizationPolicy shop/a12", "ISM206")

	if s.mesh.Node.Rules() != node.NFTables {
		s.Log("without nftables nobody decides about what gateways get in plaintext: their own clients are not cut")
		return
	}
	s.cutsItsClients(scrape)
}

// cutsItsClients has an ALLOW for monitoring at the pods of a captured gateway.
func (s *stage) cutsItsClients(scrape string) {
	s.Helper()
	var pods corev1.PodList
	if err := s.c.List(s.Context(), &pods, client.InNamespace("envoy-gateway-system"), client.MatchingLabels{"app": "web"}); err != nil || len(pods.Items) != 1 {
		s.Fatalf("%d pods of the gateway: %v", len(pods.Items), err)
	}
	pod := "Pod envoy-gateway-system/" + pods.Items[0].Name
	atGateway := func(rules string) string {
		return `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: scrapers, namespace: envoy-gateway-system}
spec: {selector: {matchLabels: {app: web}}, action: ALLOW, rules: [` + rules + `]}
---`
	}
	outside := request{by: "web", service: "s13"}
	s.gets(outside, http.StatusOK)
	s.has(atGateway("{" + scrape + "}"))
	s.gets(outside, 0)
	s.check.Found(s.T, v1alpha1.SeverityWarning, "ISM327", pod, "AuthorizationPolicy envoy-gateway-system/scrapers")

	s.apply(atGateway("{" + scrape + `}, {to: [{operation: {ports: ["8080"]}}]}`)) // an exception for its clients
	s.gets(outside, http.StatusOK)
	s.check.Silent(s.T, pod, "ISM327")
}

// sharedProxy is EI04: the Gateway is of one namespace, and the pods that send of another.
func sharedProxy(s *stage) {
	web := request{by: "web", service: "s13"}
	s.getsThrough(web)
	s.has(policyAt("waypoint", "a13", "s13", "action: ALLOW, rules: [{from: [{source: {namespaces: [edge]}}]}]"))
	s.gets(web, http.StatusForbidden)
	s.check.Found(s.T, v1alpha1.SeverityError, "ISM219", "AuthorizationPolicy shop/a13", "Gateway edge/web", webID)

	s.apply(policyAt("waypoint", "a13", "s13", "action: ALLOW, rules: [{"+callers(webID)+"}]"))
	s.getsThrough(web)
	s.gets(request{by: "other", service: "s13"}, http.StatusForbidden)
	s.check.Silent(s.T, "AuthorizationPolicy shop/a13", "ISM219", "ISM206")
}
