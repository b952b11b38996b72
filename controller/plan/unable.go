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

// unable stops a plan whose waypoints cannot be asked: what is done cannot be seen to hold, and Services would never be led to them.
func (m *maker) unable() {
	if m.Unable == "" || m.ObserveOnly || m.Edge.Spec.Mode != v1alpha1.ModeManage || !slices.ContainsFunc(m.backends, func(b *backend) bool { return b.wanted }) {
		return
	}
	m.found(v1alpha1.Finding{
		Code: v1alpha1.FindingUnable, Severity: v1alpha1.SeverityError, Object: object("AmbientEdge", keyOf(m.Edge)), Field: "spec.waypoint",
		Message: "this controller cannot ask waypoints whether they answer, for want of an identity of the mesh, and writes nothing that it could not see to hold: " + m.Unable,
		Fix: "see the controller's log and its flags --istiod and --identity: istiod, or what else issues identities, has to be reachable and to accept its service account; " +
			"or set spec.waypoint.policy to None, which needs no waypoint",
	})
}
