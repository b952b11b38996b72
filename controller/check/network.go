package check

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// networkChecks are about what lies under the mesh: ISM4xx.
func networkChecks() []Check {
	return []Check{
		{
			Code: "ISM400", Title: "Cilium replaces Services' addresses before ztunnel sees them", Severities: []v1alpha1.Severity{v1alpha1.SeverityWarning},
			Pains:  []string{"A11", "D4"},
			Matter: "Cilium balances to pods at the socket, in pods too, and Services lead to waypoints.",
			Harm:   "ztunnel sees a pod's address and no Service's: every caller goes past waypoints.",
			Fix:    "Set socketLB.hostNamespaceOnly=true.",
			Find:   (*World).socketBalancing,
		},
		{
			Code: "ISM401", Title: "a NetworkPolicy keeps the mesh from pods", Severities: []v1alpha1.Severity{v1alpha1.SeverityError, v1alpha1.SeverityWarning},
			Pains:  []string{"D1"},
			Matter: "Pods of the mesh are admitted connections at some ports, and none at 15008, where ztunnel and waypoints take what comes by the mesh.",
			Harm:   "Callers in the mesh time out. Error: a waypoint or a gateway of the mesh sends there.",
			Fix:    "Admit TCP 15008 from the same peers, by which they reach every port, and say by an AuthorizationPolicy which ones they may.",
			Find:   (*World).ingressPort,
		},
		{
			Code: "ISM402", Title: "a NetworkPolicy keeps a gateway or waypoint from the mesh", Severities: []v1alpha1.Severity{v1alpha1.SeverityError},
			Pains:  []string{"D1"},
			Matter: "A gateway of the mesh, or a waypoint, may send to some ports, and not to 15008.",
			Harm:   "What it sends through the mesh goes nowhere: requests end with 503 or time out.",
			Fix:    "Allow egress to TCP 15008.",
			Find:   (*World).egressPort,
		},
		{
			Code: "ISM403", Title: "a NetworkPolicy does not admit the waypoint or gateway that calls", Severities: []v1alpha1.Severity{v1alpha1.SeverityError},
			Pains:  []string{"B1", "D1"},
			Matter: "Pods admit 15008 from some callers, and what comes by the mesh comes from a waypoint, or a gateway, which is not among them.",
			Harm:   "Every request by that way times out.",
			Fix:    "Admit the waypoint's or the gateway's pods at TCP 15008.",
			Find:   (*World).ingressPeer,
		},
		{
			Code: "ISM404", Title: "a NetworkPolicy's ports mean nothing in the mesh", Severities: []v1alpha1.Severity{v1alpha1.SeverityInfo},
			Pains:  []string{"D2", "D3"},
			Matter: "Pods admit some callers at some ports, and others at 15008, by which each port is reached.",
			Harm:   "Who is admitted at 15008 reaches every port of the pods, unless a policy of the mesh says no.",
			Fix:    "Say who may call which port by an AuthorizationPolicy.",
			Find:   (*World).portsVoid,
		},
		{
			Code: "ISM405", Title: "a NetworkPolicy may stop health probes", Severities: []v1alpha1.Severity{v1alpha1.SeverityInfo}, Pains: []string{"C10", "D1"},
			Matter: "Pods of the mesh have HTTP or TCP probes, whose source is 169.254.7.127 there, and policies that do not admit it.",
			Harm:   "Where the network plugin does not let the node in anyway, pods never get ready.",
			Fix:    "Admit 169.254.7.127/32, for IPv6 fd16:9254:7127:1337:ffff:ffff:ffff:ffff/128.",
			Find:   (*World).probes,
		},
		{
			Code: "ISM406", Title: "two Services have one address", Severities: []v1alpha1.Severity{v1alpha1.SeverityError}, Pains: []string{"A1"},
			Matter: "Two Services ask for the same cluster IP.",
			Harm:   "The API server refuses the second; where it does not, ztunnel sends to the wrong one's waypoint.",
			Fix:    "Leave spec.clusterIP to the API server.",
			Find:   (*World).sameAddress,
		},
	}
}

