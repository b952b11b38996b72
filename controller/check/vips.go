package check

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

func vipChecks() []Check {
	return []Check{{
		Code: "ISM131", Title: "a workload has the address of a Service", Severities: []v1alpha1.Severity{v1alpha1.SeverityError, v1alpha1.SeverityWarning},
		Pains: []string{"A5"},
		Matter: "A WorkloadEntry, or an endpoint of a ServiceEntry, has the address of a Service or ServiceEntry, of whatever namespace, or one in a range of a " +
			"ServiceEntry. ztunnel looks an address up among workloads first, and only then among Services.",
		Harm: "No caller's ztunnel looks for the Service's waypoint: what is sent to its address goes straight to its endpoints, and no policy of the waypoint is " +
			"enforced. Error: it leads to a waypoint now. Warning: it does not, or its pods may lead there themselves, or the workload may be of another network.",
		Fix:  "Give the workload the address of its own machine, or a DNS name; have a ServiceEntry's own addresses be none of its endpoints'.",
		Find: (*World).workloadsAtServices,
	}}
}

// addressed is what istiod tells ztunnels of as a Service, with the addresses by which they know it: those outside the cluster, as of a load balancer, are none.
type addressed struct {
	object Object
	lead   *lead        // that is in force; nil: it leads to no waypoint
	within netip.Prefix // the range that it has an address by; not valid: it has the address itself
}

// addresses finds what has an address. A range gives way to whoever has one of its addresses for himself, and to a narrower one.
type addresses struct {
	single map[netip.Addr][]addressed
	ranges []addressed
}

// at are those that have an address, or a range with it, of which nobody else has more of a right.
func (x *addresses) at(a netip.Addr) []addressed {
	if list := x.single[a]; len(list) > 0 {
		return list
	}
	var list []addressed
	for _, r := range x.ranges {
		if !r.within.Contains(a) || len(list) > 0 && r.within.Bits() < list[0].within.Bits() {
			continue
		}
		if len(list) > 0 && r.within.Bits() > list[0].within.Bits() {
			list = nil
		}
		list = append(list, r)
	}
	return list
}

// workloadsAtServices finds workloads that hide a Service from ztunnels.
func (w *World) workloadsAtServices(found func(Finding)) {
	entries := w.Others(schema.GroupKind{Group: kindServiceEntry().Group, Kind: "WorkloadEntry"}, "")
	if len(entries) == 0 && len(w.ServiceEntries) == 0 {
		return
	}
	vips := w.vips()
	for _, o := range entries {
		spec, _, _ := unstructured.NestedMap(o.Object, "spec")
		at := Object{kindServiceEntry().Group, "WorkloadEntry", keyOf(o)}
		w.atServices(vips, at, "spec", spec, true, found)
	}
	hosts := w.claims()
	for _, o := range w.ServiceEntries {
		endpoints, _, _ := unstructured.NestedSlice(o.Object, "spec", "endpoints")
		for i := range endpoints {
			endpoint, _ := endpoints[i].(map[string]any)
			at := Object{kindServiceEntry().Group, kindServiceEntry().Kind, keyOf(o)}
			w.atServices(vips, at, fmt.Sprintf("spec.endpoints[%d]", i), endpoint, hosts.kept(o), found)
		}
	}
}

// atServices tells of one workload. sure: istiod tells ztunnels of it.
func (w *World) atServices(vips *addresses, object Object, field string, workload map[string]any, sure bool, found func(Finding)) {
	text, _, _ := unstructured.NestedString(workload, "address")
	address, err := netip.ParseAddr(text)
	if err != nil {
		return // a name, or a socket: ztunnel finds none by an address
	}
	network, _, _ := unstructured.NestedString(workload, "network")
	there := ""
	if !sure {
		there = ", if Istio heeds this ServiceEntry beside what has its hosts already"
	}
	if network != "" {
		here, known := w.network()
		if known && network != here {
			return
		}
		if sure = sure && known; !known {
			there += fmt.Sprintf(", if the cluster is in network %s too", network)
		}
	}
	for _, s := range vips.at(address) {
		own, whose, its := s.object == object, "is the address of", "is an address of"
		if s.within.IsValid() {
			whose = fmt.Sprintf("is in %s, a range of", s.within)
			its = whose
		}
		f := Finding{Object: object, Field: field + ".address", Related: []Object{s.object}, Severity: v1alpha1.SeverityWarning}
		f.Message = fmt.Sprintf("%s %s %s: the ztunnel of every caller takes it for this workload's%s, and not for that of a Service", text, whose, s.object, there)
		f.Fix = fmt.Sprintf("give this the address of a machine of its own; who means %s sends to its name", s.object)
		if own {
			f.Related = nil
			f.Message = fmt.Sprintf("%s %s this ServiceEntry too: the ztunnel of every caller takes it for this endpoint's%s, and not for that of a Service", text, its, there)
			f.Fix = "have in spec.addresses what no endpoint has, or nothing: Istio makes an address then, where DNS is captured"
		}
		switch l := s.lead; {
		case l == nil && (own || s.within.IsValid()):
			continue // that is how ServiceEntries without a waypoint are written, and they work
		case l == nil:
			f.Message += "; it leads to no waypoint that is in force, and any that it comes to lead to is gone past"
		case w.waypointFor(w.Gateway(l.waypoint)) == "all":
			f.Related = append(f.Related, gatewayObject(l.waypoint))
			f.Message += fmt.Sprintf("; where the pod that it chooses does not lead to waypoint %s by itself, no policy, route or limit of that is enforced", l.waypoint)
		default:
			if sure {
				f.Severity = v1alpha1.SeverityError
			}
			f.Related = append(f.Related, gatewayObject(l.waypoint))
			f.Message += fmt.Sprintf("; what is sent there goes straight to endpoints, and no policy, route or limit of waypoint %s is enforced", l.waypoint)
		}
		found(f)
	}
}

