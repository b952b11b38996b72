package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
)

// undo adds the steps that take everything back, in the opposite order.
func (m *maker) undo() {
	if m.Edge.Spec.OnDelete == v1alpha1.OnDeleteKeep {
		m.keep()
		return
	}
	m.unlock(nil)
	m.unswitch(nil, nil)
	m.unwire(nil)
	m.unpair(nil)
	m.unwitness()
	m.deleteWaypoints(nil)
	m.unenrol(nil)
	m.plaintext()
}

// release takes back what is ours and is not wanted any more, as the spec has changed. It comes when all the rest is done.
func (m *maker) release() {
	services, waypoints, objects := map[types.NamespacedName]bool{}, map[types.NamespacedName]bool{}, map[string]bool{}
	m.frozen = map[types.NamespacedName]bool{}
	for _, b := range m.backends {
		held := m.held(b.String())
		services[b.key] = b.wanted || b.refused || held
		waypoints[b.waypoint] = waypoints[b.waypoint] || services[b.key]
		if held {
			m.frozen[b.key], waypoints[m.present(b)] = true, true
		}
	}
	policy, name := m.waypointPolicy()
	for _, key := range m.missing {
		m.frozen[key], services[key] = true, true
		if policy == v1alpha1.WaypointCreate {
			waypoints[types.NamespacedName{Namespace: key.Namespace, Name: name}] = true
		}
	}
	for _, s := range m.plan.Steps {
		if s.Verb == VerbEnrol || s.Verb == VerbRoll || s.Verb == VerbSwitch {
			objects[s.Object] = true
		}
	}
	if m.plan.stops() || m.unsure {
		return // what is wanted is not known for sure
	}
	m.plan.Whole = true
	m.unlock(services)
	m.unswitch(objects, services)
	m.unwire(services)
	m.unpair(services)
	m.unwitness()
	m.deleteWaypoints(waypoints)
	m.unenrol(objects)
}

// unswitch takes our switches back from objects that are not kept, but Services: see leave.
func (m *maker) unswitch(keep map[string]bool, services map[types.NamespacedName]bool) {
	staying := m.staying(services)
	take := func(c carrier, what string, w *Write) {
		if w.Restore {
			what = "give the values back that were there before"
		}
		step := Step{part: partUnswitch, Step: v1alpha1.Step{Verb: VerbUnswitch, Object: c.String(), Reason: what}, Write: w}
		step.of = switchedBy(c.object)
		step.wide = len(step.of) == 0
		if step.wide && len(staying) > 0 || overlap(step.of, staying) {
			m.stay(&step)
			if m.plan.Undoing && step.wide {
				m.plan.holds.also(c.String(), cause{code: v1alpha1.FindingUndoHalted, object: staying[0]})
			}
		}
		m.add(step, partEnrol, partWaypoint, partWire, partLock, partUnlock)
	}
	for _, o := range m.Objects {
		c := carrier{o.GetAPIVersion(), o.GetKind(), o}
		switch {
		case keep[c.String()], m.freezes(o):
		case o.GetDeletionTimestamp() != nil:
			if m.made(o) {
				of := switchedBy(o)
				m.add(Step{part: partUnswitch, of: of, wide: len(of) == 0, Step: v1alpha1.Step{Verb: VerbUnswitch, Object: c.String(), Reason: "it is being deleted"}})
			}
		case m.made(o) && len(m.sharers(o)) > 0:
			m.handOver(c, m.sharers(o))
			take(c, "leave it to whoever needs it too", &Write{APIVersion: c.apiVersion, Kind: c.kind, Key: keyOf(o), UID: o.GetUID(), Release: true})
		case m.made(o):
			take(c, "delete it: it was made for this edge", &Write{APIVersion: c.apiVersion, Kind: c.kind, Key: keyOf(o), UID: o.GetUID(), Delete: true})
		case m.wrote(o):
			take(c, "take our setting away", m.takeBack(c))
		}
	}
	for i := range m.Ingresses {
		c := carrier{"networking.k8s.io/v1", "Ingress", &m.Ingresses[i]}
		if !keep[c.String()] && !m.freezes(c.object) && m.wrote(c.object) {
			take(c, "take our setting away", m.takeBack(c))
		}
	}
}

