package check

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// addressChecks are about addresses, ports and protocols in policies.
func addressChecks() []Check {
	return []Check{
		{
			Code: "ISM225", Title: "a waypoint compares no source addresses", Severities: onlyError(), Pains: []string{"B6", "EH09"},
			Matter: "A policy at a waypoint has ipBlocks, or a condition on source.ip. A waypoint compares them with an address of its own, and so never matches any.",
			Harm:   "An ALLOW lets nobody in, even with 0.0.0.0/0; a DENY denies nothing; notIpBlocks holds for everybody.",
			Fix:    "Name principals; compare addresses of clients at the gateway.",
			Find:   findSourceAddresses,
		},
		{
			Code: "ISM226", Title: "a client's address that every caller may choose", Severities: both(), Pains: []string{"B6", "EH06"},
			Matter: "A rule at a waypoint has remoteIpBlocks and does not name who sends. The address is the last one of X-Forwarded-For, which every caller in the " +
				"mesh writes as it likes.",
			Harm: "Any workload of the mesh passes an ALLOW by address, and avoids a DENY.",
			Fix:  "Name the gateway's principal in the same source, where the gateway appends to X-Forwarded-For.",
			Find: findChosenAddresses,
		},
		{
			Code: "ISM233", Title: "a port that is the other one of a Service", Severities: onlyError(), Pains: []string{"B12", "D2"},
			Matter: "A policy at a waypoint names a port of the pods, or one at pods a port of the Service: to a waypoint ports are the Service's, to ztunnel those " +
				"of pods.",
			Harm: "It never matches: an ALLOW refuses, a DENY denies nothing.",
			Fix:  "Name the other port.",
			Find: findOtherPorts,
		},
		{
			Code: "ISM234", Title: "a rule about requests on a port that is not HTTP", Severities: []v1alpha1.Severity{v1alpha1.SeverityError, v1alpha1.SeverityInfo},
			Pains: []string{"EP14"},
			Matter: "A policy at a waypoint has conditions on requests, and its Service's port says that it is TCP or TLS, by its name or appProtocol: the waypoint " +
				"reads no requests there.",
			Harm: "An ALLOW refuses all; a DENY loses the conditions, and denies more.",
			Fix:  "Set appProtocol: http, or do without conditions on requests.",
			Find: findOpaquePorts,
		},
		{
			Code: "ISM246", Title: "the gateway encrypts what the waypoint is to read", Severities: onlyWarning(), Pains: []string{"EP13"},
			Matter: "A gateway speaks TLS to a Service, by a BackendTLSPolicy or a setting of its Ingress, and policies at the Service's waypoint have conditions " +
				"on requests.",
			Harm: "The waypoint sees bytes: an ALLOW of requests refuses all that comes through the gateway.",
			Fix:  "Take the TLS away: the mesh encrypts that hop.",
			Find: findEncrypted,
		},
	}
}

func findSourceAddresses(w *World, found func(Finding)) {
	for _, p := range w.Policies {
		if !w.waypointReads(p.Namespace, &p.Spec) {
			continue
		}
		for _, l := range lists(p) {
			if l.plainName() == "ipBlocks" {
				found(Finding{
					Object: accessObject(p), Field: l.field, Message: fmt.Sprintf("a waypoint never sees the source's address, and no block matches there: %s", effect(p, &l)),
					Fix: "name principals in its place; blocks of clients' addresses belong to the gateway",
				})
			}
		}
	}
}

func findChosenAddresses(w *World, found func(Finding)) {
	for _, p := range w.Policies {
		if !w.waypointReads(p.Namespace, &p.Spec) || p.Spec.Action != actionAllow && p.Spec.Action != actionDeny {
			continue
		}
		for _, l := range lists(p) {
			if l.plainName() != "remoteIpBlocks" || namesSource(p, &l) {
				continue
			}
			what := "passes"
			if (p.Spec.Action == actionDeny) != l.not {
				what = "gets past"
			}
			found(Finding{
				Object: accessObject(p), Field: l.field, Severity: w.ifWhole(),
				Message: "a waypoint takes this address from the last X-Forwarded-For, which every caller in the mesh writes as it likes, and the rule does not name " +
					"who sends: any workload " + what,
				Fix: "name the gateway's principal in the same source",
			})
		}
	}
}

