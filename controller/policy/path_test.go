package policy

import (
	"fmt"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	securityapi "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
)

func TestPath(t *testing.T) {
	const (
		gatewayAtPod  = "{spec: {action: ALLOW, selector: {matchLabels: {app: orders}}, rules: [{from: [{source: {principals: [cluster.local/ns/edge/sa/gateway]}}]}]}}"
		waypointAtPod = "{spec: {action: ALLOW, selector: {matchLabels: {app: orders}}, rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/waypoint]}}]}]}}"
		l4Deny        = "{spec: {action: DENY, selector: {matchLabels: {app: orders}}, rules: [{from: [{source: {namespaces: [edge]}}]}]}}"
		strictMesh    = "{kind: PeerAuthentication, metadata: {namespace: istio-system}, spec: {mtls: {mode: STRICT}}}"
		getOnly       = "{spec: {action: ALLOW, targetRefs: [{kind: Service, name: orders}], rules: [{to: [{operation: {methods: [GET]}}]}]}}"
		postNever     = "{spec: {action: DENY, targetRefs: [{kind: Service, name: orders}], rules: [{to: [{operation: {methods: [POST]}}]}]}}"
	)
	const past, by = "past", "by the waypoint"
	for name, tt := range map[string]struct {
		policies string
		waypoint bool
		change   func(*Request)
		want     string // the decision that it comes from
		way      string
	}{
		"B1: an ALLOW that names the gateway, without a waypoint": {gatewayAtPod, false, nil, "allow: an ALLOW policy matches", past},
		"B1: and with one":                              {gatewayAtPod, true, nil, "deny: no ALLOW policy matches (AuthorizationPolicy shop/a)", by},
		"the waypoint is admitted":                      {waypointAtPod, true, nil, "allow: an ALLOW policy matches", by},
		"A1: nobody passes it":                          {waypointAtPod, false, nil, "deny: no ALLOW policy matches", past},
		"a DENY at L4":                                  {l4Deny, false, nil, "deny: a DENY policy matches", past},
		"a DENY at L4 that a waypoint voids":            {l4Deny, true, nil, "allow: no policy asks", by},
		"A1: L7 is walked past without the waypoint":    {postNever, false, post, "allow: no policy asks", past},
		"and enforced by it":                            {postNever, true, post, "deny: a DENY policy matches (AuthorizationPolicy shop/a", by},
		"both points":                                   {getOnly + "\n---\n" + waypointAtPod, true, nil, "allow: an ALLOW policy matches (AuthorizationPolicy shop/b", by},
		"an unknown method":                             {getOnly + "\n---\n" + waypointAtPod, true, func(r *Request) { r.Method = Values[string]{} }, "depends on method (AuthorizationPolicy shop/a", by},
		"an unknown method that does not matter":        {getOnly + "\n---\n" + gatewayAtPod, true, func(r *Request) { r.Method = Values[string]{} }, "deny: no ALLOW policy matches (AuthorizationPolicy shop/b", by},
		"B10: from outside, to STRICT":                  {strictMesh, true, outside, "deny: plaintext is refused (PeerAuthentication istio-system/a", past},
		"from outside, past the waypoint":               {postNever, true, func(r *Request) { outside(r); post(r) }, "allow: no policy asks", past},
		"perhaps from outside":                          {postNever, true, func(r *Request) { post(r); r.Source = r.Source.OrAbsent() }, "depends on source identity", by},
		"perhaps from outside, which is denied as well": {postNever + "\n---\n" + strictMesh, true, func(r *Request) { post(r); r.Source = r.Source.OrAbsent() }, "deny: a DENY policy matches", by},
		"from who knows where":                          {postNever, true, func(r *Request) { post(r); anySource(r) }, "depends on source identity", by},
	} {
		t.Run(name, func(t *testing.T) {
			set := New(objects(t, tt.policies))
			p := Path{Workload: set.Ztunnel(pod), WaypointSource: Of(waypoint), WaypointIP: addr("10.244.1.8")}
			if tt.waypoint {
				p.Waypoint = set.Waypoint(shopWay, orders)
			}
			r := fromGateway()
			if tt.change != nil {
				tt.change(&r)
			}
			a := p.Decide(&r)
			d := a.Deciding()
			example{tt.policies, tt.want}.check(t, d)
			if d.Verdict != a.Verdict || a.ByWaypoint != (tt.way == by) {
				t.Errorf("%+v", a)
			}
		})
	}
	if a := (&Path{}).Decide(&Request{}); a.Verdict != Allow || a.ByWaypoint {
		t.Errorf("outside the mesh somebody decides: %+v", a)
	}
}

func post(r *Request) { r.Method = Of("POST") }

func Example() {
	allow := &securityv1.AuthorizationPolicy{}
	allow.Namespace, allow.Name = "shop", "orders"
	allow.Spec.Rules = []*securityapi.Rule{{From: []*securityapi.Rule_From{{Source: &securityapi.Source{Principals: []string{"cluster.local/ns/edge/sa/gateway"}}}}}}

	set := New(Mesh{AuthorizationPolicies: []*securityv1.AuthorizationPolicy{allow}})
	gateway := spiffeid.RequireFromString("spiffe://cluster.local/ns/edge/sa/gateway")
	path := Path{Workload: set.Ztunnel(Workload{Namespace: "shop"})}

	answer := path.Decide(&Request{Source: Of(gateway)})
	fmt.Println("now:", answer.Workload)

	path.Waypoint = set.Waypoint(Target{KindGateway, "shop", "waypoint"}, Target{KindService, "shop", "orders"})
	path.WaypointSource = Of(spiffeid.RequireFromString("spiffe://cluster.local/ns/shop/sa/waypoint"))
	answer = path.Decide(&Request{Source: Of(gateway), Protocol: Of(HTTP)})
	fmt.Println("at the waypoint:", answer.Waypoint)
	fmt.Println("behind it:", answer.Workload)
	for _, change := range path.Workload.WhyNot(&Request{Source: path.WaypointSource}) {
		fmt.Println(change)
	}
	// Output:
	// now: allow: an ALLOW policy matches (AuthorizationPolicy shop/orders rules[0])
	// at the waypoint: allow: no policy asks
	// behind it: deny: no ALLOW policy matches (AuthorizationPolicy shop/orders)
	// add cluster.local/ns/shop/sa/waypoint to rules[0].from[0].source.principals of AuthorizationPolicy shop/orders
}
