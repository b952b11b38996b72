package coordination

import (
	"net/http"
	"strings"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// ledTo leads a Service to the waypoint.
func ledTo() map[string]string { return map[string]string{plan.LabelUseWaypoint: "shared"} }

// ledAway leads it there no more.
func ledAway() map[string]string { return map[string]string{plan.LabelUseWaypoint: ""} }

// allowNamesTheGateway is B1: the gateway is let in by its identity, until pods see the waypoint's in its place.
func allowNamesTheGateway(s *stage) {
	gateway, other := request{by: "gateway", service: "s01"}, request{by: "other", service: "s01"}
	s.has(policyAt("pods", "a01", "s01", "action: ALLOW, rules: [{"+callers(gatewayID)+"}]"))
	s.gets(other, http.StatusBadGateway)
	s.getsPast(gateway)

	s.label("s01", ledTo())
	s.gets(gateway, http.StatusServiceUnavailable) // the waypoint does not get through
	s.check.Found(s.T, v1alpha1.SeverityError, "ISM205", "AuthorizationPolicy shop/a01", "cluster.local/ns/shop/sa/shared")

	s.label("s01", ledAway())
	s.getsPast(gateway)
	s.isKeptFrom("s01", "AuthorizationPolicy shop/a01", gateway)

	s.has(policyAt("waypoint", "a01-twin", "s01", "action: ALLOW, rules: [{"+callers(gatewayID)+"}]"))
	s.apply(policyAt("pods", "a01", "s01", "action: ALLOW, rules: [{"+callers(gatewayID, waypointID)+"}]"))
	s.isLed("s01")
	s.getsThrough(gateway)
	s.gets(other, http.StatusForbidden)
	s.check.Silent(s.T, "AuthorizationPolicy shop/a01", "ISM205")
}

// denyIsVoid is the other half of B1: who is denied comes in by the waypoint.
func denyIsVoid(s *stage) {
	gateway, other := request{by: "gateway", service: "s02"}, request{by: "other", service: "s02"}
	deny := "action: DENY, rules: [{" + callers(otherID) + "}]"
	s.has(policyAt("pods", "a02", "s02", deny))
	s.gets(other, http.StatusBadGateway)
	s.getsPast(gateway)

	s.label("s02", ledTo())
	s.getsThrough(other)
	s.check.Found(s.T, v1alpha1.SeverityError, "ISM205", "AuthorizationPolicy shop/a02", "what is to be denied comes in by the waypoint")

	s.label("s02", ledAway())
	s.gets(other, http.StatusBadGateway)
	s.isKeptFrom("s02", "AuthorizationPolicy shop/a02", gateway)
	s.gets(other, http.StatusBadGateway)

	s.has(policyAt("waypoint", "a02-twin", "s02", deny))
	s.isLed("s02")
	s.getsThrough(gateway)
	s.gets(other, http.StatusForbidden)
	s.check.Silent(s.T, "AuthorizationPolicy shop/a02", "ISM205")
}

// isKeptFrom has plan show, and the controller say, that a Service is not led to the waypoint while a policy at its pods would mean something else
// behind it. Who was answered is answered as before.
func (s *stage) isKeptFrom(service, policy string, answered request) {
	s.Helper()
	e := ambientEdge(ofGateway, service)
	shown := s.check.Plan(s.T, e)
	if f := shown.Finding(v1alpha1.FindingVoided, policy); f == nil || f.Fix == "" {
		s.Errorf("isthmus plan shows no way for %s: %+v", policy, shown.Findings)
	}
	if shown.Done || shown.Step("Service shop/"+service, v1alpha1.StepNext, v1alpha1.StepDone) != nil {
		s.Errorf("isthmus plan would lead Service shop/%s to its waypoint: %+v", service, shown.Steps)
	}
	is := s.joins(e, v1alpha1.ReasonBlocked)
	for _, f := range is.Status.Findings {
		if f.Code == v1alpha1.FindingVoided && f.Object == policy {
			s.getsPast(answered)
			return
		}
	}
	s.Errorf("the controller's findings are %+v", is.Status.Findings)
}

// isLed has the controller lead a Service to the waypoint.
func (s *stage) isLed(service string) {
	s.Helper()
	is := s.ready(v1alpha1.ReasonDone)
	if b := is.Status.Backends; len(b) != 1 || b[0].Service != "shop/"+service || b[0].Waypoint != "shop/shared" {
		s.Errorf("the controller's backends are %+v", b)
	}
}

// allowOfRequestsAtPods is B2: ztunnel reads no requests, and leaves the rule out.
func allowOfRequestsAtPods(s *stage) {
	get, post := request{by: "gateway", service: "s03", path: "/03"}, request{by: "gateway", service: "s03", path: "/03", method: http.MethodPost}
	s.getsPast(get)
	allow := "action: ALLOW, rules: [{to: [{operation: {methods: [GET]}}]}]"
	s.has(policyAt("pods", "a03", "s03", allow))
	s.gets(get, http.StatusBadGateway)
	s.check.Found(s.T, v1alpha1.SeverityError, "ISM211", "AuthorizationPolicy shop/a03", "targetRefs")

	s.moves("a03", "s03", allow)
	s.getsThrough(get)
	s.gets(post, http.StatusForbidden)
	if r := s.seen(get, http.StatusOK); r.Peer != "spiffe://"+gatewayID || r.Policy != "shop/a03" {
		s.Errorf("the waypoint has logged %+v", r)
	}
}

// denyOfRequestsAtPods is B3: the part about requests is left out, and what is left matches nothing.
func denyOfRequestsAtPods(s *stage) {
	admin, page := request{by: "gateway", service: "s04", path: "/admin"}, request{by: "gateway", service: "s04", path: "/page"}
	deny := "action: DENY, rules: [{to: [{operation: {paths: [/admin*]}}]}]"
	s.has(policyAt("pods", "a04", "s04", deny))
	s.check.Found(s.T, v1alpha1.SeverityError, "ISM212", "AuthorizationPolicy shop/a04", "targetRefs")
	s.holds("s04")
	s.getsPast(admin)

	s.moves("a04", "s04", deny)
	s.gets(admin, http.StatusForbidden)
	s.getsThrough(page)
}

// holds waits until the pods of a story have a policy that is newer than all that was made before: one that lets nobody but the gateway in.
func (s *stage) holds(service string) {
	s.Helper()
	mark := policyAt("pods", service+"-mark", service, "action: DENY, rules: [{"+callers(otherID)+"}]")
	s.apply(mark)
	s.gets(request{by: "other", service: service}, http.StatusBadGateway)
	s.remove(mark)
	s.getsPast(request{by: "other", service: service})
}

// moves attaches a policy to the Service in place of its pods, as the finding has it, and has the controller lead the Service to the waypoint, which it
// shows before.
func (s *stage) moves(policy, service, rest string) {
	s.Helper()
	s.remove(policyAt("pods", policy, service, rest))
	s.has(policyAt("waypoint", policy, service, rest))
	s.check.Found(s.T, v1alpha1.SeverityError, "ISM201", "AuthorizationPolicy shop/"+policy)
	e := ambientEdge(ofGateway, service)
	shown := s.check.Plan(s.T, e)
	if step := shown.Step("Service shop/"+service, v1alpha1.StepNext, v1alpha1.StepLater, v1alpha1.StepUnknown); shown.Blocked || step == nil || !strings.HasPrefix(step.ID, string(plan.VerbWire)) {
		s.Errorf("isthmus plan would not lead Service shop/%s to its waypoint: %+v", service, shown)
	}
	s.joins(e, v1alpha1.ReasonDone)
	s.isLed(service)
	s.check.Silent(s.T, "AuthorizationPolicy shop/"+policy, "ISM201", "ISM211", "ISM212")
}