// namesSource says whether the source or the rule that a field is of names who sends.
func namesSource(p *securityv1.AuthorizationPolicy, f *listed) bool {
	at := f.field[:strings.LastIndex(f.field, ".")]
	return slices.ContainsFunc(lists(p), func(l listed) bool {
		same := strings.HasPrefix(l.field, at+".") || l.rule == f.rule && (strings.HasPrefix(l.name, "source.") || strings.HasPrefix(f.name, "remote."))
		return same && !l.not && slices.Contains([]string{"principals", "namespaces", "serviceAccounts"}, l.plainName()) && !slices.Contains(l.values, "*")
	})
}

func findOtherPorts(w *World, found func(Finding)) {
	for _, p := range w.Policies {
		atWaypoint := len(targetRefsOf(&p.Spec)) > 0
		var services []*corev1.Service
		loaded := false
		for _, l := range lists(p) {
			if l.plainName() != "ports" {
				continue
			}
			if !loaded {
				loaded, services = true, w.servicesUnder(p)
			}
			for _, v := range l.values {
				n, err := strconv.ParseUint(v, 10, 16)
				if err != nil || len(services) == 0 {
					continue
				}
				other := uint16(0)
				right := false
				for _, s := range services {
					for _, pair := range w.portPairs(s) {
						here, there := pair.service, pair.pod
						if !atWaypoint {
							here, there = pair.pod, pair.service
						}
						right = right || here == 0 || uint64(here) == n
						if uint64(there) == n {
							other = here
						}
					}
				}
				if right || other == 0 || !atWaypoint && w.listens(p, uint16(n)) {
					continue
				}
				f := Finding{Object: accessObject(p), Field: l.field, Related: []Object{ServiceObject(services[0])}, Fix: fmt.Sprintf("write %d", other)}
				if atWaypoint {
					f.Message = fmt.Sprintf("%s is the port of the pods, and to a waypoint ports are the Service's, here %d; with that value alone %s", v, other, effect(p,
						&l))
				} else {
					f.Message = fmt.Sprintf("%s is the port of Service %s/%s, and to ztunnel ports are the pods', here %d; with that value alone %s", v,
						services[0].Namespace, services[0].Name, other, effect(p, &l))
				}
				found(f)
			}
		}
	}
}

// servicesUnder are the Services that a policy is about: all that its targetRefs name, or those of the pods that it selects by labels; none, where it is
// about others too.
func (w *World) servicesUnder(p *securityv1.AuthorizationPolicy) (list []*corev1.Service) {
	for _, r := range targetRefsOf(&p.Spec) {
		s := w.services[objectKey(p.Namespace, r.GetName())]
		if r.GetKind() != policy.KindService || s == nil {
			return nil
		}
		list = append(list, s)
	}
	if len(list) > 0 || p.Spec.Selector == nil || p.Namespace == w.Root() {
		return list
	}
	pods := w.carriedPods(p.Namespace, p.Spec.Selector)
	if len(pods) == 0 {
		return nil
	}
	return w.servicesFor(pods[0])
}

// listens says whether a pod that a policy selects says that it has a port.
func (w *World) listens(p *securityv1.AuthorizationPolicy, port uint16) bool {
	return slices.ContainsFunc(w.carriedPods(p.Namespace, p.Spec.Selector), func(pod *plan.Pod) bool {
		return slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool {
			return slices.ContainsFunc(c.Ports, func(cp corev1.ContainerPort) bool { return cp.ContainerPort == int32(port) })
		})
	})
}

// ofRequests are the fields of a policy that only a proxy which reads requests knows.
func ofRequests(p *securityv1.AuthorizationPolicy) (fields []listed) {
	for _, l := range lists(p) {
		if slices.Contains([]string{"hosts", "methods", "paths", "requestPrincipals"}, l.plainName()) || strings.HasPrefix(l.name, "request.") {
			fields = append(fields, l)
		}
	}
	return fields
}

