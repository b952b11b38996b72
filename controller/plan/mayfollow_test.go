package plan_test

import (
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// TestEnrolmentLooksWhereASwitchLeads: with one that is set already, a gateway goes by a Service's waypoint as soon as it is in the mesh.
func TestEnrolmentLooksWhereASwitchLeads(t *testing.T) {
	const deny = "---\n{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: p, namespace: shop}, spec: {action: DENY, targetRefs: [{kind: Service, group: \"\", name: orders}], rules: [{}]}}\n"
	for of, set := range map[string]string{
		"envoy-gateway":        "routingType: Service",
		"nginx-gateway-fabric": "useClusterIP: true",
		"ingress-nginx":        `nginx.ingress.kubernetes.io/service-upstream: "true"`,
		"haproxy-ingress":      `haproxy-ingress.github.io/service-upstream: "true"`,
	} {
		for _, is := range []bool{true, false} {
			text := golden(t, of+"-set-by-others", set, set)
			if !is {
				text = strings.ReplaceAll(text, set, strings.Replace(set, ":", "-not:", 1))
			}
			s := snapshot(t, text+deny)
			for i := range s.Namespaces {
				if ns := &s.Namespaces[i]; ns.Name == "edge" {
					ns.Labels, ns.ManagedFields = nil, nil
				}
			}
			for i := range s.Gateways {
				if g := &s.Gateways[i]; g.Namespace == "edge" {
					g.Spec.Infrastructure, g.ManagedFields = nil, nil
				}
			}
			for i := range s.Deployments {
				delete(s.Deployments[i].Spec.Template.Labels, plan.LabelDataplaneMode)
				s.Deployments[i].ManagedFields = nil
			}
			for i := range s.Pods {
				if p := &s.Pods[i]; p.Namespace != "shop" {
					p.Annotations = nil
					delete(p.Labels, plan.LabelDataplaneMode)
				}
			}
			p := plan.Make(s)
			enrolled := false
			for _, step := range p.Steps {
				enrolled = enrolled || step.Verb == plan.VerbEnrol && step.Write != nil
			}
			outside := false
			for _, f := range said(p, v1alpha1.FindingNotAdmitted) {
				outside = outside || f.Severity == v1alpha1.SeverityError && strings.Contains(f.Message, "stays outside")
			}
			if outside != is || enrolled && is {
				t.Errorf("%s, set: %t: enrolled: %t; %+v", of, is, enrolled, p.Findings)
			}
		}
	}
}
