package wdstest

import (
	"fmt"
	"net/netip"
	"strconv"

	"github.com/isthmus-mesh/isthmus/hbone/route"
)

// Fill makes a mesh of that many Services of some workloads each, as a large cluster has them: Service n is FillService(n), its workloads
// are FillWorkload(n, 0) and on. Clients that are connected already are not told.
func (i *Istiod) Fill(services, each int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for n := range services {
		i.version++
		s := FillService(n)
		i.put(serviceResource(s, strconv.Itoa(i.version)))
		for m := range each {
			w := FillWorkload(n, m)
			i.put(workloadResource(w, strconv.Itoa(i.version)))
		}
	}
}

// FillService is a Service of Fill.
func FillService(n int) *route.Service {
	name, ns := fmt.Sprintf("service-%d", n), fmt.Sprintf("team-%d", n%100)
	return &route.Service{
		Name: name, Namespace: ns, Hostname: name + "." + ns + ".svc.cluster.local",
		Addresses: []route.NetAddr{{IP: fillIP(10, n)}}, Ports: []route.Port{{Service: 80, Target: 8080}, {Service: 443, Target: 8443}},
	}
}

// FillWorkload is a workload of Fill: the m-th of Service n.
func FillWorkload(n, m int) *route.Workload {
	s := FillService(n)
	name := fmt.Sprintf("service-%d-7d9f6b8c5-%05d", n, m)
	return &route.Workload{
		UID: "Kubernetes//Pod/" + s.Namespace + "/" + name, Name: name, Namespace: s.Namespace, ServiceAccount: fmt.Sprintf("service-%d", n),
		Addresses: []netip.Addr{fillIP(byte(20+m%200), n)}, Tunnel: route.TunnelHBONE,
		Locality: route.Locality{Region: "europe-west1", Zone: fmt.Sprint("europe-west1-", n%3), Node: fmt.Sprint("node-", n%1000), ClusterID: "Kubernetes"},
		Services: []route.Member{{Service: s.Key()}}, Capacity: 1,
	}
}

func fillIP(first byte, n int) netip.Addr {
	return netip.AddrFrom4([4]byte{first, byte(n >> 16), byte(n >> 8), byte(n)})
}
