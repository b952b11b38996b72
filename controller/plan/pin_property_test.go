package plan_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	securityapi "istio.io/api/security/v1beta1"
	typev1beta1 "istio.io/api/type/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/controller/policy"
	"github.com/isthmus-mesh/isthmus/controller/policy/policytest"
)

// pinWords are of policies at the waypoint: by callers, ports, methods and the header that is pinned.
var pinWords = policytest.Words{
	Principals: []string{"cluster.local/ns/edge/sa/http-istio", "cluster.local/ns/batch/sa/job", "cluster.local/ns/shop/*"}, Namespaces: []string{"batch", "edge"},
	Ports: []string{"80", "81"}, Methods: []string{"GET", "POST"}, Texts: []string{"acme", "evil", "*"}, Keys: []string{"request.headers[x-tenant-id]", "request.headers[x-other]"}, Often: 3,
}

// TestAPinChangesNothingButWhoSendsTheHeader: in random worlds of policies at the waypoint, whoever sends no such header gets the answer that he gets without the
// pin, by HTTP and on a port of other protocols; so does the gateway, whatever it sends; and nobody else gets in with the header.
func TestAPinChangesNothingButWhoSendsTheHeader(t *testing.T) {
	text, err := os.ReadFile("testdata/pin-a-header-of-a-claim.yaml")
	if err != nil {
		t.Fatal(err)
	}
	input, _, _ := strings.Cut(string(text), separator)
	input = strings.Replace(input, "ports: [{name: http, port: 80, targetPort: 8080}]", "ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp-raw, port: 81, targetPort: 8081}]", 1)
	gateway := spiffeid.RequireFromString("spiffe://cluster.local/ns/edge/sa/http-istio")
	callers := append(pairCallers(), gateway)
	pinned, let, denied := 0, 0, 0
	for seed := range *worlds / 3 {
		rng := rand.New(rand.NewPCG(uint64(seed), 11))
		s := snapshot(t, input)
		for i := range 1 + rng.IntN(3) {
			p := &securityv1.AuthorizationPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprint("p", i)}}
			p.Spec.TargetRefs = []*typev1beta1.PolicyTargetReference{{Kind: "Service", Name: "orders"}}
			if rng.IntN(3) == 0 {
				p.Spec.TargetRefs = []*typev1beta1.PolicyTargetReference{{Kind: "Gateway", Group: "gateway.networking.k8s.io", Name: "waypoint"}}
			}
			p.Spec.Action = policytest.Pick(rng, []securityapi.AuthorizationPolicy_Action{securityapi.AuthorizationPolicy_ALLOW, securityapi.AuthorizationPolicy_DENY})
			p.Spec.Rules = append(p.Spec.Rules, pinWords.Rule(rng))
			s.Policies = append(s.Policies, p)
		}
		pin := pinOf(t, plan.Make(s))
		if pin == nil {
			continue // somebody else is named who writes it
		}
		pinned++
		point := func(more ...*securityv1.AuthorizationPolicy) *policy.Point {
			return policy.New(policy.Mesh{AuthorizationPolicies: append(more, s.Policies...)}).Waypoint(
				policy.Target{Kind: policy.KindGateway, Namespace: "shop", Name: "waypoint"}, policy.Target{Kind: policy.KindService, Namespace: "shop", Name: "orders"})
		}
		before, after := point(), point(pin)
		for _, id := range callers {
			for _, r := range pinRequests(id) {
				was, is := before.Decide(&r), after.Decide(&r)
				_, sent := r.Headers["x-tenant-id"]
				switch {
				case id == gateway || !sent:
					if was.Verdict != is.Verdict {
						t.Fatalf("seed %d: %v with %v at %v: %v, and with the pin %v", seed, id, r.Headers, r.ServicePort, was, is)
					}
				case is.Verdict != policy.Deny:
					t.Fatalf("seed %d: %v with %v: %v", seed, id, r.Headers, is)
				case was.Verdict == policy.Allow:
					denied++
				}
				if is.Verdict == policy.Allow {
					let++
				}
			}
		}
	}
	if pinned < *worlds/4 || let == 0 || denied == 0 {
		t.Errorf("of %d worlds %d have a pin; %d requests are let in with it, and %d are not any more", *worlds, pinned, let, denied)
	}
}

// pinRequests are of a caller: with the header and without, and to a port where no requests are read.
func pinRequests(id spiffeid.ID) (list []policy.Request) {
	for _, method := range []string{"GET", "POST"} {
		r := policy.Request{Source: policy.Of(id), ServicePort: policy.Of[uint16](80), Protocol: policy.Of(policy.HTTP), Method: policy.Of(method), NoOtherHeaders: true}
		list = append(list, r)
		for _, value := range []policy.Header{{"acme"}, {"acme", "acme"}, {""}} {
			with := r
			with.Headers = map[string]policy.Values[policy.Header]{"x-tenant-id": policy.Of(value)}
			list = append(list, with)
		}
	}
	return append(list, policy.Request{Source: policy.Of(id), ServicePort: policy.Of[uint16](81), Protocol: policy.Of(policy.TCP)})
}

// pinOf is the policy of the plan's pin, or nil.
func pinOf(t *testing.T, p *plan.Plan) *securityv1.AuthorizationPolicy {
	t.Helper()
	for _, w := range p.Wanted() {
		if !strings.HasSuffix(w.Key.Name, "-pin") || w.Delete {
			continue
		}
		o := &securityv1.AuthorizationPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: w.Key.Namespace, Name: w.Key.Name}}
		spec, err := json.Marshal(w.Fields["spec"])
		if err == nil {
			err = json.Unmarshal(spec, &o.Spec)
		}
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	return nil
}
