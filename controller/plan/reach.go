package plan

import (
	"fmt"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// reaches finds gateways whose way to the waypoints is not seen: those that are kept outside, which have none, and those that are only said to speak
// HBONE.
func (m *maker) reaches() {
	wanted := 0
	for _, b := range m.backends {
		if b.wanted || b.refused {
			wanted++
		}
	}
	if wanted == 0 {
		return
	}
	for _, g := range m.gateways {
		switch {
		case g.capture == v1alpha1.CaptureNone && m.chosen(g) == nil && g.vendor.NoSwitch != "":
			// which is said of it anyway
		case g.capture == v1alpha1.CaptureNone:
			m.found(v1alpha1.Finding{
				Code: v1alpha1.FindingOutsideMesh, Severity: v1alpha1.SeverityError, Object: object("AmbientEdge", keyOf(m.Edge)), Field: "spec.capture",
				Message: fmt.Sprintf("capture None keeps %s outside the mesh: what it sends goes to pods in plaintext, past the waypoint of each Service (%d), and its policies", g, wanted),
				Fix:     "set spec.capture to Auto, or to Native where the gateway speaks HBONE itself; or set spec.waypoint.policy to None",
			})
		case g.assumed():
			m.found(v1alpha1.Finding{
				Code: v1alpha1.FindingAssumed, Severity: v1alpha1.SeverityWarning, Object: g.String(), Field: "spec.capture",
				Message: "that this gateway speaks HBONE itself is what spec.capture says; nobody has seen it. If it does not, its requests go to pods in plaintext, past waypoints and their policies",
				Fix:     "send a request through it and look for its identity in the access log of the waypoint; if it is not there, set spec.capture to Auto",
			})
		}
	}
}

// assumed says whether nothing but the AmbientEdge says that a gateway speaks HBONE.
func (g *gateway) assumed() bool {
	return g.capture == v1alpha1.CaptureNative && !g.native() && len(g.pods) > 0
}

// optedOut finds pods that are not captured because they are labelled so, by somebody else and for themselves. It is said once for a gateway.
func (m *maker) optedOut(g *gateway) {
	var pods []string
	by := ""
	for _, p := range g.pods {
		if captured(p) || p.Labels[LabelDataplaneMode] != modeNone {
			continue
		}
		w := m.runner(g, p)
		template := labelled(LabelDataplaneMode, modeAmbient, "spec", "template", "metadata")
		switch {
		case w == nil:
			by = "on the pod itself" + whose(othersHold(p, labelled(LabelDataplaneMode, "").managed()...))
		case w.template.Labels[LabelDataplaneMode] == modeNone:
			if m.state(w.object, template) != foreign {
				continue // it is ours, and about to change
			}
			by = "in the pod template of " + w.String() + whose(othersHold(w.object, template.managed()...))
		case w.rolls():
			continue // it goes with the pod
		default:
			by = "on the pod itself" + whose(othersHold(p, labelled(LabelDataplaneMode, "").managed()...))
		}
		pods = append(pods, object("Pod", keyOf(p)))
	}
	if len(pods) == 0 {
		return
	}
	m.found(v1alpha1.Finding{
		Code: v1alpha1.FindingOptedOut, Severity: v1alpha1.SeverityError, Object: g.String(), Field: "metadata.labels[" + LabelDataplaneMode + "]",
		Message: fmt.Sprintf("%d of %d pods are never captured, as label %s=%s is set %s: %s", len(pods), len(g.pods), LabelDataplaneMode, modeNone, by, listed(pods)),
		Fix:     "take the label away there; or set spec.capture to Native if the gateway speaks HBONE itself",
	})
}

// runner is the workload that runs a pod of a gateway, or nil.
func (m *maker) runner(g *gateway, p *Pod) *workload {
	for _, w := range m.runs(g) {
		if w.key.Namespace == p.Namespace && hasLabels(p.Labels, w.selector) {
			return w
		}
	}
	return nil
}

// whose says who has set a field, as far as that is known.
func whose(managers []string) string {
	if len(managers) == 0 {
		return ""
	}
	return fmt.Sprintf(" by %q", managers[0])
}

// idles finds a gateway that has no pods because none are asked for, and says so.
func (m *maker) idles(g *gateway) string {
	if len(g.pods) > 0 {
		return ""
	}
	workloads := g.workloads
	if w := m.workload("Deployment", g.key); len(workloads) == 0 && w != nil {
		workloads = []*workload{w}
	}
	for _, w := range workloads {
		if !w.scaledDown() {
			continue
		}
		m.found(v1alpha1.Finding{
			Code: v1alpha1.FindingNoPods, Severity: v1alpha1.SeverityWarning, Object: w.String(), Field: "spec.replicas",
			Message: fmt.Sprintf("%s has no pods, as 0 replicas are asked for: nothing can be seen to hold", g),
			Fix:     fmt.Sprintf("kubectl scale -n %s deployment %s --replicas 1", w.key.Namespace, w.key.Name),
		})
		return w.String() + " has 0 replicas"
	}
	return ""
}