// vips are the Services and ServiceEntries that ztunnels know by an address.
func (w *World) vips() *addresses {
	leads := map[Object]*lead{}
	list := w.index().leads
	for i := range list {
		l := &list[i]
		if cause, _, _ := w.brokenLead(l); cause == "" {
			leads[l.object] = l
		}
	}
	vips := &addresses{single: map[netip.Addr][]addressed{}}
	add := func(o Object, texts []string) {
		seen := map[netip.Prefix]bool{}
		for _, text := range texts {
			p, err := netip.ParsePrefix(text)
			if err != nil {
				var a netip.Addr
				if a, err = netip.ParseAddr(text); err == nil {
					p, err = a.Prefix(a.BitLen())
				}
			}
			if p = p.Masked(); err != nil || seen[p] {
				continue
			}
			if seen[p] = true; p.IsSingleIP() {
				vips.single[p.Addr()] = append(vips.single[p.Addr()], addressed{o, leads[o], netip.Prefix{}})
			} else {
				vips.ranges = append(vips.ranges, addressed{o, leads[o], p})
			}
		}
	}
	for i := range w.Services {
		s := &w.Services[i]
		add(ServiceObject(s), append(slices.Clone(s.Spec.ClusterIPs), s.Spec.ClusterIP))
	}
	for _, o := range w.ServiceEntries {
		addresses, _, _ := unstructured.NestedStringSlice(o.Object, "spec", "addresses")
		if len(addresses) == 0 {
			given, _, _ := unstructured.NestedSlice(o.Object, "status", "addresses")
			for _, g := range given {
				one, _ := g.(map[string]any)
				value, _, _ := unstructured.NestedString(one, "value")
				addresses = append(addresses, value)
			}
		}
		add(Object{kindServiceEntry().Group, kindServiceEntry().Kind, keyOf(o)}, addresses)
	}
	return vips
}

// network is that of the cluster, as its namespace of the control plane says; "" is a network too. known is false where nobody has seen the namespace.
func (w *World) network() (name string, known bool) {
	ns := w.Namespace(w.Root())
	if ns == nil || w.supposed[w.Root()] {
		return "", false
	}
	return ns.Labels["topology.istio.io/network"], true
}

// claims are how many Services and ServiceEntries of a namespace have each host.
type claims map[types.NamespacedName]int

func (w *World) claims() claims {
	c := claims{}
	for i := range w.Services {
		s := &w.Services[i]
		c[types.NamespacedName{Namespace: s.Namespace, Name: s.Name + "." + s.Namespace + ".svc"}]++
	}
	for _, o := range w.ServiceEntries {
		for host := range c.of(o) {
			c[host]++
		}
	}
	return c
}

// of are the hosts of a ServiceEntry; of one within the cluster, what stands before the cluster's domain.
func (claims) of(o *unstructured.Unstructured) map[types.NamespacedName]bool {
	list, _, _ := unstructured.NestedStringSlice(o.Object, "spec", "hosts")
	hosts := map[types.NamespacedName]bool{}
	for _, host := range list {
		if inside, _, is := strings.Cut(host, "."+o.GetNamespace()+".svc."); is {
			host = inside + "." + o.GetNamespace() + ".svc"
		}
		hosts[types.NamespacedName{Namespace: o.GetNamespace(), Name: host}] = true
	}
	return hosts
}

// kept says whether a host of a ServiceEntry is that of nothing else in its namespace: istiod drops the others, and with the last of them the endpoints.
func (c claims) kept(o *unstructured.Unstructured) bool {
	for host := range c.of(o) {
		if c[host] == 1 {
			return true
		}
	}
	return false
}
