package controllertest

import (
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

var policyOfTheWaypoint = strings.NewReplacer("GROUP", "gateway.networking.k8s.io", "KIND", "Gateway", "NAME", "waypoint").Replace(policy)

// TestPoliciesOfAWaypointEndForNoServiceUnseen: a Service leaves a waypoint that stays, or is to be led to another one.
func TestPoliciesOfAWaypointEndForNoServiceUnseen(t *testing.T) {
	t.Parallel()
	const both = "  backends: {services: [{namespace: SHOP, name: orders}, {namespace: SHOP, name: bills}]}\n"
	for name, c := range map[string]struct{ spec, code, reason string }{
		"unwired": {edgeOfKgateway + "  backends: {services: [{namespace: SHOP, name: orders}]}\n", v1alpha1.FindingUndoHalted, v1alpha1.ReasonWaiting},
		"renamed": {strings.Replace(edgeOfKgateway, "name: waypoint}", "name: second}", 1) + both, v1alpha1.FindingPathChange, v1alpha1.ReasonBlocked},
	} {
		t.Run(name, func(t *testing.T) {
			s := kgatewaySite(t, "path-"+name)
			s.apply(`{apiVersion: v1, kind: Service, metadata: {name: bills, namespace: SHOP}, spec: {selector: {app: orders}, ports: [{port: 80}]}}`)
			before := s.state(false)
			s.apply(edgeOfKgateway + both)
			s.ready("public", v1alpha1.ReasonDone)
			s.apply(policyOfTheWaypoint)
			s.apply(c.spec)
			e, _ := s.ready("public", c.reason)
			if f := finding(e, c.code); f == nil || !strings.Contains(f.Message, s.shop+"/only-public") {
				t.Errorf("findings are %+v", e.Status.Findings)
			}
			time.Sleep(500 * time.Millisecond) // it must not go on by itself
			for _, service := range []string{"orders", "bills"} {
				if at := s.service(service).Labels[plan.LabelUseWaypoint]; at != "waypoint" {
					t.Errorf("%s leads to waypoint %q, past its policies", service, at)
				}
			}
			s.delete(object("security.istio.io/v1", "AuthorizationPolicy", s.shop, "only-public"))
			s.ready("public", v1alpha1.ReasonDone)
			if at := s.service("bills").Labels[plan.LabelUseWaypoint]; at == "waypoint" {
				t.Error("the policy is gone, and bills still leads to the waypoint")
			}
			s.delete(s.theEdge("public"))
			s.gone(s.theEdge("public"))
			s.same(before, false)
		})
	}
}

// TestPoliciesAtPodsComeBeforeTheWaypoint: one that tells callers apart keeps the Service from being wired, until it is mended as the finding says.
func TestPoliciesAtPodsComeBeforeTheWaypoint(t *testing.T) {
	t.Parallel()
	const callers = `
{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: NAME, namespace: SHOP},
 spec: {TARGET, action: ALLOW, rules: [{from: [{source: {principals: [cluster.local/ns/EDGE/sa/httpMORE]}}]}]}}
`
	s := kgatewaySite(t, "at-pods")
	s.apply(strings.NewReplacer("NAME", "callers", "TARGET", "selector: {matchLabels: {app: orders}}", "MORE", "").Replace(callers))
	before := s.state(false)
	s.apply(edgeOfKgateway)
	e, _ := s.ready("public", v1alpha1.ReasonBlocked)
	if f := finding(e, v1alpha1.FindingVoided); f == nil || f.Object != "AuthorizationPolicy "+s.shop+"/callers" || !strings.Contains(f.Fix, s.shop+"/sa/waypoint") {
		t.Errorf("findings are %+v", e.Status.Findings)
	}
	time.Sleep(500 * time.Millisecond) // it must not go on by itself
	s.same(before, false)
	s.apply(strings.NewReplacer("NAME", "twin", "TARGET", `targetRefs: [{kind: Service, group: "", name: orders}]`, "MORE", "").Replace(callers))
	s.apply(strings.NewReplacer("NAME", "callers", "TARGET", "selector: {matchLabels: {app: orders}}", "MORE", ", cluster.local/ns/SHOP/sa/waypoint").Replace(callers))
	s.ready("public", v1alpha1.ReasonDone)
}

// TestAWaypointIsLeftToWhoNeedsItToo: the AmbientEdge that made it goes, and one of another gateway stays. The last takes it away.
func TestAWaypointIsLeftToWhoNeedsItToo(t *testing.T) {
	t.Parallel()
	s := kgatewaySite(t, "heir")
	s.apply(strings.Replace(secondWorld, secondWorld[strings.Index(secondWorld, "{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: waypoint"):strings.Index(secondWorld, "{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: second")], "", 1))
	s.apply(`{apiVersion: v1, kind: Service, metadata: {name: bills, namespace: SHOP}, spec: {selector: {app: orders}, ports: [{port: 80}]}}`)
	s.settled("orders")
	s.apply(edgeOfKgateway)
	s.ready("public", v1alpha1.ReasonDone)
	s.apply(strings.NewReplacer("name: public", "name: second", "{name: http}", "{name: second}").Replace(edgeOfKgateway) +
		"  backends: {services: [{namespace: SHOP, name: bills}]}\n")
	s.ready("second", v1alpha1.ReasonDone)
	made := s.wayPoint()
	if !s.exists(made) {
		t.Fatal("there is no waypoint")
	}
	uid := made.UID
	s.delete(s.theEdge("public"))
	s.gone(s.theEdge("public"))
	if g := s.wayPoint(); !s.exists(g) || g.UID != uid || g.DeletionTimestamp != nil || g.Annotations[v1alpha1.AnnotationHeirs] != s.edge+"/second" {
		t.Errorf("the waypoint is %+v", g.ObjectMeta)
	}
	s.ready("second", v1alpha1.ReasonDone)
	s.delete(s.theEdge("second"))
	s.gone(s.theEdge("second"))
	if g := s.wayPoint(); s.exists(g) {
		t.Errorf("the last AmbientEdge has left the waypoint behind: %+v", g.ObjectMeta)
	}
}
