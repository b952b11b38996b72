package capture

import (
	"net/netip"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/route"
	"github.com/isthmus-mesh/isthmus/hbone/wds"
	"github.com/isthmus-mesh/isthmus/hbone/wds/wdstest"
)

// TestTunnelsAreTakenUntilOthersKnow: a process whose pod leaves the mesh waits for istiod to say so, as others call port 15008 until they hear it.
func TestTunnelsAreTakenUntilOthersKnow(t *testing.T) {
	ip := netip.MustParseAddr("10.244.1.1")
	pod := func(tunnel route.Tunnel) *route.Workload {
		return &route.Workload{UID: "Kubernetes//Pod/shop/orders", Name: "orders", Namespace: "shop", Addresses: []netip.Addr{ip}, Tunnel: tunnel}
	}
	istiod := wdstest.New(t)
	istiod.SetWorkload(pod(route.TunnelHBONE))
	mesh, err := wds.New(wds.Config{Addresses: []string{istiod.Addr()}, Roots: istiod.Roots, Token: wdstest.Token,
		Node: wds.Node{IP: ip, Pod: "orders", Namespace: "shop", ServiceAccount: "orders"}})
	if err != nil {
		t.Fatal(err)
	}
	defer mesh.Close()
	p := &process{cfg: &config{IP: ip}, mesh: mesh}
	know := make(chan struct{})
	go func() {
		defer close(know)
		p.othersKnow(t.Context())
	}()
	select {
	case <-know:
		t.Fatal("it does not wait, though istiod says that the pod speaks HBONE")
	case <-time.After(300 * time.Millisecond):
	}
	began := time.Now()
	istiod.SetWorkload(pod(route.TunnelNone))
	<-know
	if took := time.Since(began); took < hearing {
		t.Errorf("it leaves others %v to hear it, too, want %v", took, hearing)
	}
}
