package plan

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// earlier finds pods of gateways that run since before they were captured, or since before a Service led to its waypoint. What is done about paths is
// for new connections: those that a gateway keeps go on as before, past waypoints and their policies. So do the tunnels of one that speaks HBONE itself, by
// which it went to the pods.
func (m *maker) earlier() {
	for _, g := range m.gateways {
		if g.capture != v1alpha1.CaptureAmbient && g.capture != v1alpha1.CaptureNative {
			continue
		}
		ambient := g.capture == v1alpha1.CaptureAmbient
		before := map[string]bool{}
		pods := 0
		for _, p := range g.pods {
			at := began(p)
			if at == nil {
				at = p.Status.StartTime
			}
			if at == nil || ambient && (!captured(p) || g.late(p)) { // late ones are rolled
				continue
			}
			old := false
			if ambient && at.Before(since(p, annotated(AnnotationRedirection, "").managed())) {
				before["they were captured"], old = true, true
			}
			for _, b := range m.backends {
				if b.wanted && at.Before(m.wired(b)) {
					before[b.String()+" led to its waypoint"], old = true, true
				}
			}
			if old {
				pods++
			}
		}
		if pods > 0 {
			m.outdated(g, pods, before)
		}
	}
}

// wired is when we let a Service lead to its waypoint last. Nil: we have not, or nobody tells.
func (m *maker) wired(b *backend) (last *metav1.Time) {
	path := labelled(LabelUseWaypoint, "").managed()
	for _, f := range b.service.GetManagedFields() {
		if f.Manager == m.Edge.FieldOwner() && f.FieldsV1 != nil && f.Time != nil && hasPath(f.FieldsV1.GetRawBytes(), path) && (last == nil || last.Before(f.Time)) {
			last = f.Time
		}
	}
	return last
}

func (m *maker) outdated(g *gateway, pods int, before map[string]bool) {
	var events []string
	for e := range before {
		events = append(events, e)
	}
	slices.Sort(events)
	fix := "start its pods anew"
	for i, w := range m.runs(g) {
		command := fmt.Sprintf("kubectl rollout restart -n %s %s %s", w.key.Namespace, strings.ToLower(w.kind), w.key.Name)
		if i == 0 {
			fix = command
			continue
		}
		fix += "; " + command
	}
	m.found(v1alpha1.Finding{
		Code: v1alpha1.FindingEarlier, Severity: v1alpha1.SeverityWarning, Object: g.String(),
		Message: fmt.Sprintf("%d of %d pods started before this: %s. A connection that they have kept from then goes on past the mesh or the waypoint, and its policies",
			pods, len(g.pods), listed(events)),
		Fix: fix,
	})
}