// unwire takes our labels from Services that are not kept. One that a gateway follows by a switch of ours goes two ways: the gateway is to have left for the
// pods before the Service's waypoint hears that it is none any more.
func (m *maker) unwire(keep map[types.NamespacedName]bool) {
	for i := range m.Services {
		s := &m.Services[i]
		if keep[keyOf(s)] || !m.wrote(s) {
			continue
		}
		obj := object("Service", keyOf(s))
		step := Step{part: partRelease, of: []string{obj}, Step: v1alpha1.Step{Verb: VerbUnwire, Object: obj, Reason: "take our labels away"}}
		if step.Write = m.takeBack(carrier{"v1", "Service", s}); step.Write.Restore {
			step.Reason = "give the values back that were there before"
		}
		var leave *Step
		if path := labelled(LabelUseWaypoint, "").managed(); holds(s, m.Edge.FieldOwner(), path...) && !m.shared(s, path) {
			waypoint := ledTo(s)
			step.leads = object("Gateway", waypoint)
			leave = m.leave(s, step)
			m.about(step.of, func() {
				stays := m.haltFor(keyOf(s), "Service", waypoint.String())
				if m.gateway(waypoint) != nil { // whether it goes or not, its policies end for this Service
					stays = m.haltFor(waypoint, "Gateway", waypoint.String()) || stays
				}
				if !stays {
					return
				}
				m.stay(&step)
				if leave != nil {
					m.stay(leave)
				}
			})
		}
		if leave != nil {
			m.add(*leave, partEnrol, partWaypoint, partWire, partLock, partUnlock)
		}
		m.add(step, partEnrol, partWaypoint, partWire, partLock, partUnlock, partUnswitch)
	}
}

// leave is the step that takes our switches from a Service which leads to its waypoint by our labels, and leaves these as they are. Nil: there is none to take.
// Values of before are given back first: who is to have them has left by that.
func (m *maker) leave(s *corev1.Service, unwire Step) *Step {
	stays, follows := map[string]any{}, false
	for at, list := range map[string]map[string]string{"labels": s.Labels, "annotations": s.Annotations} {
		for key, is := range list {
			x := setting{[]string{"metadata", at, key}, is}
			switch {
			case !holds(s, m.Edge.FieldOwner(), x.managed()...):
			case key == LabelUseWaypoint, key == LabelUseWaypointNamespace, key == v1alpha1.AnnotationFormer:
				nest(stays, x.path, x.value)
			default:
				follows = true
			}
		}
	}
	if !follows {
		return nil
	}
	step, w := unwire, *unwire.Write
	step.part, step.Verb, step.leads, step.Write = partUnswitch, VerbUnswitch, "", &w
	if !w.Restore {
		step.Reason, w.Fields = "let gateways send to its pods again", stays
	}
	return &step
}

// Unswitches says whether a write has gateways leave for pods.
func (p *Plan) Unswitches(w *Write) bool {
	return slices.ContainsFunc(p.Steps, func(s Step) bool { return s.part == partUnswitch && s.Write == w })
}

// ledTo is the waypoint that a Service's own labels name.
func ledTo(s *corev1.Service) types.NamespacedName {
	return types.NamespacedName{Namespace: cmp.Or(s.Labels[LabelUseWaypointNamespace], s.Namespace), Name: s.Labels[LabelUseWaypoint]}
}

// shared says whether somebody else holds the field too, so that it stays.
func (m *maker) shared(o metav1.Object, path []string) bool {
	return slices.ContainsFunc(o.GetManagedFields(), func(f metav1.ManagedFieldsEntry) bool {
		return f.Manager != m.Edge.FieldOwner() && f.FieldsV1 != nil && hasPath(f.FieldsV1.GetRawBytes(), path)
	})
}

