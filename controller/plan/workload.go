package plan

import (
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
)

// workload is a Deployment or DaemonSet.
type workload struct {
	carrier
	key      types.NamespacedName
	selector map[string]string
	template *corev1.PodTemplateSpec
}

func ofDeployment(d *appsv1.Deployment) *workload {
	w := &workload{carrier: carrier{"apps/v1", "Deployment", d}, key: keyOf(d), template: &d.Spec.Template}
	if d.Spec.Selector != nil {
		w.selector = d.Spec.Selector.MatchLabels
	}
	return w
}

func ofDaemonSet(d *appsv1.DaemonSet) *workload {
	w := &workload{carrier: carrier{"apps/v1", "DaemonSet", d}, key: keyOf(d), template: &d.Spec.Template}
	if d.Spec.Selector != nil {
		w.selector = d.Spec.Selector.MatchLabels
	}
	return w
}

// workload is that of a reference, or nil.
func (m *maker) workload(kind string, key types.NamespacedName) *workload {
	if d := m.deployment(key); kind == "Deployment" && d != nil {
		return ofDeployment(d)
	}
	if d := m.daemonSet(key); kind == "DaemonSet" && d != nil {
		return ofDaemonSet(d)
	}
	return nil
}

// workloads are those that are fit, by namespace and name.
func (m *maker) workloads(fit func(*workload) bool) []*workload {
	all := m.readWorkloads
	if m.ix != nil {
		all = func() []*workload { return m.ix.workloads }
	}
	var list []*workload
	for _, w := range all() {
		if fit(w) {
			list = append(list, w)
		}
	}
	return list
}

// readWorkloads are all, by namespace and name.
func (s *Snapshot) readWorkloads() []*workload {
	list := make([]*workload, 0, len(s.Deployments)+len(s.DaemonSets))
	for i := range s.Deployments {
		list = append(list, ofDeployment(&s.Deployments[i]))
	}
	for i := range s.DaemonSets {
		list = append(list, ofDaemonSet(&s.DaemonSets[i]))
	}
	slices.SortStableFunc(list, func(a, b *workload) int { return compareKeys(a.key, b.key) })
	return list
}

// fitting are the workloads that a vendor's match fits.
func (m *maker) fitting(match *edge.Match) []*workload {
	find := func() []*workload { return m.workloads(func(w *workload) bool { return w.fits(match) }) }
	if m.ix == nil {
		return find()
	}
	key := fmt.Sprint(*match)
	m.ix.mu.Lock()
	list, known := m.ix.fitting[key]
	m.ix.mu.Unlock()
	if !known {
		list = find()
		m.ix.mu.Lock()
		m.ix.fitting[key] = list
		m.ix.mu.Unlock()
	}
	return list
}

// scaledDown says whether no pods are asked for.
func (w *workload) scaledDown() bool {
	d, ok := w.object.(*appsv1.Deployment)
	return ok && d.Spec.Replicas != nil && *d.Spec.Replicas == 0
}

// rolls says whether a rollout is under way, as far as that is told.
func (w *workload) rolls() bool {
	switch o := w.object.(type) {
	case *appsv1.Deployment:
		return o.Status.ObservedGeneration < o.Generation || o.Status.UpdatedReplicas < o.Status.Replicas
	case *appsv1.DaemonSet:
		return o.Status.ObservedGeneration < o.Generation || o.Status.UpdatedNumberScheduled < o.Status.DesiredNumberScheduled
	}
	return false
}

func (w *workload) images() []string {
	var list []string
	for i := range w.template.Spec.Containers {
		list = append(list, w.template.Spec.Containers[i].Image)
	}
	return list
}

func (w *workload) fits(match *edge.Match) bool { return match.Fits(w.template.Labels, w.images()) }

// env is an environment variable of its containers. It is unknown where it comes from elsewhere, or may do so.
func (w *workload) env(name string) (value string, set, known bool) {
	known = true
	for i := range w.template.Spec.Containers {
		c := &w.template.Spec.Containers[i]
		if len(c.EnvFrom) > 0 {
			known = false
		}
		for _, e := range c.Env {
			if e.Name == name {
				return e.Value, true, e.ValueFrom == nil
			}
		}
	}
	return "", false, known
}

// controllers are the workloads that program a gateway of a vendor.
func (m *maker) controllers(v *edge.Vendor) []*workload {
	return m.fitting(&v.Controller)
}

// version is that of a vendor's controller, or of its proxies where these are one. Empty: nobody tells.
func (m *maker) version(v *edge.Vendor) string {
	match := v.Controller
	if len(match.Images) == 0 {
		match = v.Workload
	}
	for _, w := range m.fitting(&match) {
		if found := match.Version(w.images()); found != "" {
			return found
		}
	}
	return ""
}

// runs are the workloads that run the pods of a gateway.
func (m *maker) runs(g *gateway) []*workload {
	if len(g.workloads) > 0 {
		return g.workloads
	}
	return m.workloads(func(w *workload) bool {
		return slices.ContainsFunc(g.pods, func(p *Pod) bool { return p.Namespace == w.key.Namespace && hasLabels(p.Labels, w.selector) })
	})
}

// atOnce finds rollouts that take more than one pod at a time, where one is about to begin.
func (m *maker) atOnce(g *gateway) {
	for _, w := range m.runs(g) {
		var why string
		switch o := w.object.(type) {
		case *appsv1.Deployment:
			replicas := 1
			if o.Spec.Replicas != nil {
				replicas = int(*o.Spec.Replicas)
			}
			if o.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
				why = "stops all pods before it starts new ones"
			} else if r := o.Spec.Strategy.RollingUpdate; r != nil {
				why = several(r.MaxUnavailable, replicas, false)
			}
		case *appsv1.DaemonSet:
			if o.Spec.UpdateStrategy.Type == appsv1.OnDeleteDaemonSetStrategyType {
				why = "waits for somebody to delete the pods one by one"
			} else if r := o.Spec.UpdateStrategy.RollingUpdate; r != nil {
				why = several(r.MaxUnavailable, int(o.Status.DesiredNumberScheduled), true)
			}
		}
		if why != "" {
			f := v1alpha1.Finding{
				Code: v1alpha1.FindingRollout, Severity: v1alpha1.SeverityWarning, Object: w.String(), Field: "spec.strategy",
				Message: fmt.Sprintf("the pods of %s are about to be rolled, and their workload %s", g, why),
				Fix:     "set its strategy to RollingUpdate, one pod at a time, before spec.mode is Manage",
			}
			if len(g.pods) == 1 {
				f.Fix = "set its strategy to RollingUpdate with maxUnavailable 0 and maxSurge 1, before spec.mode is Manage"
			}
			m.found(f)
		}
	}
}

func several(most *intstr.IntOrString, of int, up bool) string {
	if most == nil {
		return ""
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(most, of, up)
	if err != nil || n < 2 && n < of || of == 0 {
		return ""
	}
	return fmt.Sprintf("takes %d of %d pods away at a time", n, of)
}