// meshPods are the pods of the mesh in namespaces with policies for what comes in, and waypoints', in order.
func (w *World) meshPods(ingress bool, do func(p *plan.Pod, list []firewall)) {
	for _, ns := range sortedKeys(w.pods) {
		if len(w.firewalls(ns, ingress)) == 0 {
			continue
		}
		for _, p := range w.pods[ns] {
			if !w.InMesh(p) && !w.ofWaypoint(p) && p.Labels[labelTunnel] != "http" || p.Spec.HostNetwork {
				continue
			}
			if list := w.isolating(p, ingress); len(list) > 0 {
				do(p, list)
			}
		}
	}
}

func (w *World) ofWaypoint(p *plan.Pod) bool {
	name := p.Labels[labelGatewayName]
	g := w.Gateway(types.NamespacedName{Namespace: p.Namespace, Name: name})
	return name != "" && g != nil && w.isWaypoint(g)
}

func firewallObjects(list []firewall) []Object {
	var objects []Object
	for i := range list {
		objects = append(objects, Object{"networking.k8s.io", "NetworkPolicy", keyOf(list[i].policy)})
	}
	slices.SortFunc(objects, func(a, b Object) int { return compareObjects(a, b) })
	return objects
}

func compareObjects(a, b Object) int {
	switch x, y := a.String(), b.String(); {
	case x < y:
		return -1
	case x > y:
		return 1
	}
	return 0
}

// anyRule says whether policies admit anything at all.
func anyRule(list []firewall) bool {
	return slices.ContainsFunc(list, func(f firewall) bool { return len(f.rules) > 0 })
}

// ingressPort finds pods that nobody reaches by the mesh, once for the policies that select them.
func (w *World) ingressPort(found func(Finding)) {
	busy := w.calledByMesh()
	w.grouped(true, func(p *plan.Pod, list []firewall) (v1alpha1.Severity, bool) {
		if !anyRule(list) || w.admits(list, p, end{}, hbonePort) != no {
			return "", false
		}
		if busy[keyOf(p)] || w.ofWaypoint(p) {
			return v1alpha1.SeverityError, true
		}
		return v1alpha1.SeverityWarning, true
	}, func(at Object, related []Object, pods []string, s v1alpha1.Severity) {
		found(Finding{
			Object: at, Field: "spec.ingress", Severity: s, Related: related,
			Message: fmt.Sprintf("pods of the mesh are admitted nothing at TCP %d, where it takes their connections: callers in the mesh time out. "+
				"Pods: %s", hbonePort, some(pods)),
			Fix: fmt.Sprintf("add to the rules' ports: {protocol: TCP, port: %d}; by it these peers reach every port of the pods: say by an "+
				"AuthorizationPolicy which ones they may", hbonePort),
		})
	})
}

// grouped calls say once for the policies that select pods for which is says true.
func (w *World) grouped(
	ingress bool, is func(*plan.Pod, []firewall) (v1alpha1.Severity, bool), say func(at Object, related []Object, pods []string, s v1alpha1.Severity),
) {
	type group struct {
		objects  []Object
		pods     []string
		severity v1alpha1.Severity
	}
	groups, order := map[string]*group{}, []string{}
	w.meshPods(ingress, func(p *plan.Pod, list []firewall) {
		s, ok := is(p, list)
		if !ok {
			return
		}
		objects := firewallObjects(list)
		key := fmt.Sprint(objects)
		g := groups[key]
		if g == nil {
			g = &group{objects: objects, severity: s}
			groups[key], order = g, append(order, key)
		}
		if weight(s) < weight(g.severity) {
			g.severity = s
		}
		g.pods = append(g.pods, podName(p))
	})
	for _, key := range order {
		g := groups[key]
		slices.Sort(g.pods)
		say(g.objects[0], g.objects[1:], g.pods, g.severity)
	}
}