// deleteWaypoints deletes our waypoints that are not kept, and sees that what istiod made of them is gone.
func (m *maker) deleteWaypoints(keep map[types.NamespacedName]bool) {
	for i := range m.Gateways {
		g := &m.Gateways[i]
		key := keyOf(g)
		if m.disowned(g) && !keep[key] && g.DeletionTimestamp == nil {
			m.orphan(Step{part: partRelease, Step: v1alpha1.Step{Verb: VerbDelete, Object: object("Gateway", key)}}, gatewayv1.GroupName, "Gateway", fmt.Sprintf("this waypoint was made for this edge, and has lost its label: "+
				"kubectl label gateway -n %s %s %s=%s has it deleted, otherwise it is left behind", key.Namespace, key.Name, v1alpha1.LabelOwner, m.Edge.Owner()))
		}
		if !m.madeWaypoint(g) && !m.inherits(g) || keep[key] {
			continue
		}
		step := Step{part: partRelease, Step: v1alpha1.Step{Verb: VerbDelete, Object: object("Gateway", key), Reason: "delete the waypoint"}}
		if g.DeletionTimestamp == nil {
			step.Write = &Write{APIVersion: gatewayAPI, Kind: "Gateway", Key: key, UID: g.UID, Delete: true}
			m.about([]string{step.Object}, func() {
				heirs, used := m.users(key)
				switch {
				case len(heirs) > 0 && !used:
					m.bequeath(&step, g, heirs)
				case m.haltFor(key, "Gateway", key.String()) || used:
					m.stay(&step)
				}
			})
		}
		m.add(step, partEnrol, partWaypoint, partWire, partLock, partUnlock, partUnswitch, partUnpair, partRelease)
	}
	policy, name := m.waypointPolicy()
	if policy != v1alpha1.WaypointCreate || !m.plan.Undoing {
		return
	}
	for _, ns := range m.backendNamespaces() {
		m.awaitGone(types.NamespacedName{Namespace: ns, Name: name})
	}
}

