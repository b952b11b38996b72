package policy

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	typev1beta1 "istio.io/api/type/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	"sigs.k8s.io/yaml"
)

var (
	gateway  = id("cluster.local/ns/edge/sa/gateway")
	waypoint = id("cluster.local/ns/shop/sa/waypoint")
	orders   = Target{KindService, "shop", "orders"}
	shopWay  = Target{KindGateway, "shop", "waypoint"}
	pod      = Workload{"shop", map[string]string{"app": "orders", "tier": "back"}}
)

func id(s string) spiffeid.ID { return spiffeid.RequireFromString("spiffe://" + s) }

func addr(s string) Values[netip.Addr] { return Of(netip.MustParseAddr(s)) }

// objects reads policies; a name of none is its place in the text.
func objects(t testing.TB, text string) Mesh {
	t.Helper()
	var m Mesh
	for i, doc := range strings.Split(text, "\n---\n") {
		var kind struct{ Kind string }
		unmarshal(t, doc, &kind)
		name := string(rune('a' + i))
		switch kind.Kind {
		case kindPeerAuthentication:
			p := &securityv1.PeerAuthentication{}
			unmarshal(t, doc, p)
			if p.Name == "" {
				p.Name = name
			}
			m.PeerAuthentications = append(m.PeerAuthentications, p)
		case kindRequestAuthentication:
			p := &securityv1.RequestAuthentication{}
			unmarshal(t, doc, p)
			if p.Name == "" {
				p.Name = name
			}
			m.RequestAuthentications = append(m.RequestAuthentications, p)
		default:
			p := &securityv1.AuthorizationPolicy{}
			unmarshal(t, doc, p)
			if p.Name == "" {
				p.Name = name
			}
			if p.Namespace == "" {
				p.Namespace = "shop"
			}
			m.AuthorizationPolicies = append(m.AuthorizationPolicies, p)
		}
	}
	return m
}

func unmarshal(t testing.TB, text string, into any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
}

// toService attaches the AuthorizationPolicies that are attached nowhere, in namespace shop, to Service orders.
func toService(m Mesh) Mesh {
	for _, p := range m.AuthorizationPolicies {
		if len(refs(&p.Spec)) == 0 && p.Spec.Selector == nil && p.Namespace == "shop" {
			p.Spec.TargetRefs = []*typev1beta1.PolicyTargetReference{{Kind: KindService, Name: "orders"}}
		}
	}
	return m
}

// rule is an AuthorizationPolicy of one rule.
func ruled(action, rule string) string {
	return "{spec: {action: " + action + ", rules: [" + rule + "]}}"
}

// fromGateway is a request of the gateway of which much is known.
func fromGateway() Request {
	return Request{
		Source: Of(gateway), SourceIP: addr("10.244.1.5"), ServiceIP: addr("10.96.0.7"), ServicePort: Of(uint16(80)),
		WorkloadIP: addr("10.244.1.9"), WorkloadPort: Of(uint16(8080)), Protocol: Of(HTTP), Method: Of("GET"), Path: Of("/orders/1"),
		Host: Of("orders.shop"), NoOtherHeaders: true, RemoteIP: Absent[netip.Addr](), Token: Absent[Token](),
	}
}

// example is a policy, a request, and what the decision is to be, by its first words.
type example struct{ policies, want string }

func (e example) check(t *testing.T, d Decision) {
	t.Helper()
	if got := d.String(); !strings.HasPrefix(got, e.want) {
		t.Errorf("%s, want %s\nby %s", got, e.want, e.policies)
	}
	switch {
	case (d.Verdict == Depends) != (d.On != 0), d.Verdict == Depends && d.Reason != Undecided:
		t.Errorf("%+v contradicts itself", d)
	}
}
