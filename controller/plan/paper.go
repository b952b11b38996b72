package plan

import (
	"fmt"

	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// assumed says whether a pod is none that anybody has seen: whoever reads files alone makes one of a template, which no API server has given a UID.
func (s *Snapshot) assumed(p *Pod) bool { return s.Paper && p.UID == "" }

// untold says whether files do not have a status that a cluster would have.
func (s *Snapshot) untold(conditions int, uid types.UID) bool {
	return s.Paper && conditions == 0 && uid == ""
}

// guarded says whether anybody enforces policies in front of a pod, or will: of one that nobody has seen, whether its labels or those of its namespace bring
// it into the mesh. Else files would hide what policies at pods do.
func (m *maker) guarded(p *Pod) bool {
	if enforces(p) || !m.assumed(p) {
		return enforces(p)
	}
	code, _ := cannot(p)
	return code == "" && m.labelledIn(p)
}

// capturedOnPaper makes a step unknown that sees whether pods are captured, where files do not tell.
func (m *maker) capturedOnPaper(s *Step, g *gateway) {
	if !m.Paper || s.State != v1alpha1.StepNext {
		return
	}
	unseen := 0
	for _, p := range g.pods {
		if m.assumed(p) {
			unseen++
		}
	}
	switch {
	case len(g.pods) == 0:
		s.State, s.Reason = v1alpha1.StepUnknown, "its pods are not in the files"
	case unseen > 0:
		s.State, s.Reason = v1alpha1.StepUnknown, fmt.Sprintf("whether its pods are captured is not in the files: %d of %d are assumed", unseen, len(g.pods))
	}
}