// calledByMesh are pods of Services that lead to waypoints, or that a gateway of the mesh sends to.
func (w *World) calledByMesh() map[types.NamespacedName]bool {
	all := map[types.NamespacedName]bool{}
	add := func(s *corev1.Service) {
		for _, p := range w.PodsOf(s) {
			all[keyOf(p)] = true
		}
	}
	for _, l := range w.index().leads {
		if l.service != nil {
			add(l.service)
		}
	}
	views := w.Views()
	for i := range views {
		for j := range views[i].Backends {
			if s := views[i].Backends[j].Service; s != nil && views[i].Inside > 0 {
				add(s)
			}
		}
	}
	return all
}

func (w *World) egressPort(found func(Finding)) {
	one := func(pods []*plan.Pod, what Object) {
		for _, p := range pods {
			list := w.isolating(p, false)
			if len(list) == 0 || w.admits(list, nil, end{}, hbonePort) != no {
				continue
			}
			objects := firewallObjects(list)
			found(Finding{
				Object: objects[0], Field: "spec.egress", Related: append(objects[1:], what),
				Message: fmt.Sprintf("%s may not send to TCP %d, where the mesh takes connections: what it sends through the mesh goes nowhere", what, hbonePort),
				Fix:     fmt.Sprintf("add a rule: {ports: [{protocol: TCP, port: %d}]}", hbonePort),
			})
			return
		}
	}
	views := w.Views()
	for i := range views {
		v := &views[i]
		pods := slices.DeleteFunc(slices.Clone(v.Pods), func(p *plan.Pod) bool { return !w.InMesh(p) && !speaksHBONE(v, p) })
		one(pods, viewObject(v))
	}
	for i := range w.Gateways {
		if g := &w.Gateways[i]; w.isWaypoint(g) {
			one(w.waypointPods(keyOf(g)), gatewayObject(keyOf(g)))
		}
	}
}

// waypointPods are the pods of a waypoint; in files, what one would be like.
func (w *World) waypointPods(key types.NamespacedName) []*plan.Pod {
	list := w.Selected(key.Namespace, map[string]string{labelGatewayName: key.Name})
	if len(list) == 0 && w.Paper {
		list = append(list, &plan.Pod{ObjectMeta: metav1.ObjectMeta{
			Namespace: key.Namespace, Name: key.Name, Labels: map[string]string{labelGatewayName: key.Name, labelManaged: "istio.io-mesh-controller"},
		}})
	}
	return list
}

func (w *World) ingressPeer(found func(Finding)) {
	one := func(s *corev1.Service, from []*plan.Pod, caller Object) {
		if len(from) == 0 {
			return
		}
		for _, p := range w.PodsOf(s) {
			if !w.InMesh(p) {
				continue
			}
			list := w.isolating(p, true)
			if len(list) == 0 || w.admits(list, p, end{}, hbonePort) == no || w.admits(list, p, end{pod: from[0]}, hbonePort) != no {
				continue
			}
			objects := firewallObjects(list)
			found(Finding{
				Object: objects[0], Field: "spec.ingress", Related: append(objects[1:], ServiceObject(s), caller),
				Message: fmt.Sprintf("what is sent to %s comes from the pods of %s, and they are not among those who are admitted at TCP %d: requests "+
					"time out", ServiceObject(s), caller, hbonePort),
				Fix: fmt.Sprintf("add a rule: {from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: %s}}, podSelector: {matchLabels: {%s: "+
					"%s}}}], ports: [{protocol: TCP, port: %d}]}",
					from[0].Namespace, labelGatewayName, caller.Name, hbonePort),
			})
			return
		}
	}
	for _, l := range w.index().leads {
		if l.service != nil && !w.headless(l.service) {
			one(l.service, w.waypointPods(l.waypoint), gatewayObject(l.waypoint))
		}
	}
	views := w.Views()
	for i := range views {
		v := &views[i]
		inside := slices.DeleteFunc(slices.Clone(v.Pods), func(p *plan.Pod) bool { return !w.InMesh(p) && !speaksHBONE(v, p) })
		for j := range v.Backends {
			b := &v.Backends[j]
			if _, leads := w.leadsOf(b.Key); b.Service != nil && (b.Sends == plan.ToPods || !leads && b.Sends == plan.ToService) && v.Object != nil {
				one(b.Service, inside, viewObject(v))
			}
		}
	}
}
