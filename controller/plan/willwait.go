package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// willWait foresees that the lock of a Service which is still to be wired has to wait: the pods of a gateway that run now will have run since before that.
// Who reads the plan learns so what he will have to do.
func (m *maker) willWait(b *backend) {
	if !slices.ContainsFunc(m.way(b), func(x setting) bool { return m.state(b.service, x) == absent }) {
		return
	}
	for _, g := range m.gateways {
		if len(g.pods) == 0 || g.capture == v1alpha1.CaptureNone {
			continue
		}
		m.found(v1alpha1.Finding{
			Code: v1alpha1.FindingNotLocked, Severity: v1alpha1.SeverityInfo, Object: b.String(), Field: "spec",
			Message: fmt.Sprintf("the lock of this Service will wait until the pods of %s are started anew, when all else is done: those that run since before it was wired may keep connections past its waypoint, which the lock would cut", g),
			Fix:     m.restart(g),
		})
		return
	}
}

// restart is the command that starts the pods of a gateway anew.
func (m *maker) restart(g *gateway) string {
	var commands []string
	for _, w := range m.runs(g) {
		commands = append(commands, fmt.Sprintf("kubectl rollout restart -n %s %s %s", w.key.Namespace, strings.ToLower(w.kind), w.key.Name))
	}
	if len(commands) == 0 {
		return "start its pods anew"
	}
	return strings.Join(commands, "; ")
}