func findOpaquePorts(w *World, found func(Finding)) {
	for _, p := range w.Policies {
		fields := ofRequests(p)
		if len(fields) == 0 || p.Spec.Action != actionAllow && p.Spec.Action != actionDeny {
			continue
		}
		for _, r := range targetRefsOf(&p.Spec) {
			s := w.services[objectKey(p.Namespace, r.GetName())]
			if r.GetKind() != policy.KindService || s == nil {
				continue
			}
			var opaque []string
			for i := range s.Spec.Ports {
				if is, _ := spoken(&s.Spec.Ports[i]); is == policy.TCP {
					opaque = append(opaque, strconv.Itoa(int(s.Spec.Ports[i].Port)))
				}
			}
			if len(opaque) == 0 {
				continue
			}
			what := "its rules about requests allow nothing there"
			if p.Spec.Action == actionDeny {
				what = "the conditions on requests are left out there, and it denies more"
			}
			f := Finding{
				Severity: v1alpha1.SeverityInfo, Object: accessObject(p), Field: fields[0].field, Related: []Object{ServiceObject(s)},
				Message: fmt.Sprintf("%s %s of Service %s/%s %s not HTTP by name or appProtocol, and a waypoint reads no requests there: %s", verb(len(opaque), "port",
					"ports"), inWords(opaque), s.Namespace, s.Name,
					verb(len(opaque), "is", "are"), what),
				Fix: "set appProtocol: http at a port that speaks HTTP; or do without " + fieldsText([]string{fields[0].field}),
			}
			if len(opaque) == len(s.Spec.Ports) {
				f.Severity = v1alpha1.SeverityError
			}
			found(f)
		}
	}
}

func findEncrypted(w *World, found func(Finding)) {
	encrypted := map[types.NamespacedName]Object{}
	for _, o := range w.Others(schema.GroupKind{Group: groupGateways, Kind: "BackendTLSPolicy"}, "") {
		refs, _ := o.Object["spec"].(map[string]any)
		list, _ := refs["targetRefs"].([]any)
		for _, x := range list {
			ref, _ := x.(map[string]any)
			if name, _ := ref["name"].(string); ref["kind"] == "Service" {
				encrypted[objectKey(o.GetNamespace(), name)] = Object{groupGateways, "BackendTLSPolicy", objectKey(o.GetNamespace(), o.GetName())}
			}
		}
	}
	for i := range w.Ingresses {
		in := &w.Ingresses[i]
		if v := strings.ToUpper(in.Annotations["nginx.ingress.kubernetes.io/backend-protocol"]); v != "HTTPS" && v != "GRPCS" {
			continue
		}
		for j := range in.Spec.Rules {
			if in.Spec.Rules[j].HTTP == nil {
				continue
			}
			for _, path := range in.Spec.Rules[j].HTTP.Paths {
				if path.Backend.Service != nil {
					encrypted[objectKey(in.Namespace, path.Backend.Service.Name)] = Object{"networking.k8s.io", "Ingress", objectKey(in.Namespace, in.Name)}
				}
			}
		}
	}
	if len(encrypted) == 0 {
		return
	}
	all := w.crossings()
	for i := range all {
		c := &all[i]
		by, ok := encrypted[c.backend.Key]
		if !ok || !c.byWaypoint {
			continue
		}
		for _, ref := range w.behind(c.backend.Waypoint, c.backend.Key).Policies() {
			p := w.guard().byRef[ref]
			if p == nil || len(ofRequests(p)) == 0 {
				continue
			}
			found(Finding{
				Object: by, Field: "spec", Related: []Object{accessObject(p), c.object()},
				Message: fmt.Sprintf("by this %s speaks TLS to Service %s, whose waypoint then reads no requests, and %s has conditions on them: an ALLOW refuses all "+
					"that comes through the gateway",
					c.object(), c.backend.Key, accessObject(p)),
				Fix: "take it away: the mesh encrypts that hop itself",
			})
		}
	}
}
