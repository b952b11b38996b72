package plan

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// refusesOutside says why a captured gateway would refuse those who call it from outside the mesh, or "": PeerAuthentication STRICT holds for its pods.
// The API server is among the callers where one of its webhooks is in the same pods.
func (m *maker) refusesOutside(g *gateway) string {
	for _, p := range g.pods {
		by := m.strict(p)
		if by == "" {
			continue
		}
		if callee := m.called(p); callee != nil {
			return fmt.Sprintf("%s is STRICT for it, and the API server calls it for %s", by, callee.By)
		}
		return by + " is STRICT for it"
	}
	return ""
}

// refused finds a gateway that is captured by others and refuses those outside.
func (m *maker) refused(g *gateway, strict string) {
	if strict == "" {
		return
	}
	for _, p := range g.pods {
		if p.Annotations[AnnotationBypassInbound] == "true" {
			continue
		}
		m.found(v1alpha1.Finding{
			Code: v1alpha1.FindingRefusesOutside, Severity: v1alpha1.SeverityWarning, Object: object("Pod", keyOf(p)), Field: "metadata.annotations[" + AnnotationBypassInbound + "]",
			Message: fmt.Sprintf("this pod of %s refuses those who call it from outside the mesh: %s", g, strict),
			Fix:     "annotate its pod template with " + AnnotationBypassInbound + "=true, or make an exception with a PeerAuthentication PERMISSIVE for it",
		})
		return // one is enough
	}
}

// strict is the PeerAuthentication that has a pod take mTLS only, or "": that of its labels comes before that of its namespace, and this before the mesh's.
func (m *maker) strict(p *corev1.Pod) string {
	for _, fits := range []func(ns string, selector map[string]string) bool{
		func(ns string, selector map[string]string) bool {
			return ns == p.Namespace && hasLabels(p.Labels, selector)
		},
		func(ns string, selector map[string]string) bool { return ns == p.Namespace && len(selector) == 0 },
		func(ns string, selector map[string]string) bool { return ns == m.Root() && len(selector) == 0 },
	} {
		for _, a := range m.Strictness {
			if !fits(a.Namespace, a.Spec.GetSelector().GetMatchLabels()) {
				continue
			}
			switch a.Spec.GetMtls().GetMode().String() {
			case "STRICT":
				return object("PeerAuthentication", keyOf(a))
			case "PERMISSIVE", "DISABLE":
				return ""
			}
		}
	}
	return ""
}

// called says whether the API server calls a pod, by a Service that selects it. Nil: it does not.
func (m *maker) called(p *corev1.Pod) *Callee {
	for i := range m.Callees {
		c := &m.Callees[i]
		if c.Service.Namespace != p.Namespace {
			continue
		}
		if s := m.service(c.Service); s != nil && hasLabels(p.Labels, s.Spec.Selector) {
			return c
		}
	}
	return nil
}
