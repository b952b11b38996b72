package interop

import (
	"net/netip"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"istio.io/istio/pkg/workloadapi"
	"istio.io/istio/pkg/workloadapi/security"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/hbone/authz"
	"github.com/isthmus-mesh/isthmus/hbone/wds"
	"github.com/isthmus-mesh/isthmus/hbone/wds/wdstest"
)

// Istio's own packages of the workload API and ours live in one program, and ours reads what Istio's write: a Service behind a waypoint, its pods, and a policy.
func TestIstiosWorkloadAPI(t *testing.T) {
	istiod := wdstest.New(t)
	ip := func(text string) []byte { return netip.MustParseAddr(text).AsSlice() }
	set := func(name string, a *workloadapi.Address, aliases ...string) {
		istiod.SetRaw(wdstest.AddressType, name, marshal(t, a), aliases...)
	}
	service := func(s *workloadapi.Service, vip string) {
		s.Hostname = s.Name + "." + s.Namespace + ".svc.cluster.local"
		s.Addresses = []*workloadapi.NetworkAddress{{Address: ip(vip)}}
		set(s.Namespace+"/"+s.Hostname, &workloadapi.Address{Type: &workloadapi.Address_Service{Service: s}}, "/"+vip)
	}
	workload := func(w *workloadapi.Workload, at string) {
		w.Uid, w.Addresses = "Kubernetes//Pod/"+w.Namespace+"/"+w.Name, [][]byte{ip(at)}
		set(w.Uid, &workloadapi.Address{Type: &workloadapi.Address_Workload{Workload: w}}, "/"+at)
	}
	const waypointName = "waypoint.shop.svc.cluster.local"
	service(&workloadapi.Service{
		Name: "orders", Namespace: "shop", Ports: []*workloadapi.Port{{ServicePort: 80, TargetPort: 8080}},
		Waypoint: &workloadapi.GatewayAddress{
			Destination:   &workloadapi.GatewayAddress_Hostname{Hostname: &workloadapi.NamespacedHostname{Namespace: "shop", Hostname: waypointName}},
			HboneMtlsPort: 15008,
		},
	}, "10.96.0.1")
	service(&workloadapi.Service{Name: "waypoint", Namespace: "shop", Ports: []*workloadapi.Port{{ServicePort: 15008, TargetPort: 15008}}}, "10.96.0.2")
	workload(&workloadapi.Workload{
		Name: "waypoint-1", Namespace: "shop", ServiceAccount: "waypoint", TrustDomain: "cluster.local",
		Services: map[string]*workloadapi.PortList{"shop/" + waypointName: {Ports: []*workloadapi.Port{{ServicePort: 15008, TargetPort: 15008}}}},
	}, "10.244.1.2")
	service(&workloadapi.Service{
		Name: "cart", Namespace: "shop", Ports: []*workloadapi.Port{{ServicePort: 80, TargetPort: 0}}, SubjectAltNames: []string{"spiffe://cluster.local/ns/shop/sa/former"},
		LoadBalancing: &workloadapi.LoadBalancing{HealthPolicy: workloadapi.LoadBalancing_ALLOW_ALL},
	}, "10.96.0.3")
	workload(&workloadapi.Workload{
		Name: "cart-1", Namespace: "shop", ServiceAccount: "cart", TunnelProtocol: workloadapi.TunnelProtocol_HBONE, Status: workloadapi.WorkloadStatus_UNHEALTHY,
		Services: map[string]*workloadapi.PortList{"shop/cart.shop.svc.cluster.local": {Ports: []*workloadapi.Port{{ServicePort: 80, TargetPort: 9090}}}},
	}, "10.244.1.3")
	istiod.SetRaw(wdstest.PolicyType, "shop/closed", marshal(t, &security.Authorization{
		Name: "closed", Namespace: "shop", Scope: security.Scope_NAMESPACE, Action: security.Action_DENY,
		Groups: []*security.Group{{Rules: []*security.Rules{{Matches: []*security.Match{{DestinationPorts: []uint32{9091}}}}}}},
	}))

	mesh, err := wds.New(wds.Config{
		Addresses: []string{istiod.Addr()}, Roots: istiod.Roots, Token: wdstest.Token, Policies: true, Wildcard: true,
		Node: wds.Node{IP: netip.MustParseAddr("10.244.9.9"), Pod: "edge-1", Namespace: "edge", ServiceAccount: "gateway"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mesh.Close() })
	for address, want := range map[string]struct {
		kind          hbone.HopKind
		at, authority string
		peers         int
	}{
		"orders.shop.svc.cluster.local:80": {hbone.HopWaypoint, "10.244.1.2:15008", "10.96.0.1:80", 1},
		"10.96.0.3:80":                     {hbone.HopWorkload, "10.244.1.3:15008", "10.244.1.3:9090", 2},
	} {
		r, err := mesh.Resolve(t.Context(), "tcp", address)
		if err != nil {
			t.Error(err)
			continue
		}
		if h := r.Hops[0]; len(r.Hops) != 1 || h.Kind != want.kind || h.Addr.String() != want.at || h.Authority != want.authority || len(h.Peers) != want.peers {
			t.Errorf("%s leads to %+v", address, r)
		}
	}
	a := mesh.Authorizer(netip.MustParseAddr("10.244.1.3"))
	a.Wait = 10 * time.Second
	for port, allow := range map[string]bool{"9090": true, "9091": false} {
		if d := a.Decide(t.Context(), authz.Conn{Source: gateway, Dest: netip.MustParseAddrPort("10.244.1.3:" + port)}); d.Allow != allow || d.Missing {
			t.Errorf("port %s: %+v", port, d)
		}
	}
}

func marshal(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
