package plan

import (
	"crypto/sha256"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// late says whether a pod was captured after it had started, and has not noticed: some gateways look once.
func (g *gateway) late(p *Pod) bool {
	if !g.vendor.OncePerStream || !captured(p) {
		return false
	}
	began := began(p)
	at := since(p, annotated(AnnotationRedirection, "").managed())
	return began != nil && at != nil && began.Before(at)
}

// began is when the last of a pod's containers started. Nil: nobody tells.
func began(p *Pod) (last *metav1.Time) {
	for i := range p.Status.ContainerStatuses {
		if r := p.Status.ContainerStatuses[i].State.Running; r != nil && (last == nil || last.Before(&r.StartedAt)) {
			last = &r.StartedAt
		}
	}
	return last
}

// since is when somebody has set a field last. Nil: nobody tells.
func since(o metav1.Object, path []string) (last *metav1.Time) {
	for _, f := range o.GetManagedFields() {
		if f.FieldsV1 != nil && f.Time != nil && hasPath(f.FieldsV1.GetRawBytes(), path) && (last == nil || last.Before(f.Time)) {
			last = f.Time
		}
	}
	return last
}

// roll adds the step that starts pods anew which have not noticed that they are captured. It stays, done, while its annotation is ours: to take it away
// would roll them once more.
func (m *maker) roll(g *gateway) {
	var late []*Pod
	for _, p := range g.pods {
		if g.late(p) {
			late = append(late, p)
		}
	}
	c, at := carrier{gatewayAPI, "Gateway", g.object}, []string{"spec", "infrastructure"}
	if g.object == nil || !g.vendor.Infrastructure {
		if len(g.workloads) == 0 {
			return
		}
		c, at = g.workloads[0].carrier, []string{"spec", "template", "metadata"}
	}
	now := annotated(v1alpha1.AnnotationRollout, "", at...)
	if g.vendor.OncePerStream {
		m.plan.mayRoll = append(m.plan.mayRoll, rolling{c, now.path})
	}
	is, set := value(c.object, now.path)
	mine := set && holds(c.object, m.Edge.FieldOwner(), now.managed()...)
	if len(late) == 0 && !mine {
		return
	}
	now.value = fmt.Sprint(is)
	if again := toRoll(late, now.String(), mine); again != "" {
		now.value = again
	}
	s := m.put(c, VerbRoll, "start its pods anew, as the last ones were captured after they had connected", []setting{now}, []setting{
		now, labelled(LabelDataplaneMode, "", at...), annotated(AnnotationBypassInbound, "", at...), annotated(AnnotationDNSCapture, "", at...),
	})
	s.part, s.wide = partEnrol, true
	if s.Write != nil {
		m.atOnce(g)
	}
	for _, p := range late {
		m.found(v1alpha1.Finding{
			Code: v1alpha1.FindingLate, Severity: v1alpha1.SeverityWarning, Object: object("Pod", keyOf(p)), Field: "metadata.annotations[" + AnnotationRedirection + "]",
			Message: fmt.Sprintf("this pod of %s was captured after it had connected to its controller, which still takes it for one outside the mesh and sends it past waypoints", g),
			Fix:     "with mode Manage it is rolled; else: kubectl delete pod -n " + p.Namespace + " " + p.Name,
		})
	}
	m.add(s, partEnrol)
}

// toRoll is the value of the annotation that starts pods anew, or "" while those with the present one are on their way.
func toRoll(late []*Pod, now string, mine bool) string {
	h := sha256.New()
	fresh := !mine
	for _, p := range late {
		fresh = fresh || p.Annotations[v1alpha1.AnnotationRollout] == now // it is new already, and late again
		fmt.Fprintln(h, p.UID)
	}
	if len(late) == 0 || !fresh {
		return ""
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:6])
}