// backendNamespaces are those of all backends that the spec or the routes name, there or not.
func (m *maker) backendNamespaces() []string {
	var list []string
	if b := m.Edge.Spec.Backends; b != nil && len(b.Services) > 0 {
		for _, r := range b.Services {
			list = append(list, r.Namespace)
		}
	} else {
		routes := &maker{Snapshot: m.Snapshot} // its findings are not for undo
		routes.findGateways()
		for _, key := range append(routes.routedServices(), routes.ingressServices()...) {
			list = append(list, key.Namespace)
		}
		for _, d := range routes.doubts {
			for _, key := range d.services {
				list = append(list, key.Namespace)
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// awaitGone waits until nothing is left of a waypoint. One that is there and not ours is left alone.
func (m *maker) awaitGone(key types.NamespacedName) {
	if g := m.gateway(key); g != nil && (!m.madeWaypoint(g) || slices.ContainsFunc(m.plan.Steps, func(s Step) bool { return s.ID == stepID(VerbRelease, object("Gateway", key)) })) {
		return
	}
	labels := map[string]string{edge.LabelGatewayName: key.Name}
	var rest []string
	for _, p := range m.podsWith(key.Namespace, labels) {
		if madeOf(p, key.Name) {
			rest = append(rest, object("Pod", keyOf(p)))
		}
	}
	for i := range m.Services {
		if s := &m.Services[i]; s.Namespace == key.Namespace && hasLabels(s.Labels, labels) && madeOf(s, key.Name) {
			rest = append(rest, object("Service", keyOf(s)))
		}
	}
	for i := range m.Deployments {
		if d := &m.Deployments[i]; d.Namespace == key.Namespace && hasLabels(d.Labels, labels) && madeOf(d, key.Name) {
			rest = append(rest, object("Deployment", keyOf(d)))
		}
	}
	s := Step{part: partRelease, Step: v1alpha1.Step{Verb: VerbAwait, Object: object("Gateway", key), State: v1alpha1.StepDone, Reason: "nothing is left of it"}}
	if len(rest) > 0 {
		s.State, s.Reason = v1alpha1.StepNext, "still there: "+listed(rest)
	}
	m.add(s, partRelease)
}

// madeOf says whether an object belongs to what was made of a Gateway: that owns it, or a ReplicaSet of its Deployment does. Anybody may use its label.
func madeOf(o metav1.Object, gateway string) bool {
	return slices.ContainsFunc(o.GetOwnerReferences(), func(r metav1.OwnerReference) bool {
		return r.Kind == "Gateway" && r.Name == gateway || r.Kind == "ReplicaSet" && strings.HasPrefix(r.Name, gateway+"-")
	})
}

// unenrol takes our labels of enrolment away, and sees that the pods are captured no more.
func (m *maker) unenrol(keep map[string]bool) {
	type held struct {
		apiVersion, kind string
		object           metav1.Object
	}
	var list []held
	if ns := m.namespace(m.Edge.Namespace); ns != nil {
		list = append(list, held{"v1", "Namespace", ns})
	}
	for i := range m.Gateways {
		if g := &m.Gateways[i]; g.Namespace == m.Edge.Namespace && !m.madeWaypoint(g) {
			list = append(list, held{gatewayAPI, "Gateway", g})
		}
	}
	for i := range m.Deployments {
		list = append(list, held{"apps/v1", "Deployment", &m.Deployments[i]})
	}
	for i := range m.DaemonSets {
		list = append(list, held{"apps/v1", "DaemonSet", &m.DaemonSets[i]})
	}
	for _, h := range list {
		obj := object(h.kind, keyOf(h.object))
		if keep[obj] || !m.wrote(h.object) {
			continue
		}
		m.add(Step{
			part: partRelease, wide: true, Step: v1alpha1.Step{Verb: VerbUnenrol, Object: obj, Reason: "take our label away"},
			Write: &Write{APIVersion: h.apiVersion, Kind: h.kind, Key: keyOf(h.object), UID: h.object.GetUID(), Fields: map[string]any{}},
		}, partEnrol, partWaypoint, partWire, partLock, partUnlock, partUnswitch, partUnpair, partRelease)
	}
	if m.plan.Undoing {
		m.awaitOutside()
	}
}

// awaitOutside waits until the gateways' pods are as their labels say again.
func (m *maker) awaitOutside() {
	m.findGateways()
	m.plan.Findings = slices.DeleteFunc(m.plan.Findings, func(f v1alpha1.Finding) bool {
		return f.Code == v1alpha1.FindingNoTarget || f.Code == v1alpha1.FindingNoClass
	})
	for _, g := range m.gateways {
		if g.capture != v1alpha1.CaptureAmbient {
			continue
		}
		inside := 0
		for _, p := range g.pods {
			if captured(p) && !m.labelledIn(p) {
				inside++
			}
		}
		s := Step{part: partRelease, wide: true, Step: v1alpha1.Step{Verb: VerbVerify, Object: g.String(), State: v1alpha1.StepDone, Reason: "its pods are as their labels say"}}
		if inside > 0 {
			s.State, s.Reason = v1alpha1.StepNext, fmt.Sprintf("%d pods are still captured", inside)
		}
		m.add(s, partRelease)
	}
}

// reportUndo fills the status of gateways and backends while undo is under way. What is wrong with them is no matter any more.
func (m *maker) reportUndo() {
	now := &maker{Snapshot: m.Snapshot}
	now.findGateways()
	now.findBackends()
	now.missing = nil
	now.report()
	now.conceal()
	m.plan.Gateways, m.plan.Backends = now.plan.Gateways, now.plan.Backends
}

// labelledIn says whether a pod is in the mesh by labels that are not ours.
func (m *maker) labelledIn(p *Pod) bool {
	if mode := p.Labels[LabelDataplaneMode]; mode != "" {
		return mode == modeAmbient
	}
	return m.namespaceLabels(p.Namespace)[LabelDataplaneMode] == modeAmbient
}
