package plan

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
)

// passage says how far the gateways' requests come to waypoints, whatever Services lead there.
type passage struct {
	pods    int             // of all gateways
	inside  int             // those of them that the mesh carries, or that speak HBONE as their kind of gateway does
	assumed int             // those that speak HBONE as the AmbientEdge says, which nobody has seen
	past    bool            // the gateways send to pods, for want of a switch
	unset   map[string]bool // Services whose own switch is not set
}

// passing is the passage, as objects, steps and findings tell of it.
func (m *maker) passing() *passage {
	if m.passes != nil {
		return m.passes
	}
	p := &passage{unset: map[string]bool{}}
	m.passes = p
	for _, g := range m.gateways {
		p.pods += len(g.pods)
		for _, pod := range g.pods {
			switch {
			case captured(pod) && !g.late(pod), g.capture == v1alpha1.CaptureNative && g.native():
				p.inside++
			case g.capture == v1alpha1.CaptureNative:
				p.assumed++
			}
		}
	}
	for _, f := range m.plan.Findings {
		switch f.Code {
		case v1alpha1.FindingHeadless:
			p.unset[f.Object] = true
		case v1alpha1.FindingNoSwitch, v1alpha1.FindingSwitchIdle, v1alpha1.FindingOverridden:
			if f.Severity != v1alpha1.SeverityError {
				continue
			}
			if p.past = p.past || !m.plan.holds.apart[causeOf(&f)]; !p.past {
				m.plan.holds.each(causeOf(&f), func(service string) { p.unset[service] = true })
			}
		}
	}
	for i := range m.plan.Steps {
		s := &m.plan.Steps[i]
		switch {
		case s.Verb != VerbSwitch || s.State == v1alpha1.StepDone:
		case s.wide:
			p.past = true
		default:
			for _, service := range s.of {
				p.unset[service] = true
			}
		}
	}
	return p
}

// path is the way that requests to a backend take now: past its waypoint unless istiod says that the Service leads there, the gateway is in the mesh,
// and it sends to the Service's address. What is assumed of that is said so.
func (m *maker) path(b *backend) string {
	const gateway = "gateway > "
	pods := "pods of " + b.key.String()
	p := m.passing()
	if p.pods == 0 {
		return "" // nobody takes any
	}
	waypoint, leads := m.leads(b)
	reach := p.inside + p.assumed
	if !leads || reach == 0 || p.past || p.unset[b.String()] || !b.wanted && m.goesPast(b) {
		return gateway + pods
	}
	way := gateway + "waypoint " + waypoint.String() + " > " + pods
	if p.assumed > 0 {
		way += " (assumed: nobody has seen the gateway speak HBONE)"
	}
	if reach < p.pods {
		way += fmt.Sprintf(" (%d of %d pods of the gateway go straight to the pods)", p.pods-reach, p.pods)
	}
	return way
}

// leads is the waypoint that a Service leads to, and whether it does: by a label, and by istiod's word.
func (m *maker) leads(b *backend) (types.NamespacedName, bool) {
	look := *b // which notes it
	if !m.bound(&look) {
		return types.NamespacedName{}, false
	}
	c := meta.FindStatusCondition(b.service.Status.Conditions, ConditionWaypointBound)
	return look.waypoint, c != nil && c.Status == "True"
}

// goesPast says whether a gateway goes past the waypoint of a Service for which no waypoint is asked, as its own switch is not seen to be set.
func (m *maker) goesPast(b *backend) bool {
	return slices.ContainsFunc(m.gateways, func(g *gateway) bool { return m.sendsPast(g, b) })
}

// sendsPast says whether one gateway does.
func (m *maker) sendsPast(g *gateway, b *backend) bool {
	s := m.chosen(g)
	if s == nil {
		return g.vendor.NoSwitch != ""
	}
	switch s.On {
	case edge.OnService:
		is, _ := value(b.service, s.Path)
		return is != s.Value
	case edge.OnParameters:
		is, _ := value(m.parameters(g, s), s.Path)
		return is != s.Value
	}
	return true
}

// unled finds the policies that nobody enforces for Services which do not lead to a waypoint, though one is asked for, where nothing is under way
// to change that. Of a namespace that does not consent nothing is told.
func (m *maker) unled() {
	policy, _ := m.waypointPolicy()
	if policy == v1alpha1.WaypointNone {
		return // which was told when the waypoints were chosen
	}
	stuck := m.plan.Blocked()
	for _, b := range m.backends {
		if _, leads := m.leads(b); leads || !m.consents(b.key.Namespace, "", "Service") {
			continue
		}
		stays := stuck || m.held(b.String()) || slices.ContainsFunc(m.plan.Steps, func(s Step) bool {
			return s.Verb == VerbWire && s.Object == b.String() && s.State == v1alpha1.StepBlocked
		})
		if !stays {
			continue
		}
		for _, name := range m.enforced(b.key, "Service", false) {
			m.found(v1alpha1.Finding{
				Code: v1alpha1.FindingUnenforced, Severity: v1alpha1.SeverityWarning, Object: name, Field: "spec.targetRefs",
				Message: fmt.Sprintf("%s does not lead to a waypoint, so nobody enforces this policy", b), Fix: "mend what stops this AmbientEdge, as its other findings say",
			})
		}
	}
}
