package check

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

func (w *World) portsVoid(found func(Finding)) {
	w.grouped(true, func(p *plan.Pod, list []firewall) (v1alpha1.Severity, bool) {
		if w.admits(list, p, end{}, hbonePort) != yes {
			return "", false
		}
		limits := false
		for i := range list {
			for _, r := range list[i].rules {
				limits = limits || len(r.peers) > 0 && len(r.ports) > 0 && !openTo(r.ports, p, hbonePort)
			}
		}
		return v1alpha1.SeverityInfo, limits && w.pointBefore(p).Decide(&policy.Request{}).Verdict == policy.Allow
	}, func(at Object, related []Object, pods []string, s v1alpha1.Severity) {
		found(Finding{
			Object: at, Field: "spec.ingress", Severity: s, Related: related,
			Message: fmt.Sprintf("everybody is admitted at TCP %d, and by it reaches every port of these pods: what rules say of other ports does not hold in "+
				"the mesh. Pods: %s", hbonePort, some(pods)),
			Fix: "say who may call which port by an AuthorizationPolicy",
		})
	})
}

// probeAddress is the source of the kubelet's probes to pods of the mesh.
func probeAddress() netip.Addr { return netip.AddrFrom4([4]byte{169, 254, 7, 127}) }

func (w *World) probes(found func(Finding)) {
	w.grouped(true, func(p *plan.Pod, list []firewall) (v1alpha1.Severity, bool) {
		for _, port := range probedPorts(p) {
			if w.admits(list, p, end{addr: probeAddress()}, port) == no {
				return v1alpha1.SeverityInfo, w.InMesh(p)
			}
		}
		return "", false
	}, func(at Object, related []Object, pods []string, s v1alpha1.Severity) {
		found(Finding{
			Object: at, Field: "spec.ingress", Severity: s, Related: related,
			Message: fmt.Sprintf("the kubelet's probes come from %s to pods of the mesh, which is not admitted: where the network plugin does not let the node "+
				"in anyway, these do not get ready: %s",
				probeAddress(), some(pods)),
			Fix: fmt.Sprintf("add a rule: {from: [{ipBlock: {cidr: %s/32}}]}", probeAddress()),
		})
	})
}

// probedPorts are the ports that HTTP and TCP probes of a pod go to.
func probedPorts(p *plan.Pod) []int32 {
	var list []int32
	for i := range p.Spec.Containers {
		c := &p.Spec.Containers[i]
		for _, probe := range []*corev1.Probe{c.ReadinessProbe, c.LivenessProbe, c.StartupProbe} {
			switch {
			case probe == nil:
			case probe.HTTPGet != nil && probe.HTTPGet.Port.StrVal != "":
				list = append(list, named(p, probe.HTTPGet.Port.StrVal))
			case probe.HTTPGet != nil:
				list = append(list, probe.HTTPGet.Port.IntVal)
			case probe.TCPSocket != nil && probe.TCPSocket.Port.StrVal == "":
				list = append(list, probe.TCPSocket.Port.IntVal)
			}
		}
	}
	return list
}
