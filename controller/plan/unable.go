package plan

import (
	"fmt"
	"slices"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// onlyObserved finds an AmbientEdge that is to be managed, or undone, by a controller that may not.
func (m *maker) onlyObserved() {
	if !m.ObserveOnly || !m.plan.Undoing && m.Edge.Spec.Mode != v1alpha1.ModeManage {
		return
	}
	left := 0
	for i := range m.plan.Steps {
		if m.plan.Steps[i].State != v1alpha1.StepDone {
			left++
		}
	}
	f := v1alpha1.Finding{
		Code: v1alpha1.FindingObserver, Severity: v1alpha1.SeverityWarning, Object: object("AmbientEdge", keyOf(m.Edge)), Field: "spec.mode",
		Message: fmt.Sprintf("mode Manage is asked for, and this controller only observes: it writes nothing, and mends nothing; %d steps are left", left),
		Fix:     "set spec.mode to Observe, or run the controller that manages: kubectl delete clusterrolebinding isthmus-controller && kubectl apply -k manifests",
	}
	if m.plan.Undoing {
		f.Field = "metadata.finalizers"
		f.Message = fmt.Sprintf("it is being deleted, and this controller only observes: it takes nothing back; %d steps are left", left)
		f.Fix = "run the controller that manages: kubectl delete clusterrolebinding isthmus-controller && kubectl apply -k manifests"
	}
	m.found(f)
}

// unable stops a plan whose waypoints cannot be asked: what is done cannot be seen to hold, and Services would never be led to them. So it does where a
// gateway that comes into the mesh would follow Services to waypoints which nobody has asked, though none is to be wired.
func (m *maker) unable() {
	if m.Unable == "" || m.ObserveOnly || m.Edge.Spec.Mode != v1alpha1.ModeManage {
		return
	}
	f := v1alpha1.Finding{
		Code: v1alpha1.FindingUnable, Severity: v1alpha1.SeverityError, Object: object("AmbientEdge", keyOf(m.Edge)), Field: "spec.waypoint",
		Message: "this controller cannot ask waypoints whether they answer, for want of an identity of the mesh, and writes nothing that it could not see to hold: " + m.Unable,
		Fix:     "see the controller's log and its flags --istiod and --identity: istiod, or what else issues identities, has to be reachable and to accept its service account",
	}
	led := m.ledUnasked()
	switch {
	case len(led) > 0:
		f.Message += fmt.Sprintf("; Services lead to %s by themselves, and a gateway that comes into the mesh follows them there", led[0])
	case slices.ContainsFunc(m.backends, func(b *backend) bool { return b.wanted }):
		f.Fix += "; or set spec.waypoint.policy to None, which needs no waypoint"
	default:
		return
	}
	m.found(f)
}

// ledUnasked are the waypoints that a gateway will follow Services to when it comes into the mesh, and that cannot be asked; it adds a step for each that
// nothing is planned for. Services whose namespaces do not consent are not waited for.
func (m *maker) ledUnasked() (led []string) {
	for _, key := range m.ledNow() {
		if w := m.gateway(key); w == nil || !Programmed(w) {
			continue
		}
		var of []string
		wanted := false
		for _, b := range m.backends {
			for _, g := range m.gateways {
				if to, follows := m.follows(g, b); follows && to == key && m.enrols(g) && !b.refused {
					of = append(of, b.String())
				}
			}
			wanted = wanted || b.wanted && b.waypoint == key
		}
		if len(of) == 0 {
			continue
		}
		led = append(led, object("Gateway", key))
		if !wanted {
			m.add(Step{part: partWaypoint, of: of, Step: v1alpha1.Step{
				Verb: VerbAsk, Object: object("Gateway", key), State: v1alpha1.StepBlocked, Reason: "it cannot be asked: " + m.Unable,
			}})
		}
	}
	return led
}
