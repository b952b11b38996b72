package check

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// hbonePort is where ztunnel and waypoints take connections.
const hbonePort = 15008

// tri is what may be so.
type tri uint8

const (
	no tri = iota
	maybe
	yes
)

// firewall is the NetworkPolicies of a namespace that isolate pods in one direction.
type firewall struct {
	policy   *networkingv1.NetworkPolicy
	selector labels.Selector
	rules    []firewallRule
}

// firewallRule is a rule for either direction: who is at the other end, and at which ports.
type firewallRule struct {
	peers []networkingv1.NetworkPolicyPeer
	ports []networkingv1.NetworkPolicyPort
}

// firewalls are those of a namespace for what comes in, or goes out.
func (w *World) firewalls(namespace string, ingress bool) []firewall {
	return w.index().firewalls.of(w.newFirewalls)[ingress][namespace]
}

func (w *World) newFirewalls() map[bool]map[string][]firewall {
	walls := map[bool]map[string][]firewall{true: {}, false: {}}
	for _, p := range w.NetworkPolicies {
		selector, err := metav1.LabelSelectorAsSelector(&p.Spec.PodSelector)
		if err != nil {
			continue
		}
		types := p.Spec.PolicyTypes
		if len(types) == 0 || slices.Contains(types, networkingv1.PolicyTypeIngress) {
			f := firewall{p, selector, nil}
			for _, r := range p.Spec.Ingress {
				f.rules = append(f.rules, firewallRule{r.From, r.Ports})
			}
			walls[true][p.Namespace] = append(walls[true][p.Namespace], f)
		}
		if len(types) == 0 && len(p.Spec.Egress) > 0 || slices.Contains(types, networkingv1.PolicyTypeEgress) {
			f := firewall{p, selector, nil}
			for _, r := range p.Spec.Egress {
				f.rules = append(f.rules, firewallRule{r.To, r.Ports})
			}
			walls[false][p.Namespace] = append(walls[false][p.Namespace], f)
		}
	}
	return walls
}

// isolating are those that select a pod. None: everything goes.
func (w *World) isolating(p *plan.Pod, ingress bool) []firewall {
	var list []firewall
	for _, f := range w.firewalls(p.Namespace, ingress) {
		if f.selector.Matches(labels.Set(p.Labels)) {
			list = append(list, f)
		}
	}
	return list
}

// end is the other end of a connection: a pod, an address, or anybody. Anybody may be any, so that what is for some is for maybe.
type end struct {
	pod  *plan.Pod
	addr netip.Addr
}

// admits says whether policies let through a TCP connection, at a port of the pod that listens.
func (w *World) admits(list []firewall, at *plan.Pod, other end, port int32) tri {
	result := no
	for i := range list {
		for _, r := range list[i].rules {
			if openTo(r.ports, at, port) {
				result = max(result, w.isPeer(list[i].policy.Namespace, r.peers, other))
			}
		}
	}
	return result
}

// openTo says whether ports of a rule have a TCP port; at is the pod that listens, nil if it is not known.
func openTo(ports []networkingv1.NetworkPolicyPort, at *plan.Pod, port int32) bool {
	if len(ports) == 0 {
		return true
	}
	return slices.ContainsFunc(ports, func(p networkingv1.NetworkPolicyPort) bool {
		switch {
		case p.Protocol != nil && *p.Protocol != corev1.ProtocolTCP:
			return false
		case p.Port == nil:
			return true
		case p.Port.Type == intstr.String:
			return at != nil && named(at, p.Port.StrVal) == port
		case p.EndPort != nil:
			return p.Port.IntVal <= port && port <= *p.EndPort
		}
		return p.Port.IntVal == port
	})
}

func named(p *plan.Pod, name string) int32 {
	for i := range p.Spec.Containers {
		for _, is := range p.Spec.Containers[i].Ports {
			if is.Name == name {
				return is.ContainerPort
			}
		}
	}
	return 0
}

func (w *World) isPeer(namespace string, peers []networkingv1.NetworkPolicyPeer, other end) tri {
	if len(peers) == 0 {
		return yes
	}
	if other == (end{}) {
		return maybe
	}
	result := no
	for i := range peers {
		p := &peers[i]
		switch {
		case p.IPBlock != nil:
			result = max(result, inBlock(p.IPBlock, other))
		case other.pod != nil:
			result = max(result, w.isPod(namespace, p, other.pod))
		}
	}
	return result
}

func inBlock(b *networkingv1.IPBlock, other end) tri {
	addr := other.addr
	if other.pod != nil {
		var err error
		if addr, err = netip.ParseAddr(other.pod.Status.PodIP); err != nil {
			return maybe // it has none yet
		}
	}
	contains := func(s string) bool {
		prefix, err := netip.ParsePrefix(s)
		return err == nil && prefix.Contains(addr)
	}
	if contains(b.CIDR) && !slices.ContainsFunc(b.Except, contains) {
		return yes
	}
	return no
}

func (w *World) isPod(namespace string, peer *networkingv1.NetworkPolicyPeer, p *plan.Pod) tri {
	in := yes
	if peer.NamespaceSelector == nil {
		if p.Namespace != namespace {
			return no
		}
	} else if !matches(peer.NamespaceSelector, w.labelsOf(p.Namespace)) {
		if !w.supposed[p.Namespace] {
			return no
		}
		in = maybe // labels that are not in the files
	}
	if peer.PodSelector != nil && !matches(peer.PodSelector, p.Labels) {
		return no
	}
	return in
}

func matches(s *metav1.LabelSelector, set map[string]string) bool {
	selector, err := metav1.LabelSelectorAsSelector(s)
	return err == nil && selector.Matches(labels.Set(set))
}
