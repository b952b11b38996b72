package explain

import (
	"cmp"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// lead is whether a waypoint stands on the way.
type lead struct {
	via      bool
	waypoint types.NamespacedName
	doubt    string // why that is not known; empty: it is
	why      string
	blocked  string // why nothing gets through it
	share    int    // of the connections, in per cent; 0: all
}

// firstLeads says whether ztunnel leads what is sent to a Service through its waypoint, a canary beside it left out. It goes straight to the pods where istiod has attached none: it fails open.
func (x *Explainer) firstLeads(s *corev1.Service) []lead {
	key, by, ok := x.w.WaypointOf(s)
	if !ok {
		return []lead{{why: fmt.Sprintf("neither %s nor its namespace is labelled with a waypoint", "Service "+keyOf(s).String())}}
	}
	label := fmt.Sprintf("%s has label %s=%s", by, plan.LabelUseWaypoint, key.Name)
	c := meta.FindStatusCondition(s.Status.Conditions, plan.ConditionWaypointBound)
	switch no := x.unfit(key, s.Namespace, true); {
	case c != nil && c.Status == "True" && x.w.Gateway(key) == nil && !x.w.Paper:
		return x.doubtful(key, label, fmt.Sprintf("istiod has said that it leads to waypoint %s, which is not there any more", key))
	case c != nil && c.Status == "True":
		return []lead{x.through(key, label+", and istiod has bound it")}
	case c != nil:
		return []lead{{waypoint: key, why: fmt.Sprintf("%s, but istiod has not bound it (%s): it fails open, past the waypoint", label, cmp.Or(c.Message, c.Reason))}}
	case no != "":
		return []lead{{waypoint: key, why: fmt.Sprintf("%s, but %s: it fails open, past the waypoint", label, no)}}
	case !x.w.Paper:
		return x.doubtful(key, label, fmt.Sprintf("%s does not say whether istiod has bound it to waypoint %s", "Service "+keyOf(s).String(), key))
	case x.w.Gateway(key) == nil:
		return x.doubtful(key, label, fmt.Sprintf("waypoint %s is not in the files", key))
	}
	return []lead{x.through(key, label+", and that istiod binds it is assumed")}
}

// through is a way through a waypoint.
func (x *Explainer) through(key types.NamespacedName, why string) lead {
	return lead{via: true, waypoint: key, why: why, blocked: x.down(key)}
}

func (x *Explainer) doubtful(key types.NamespacedName, why, doubt string) []lead {
	a, b := x.through(key, why), lead{waypoint: key, why: why + "; where that is not bound it fails open, past the waypoint", doubt: doubt}
	a.doubt = doubt
	return []lead{a, b}
}

// podLabel is the waypoint for workloads that a pod is labelled to lead to, itself or by its namespace.
func (x *Explainer) podLabel(p *plan.Pod) (types.NamespacedName, string) {
	by, labels := "Pod "+keyOf(p).String(), p.Labels
	if labels[plan.LabelUseWaypoint] == "" {
		ns := x.w.Namespace(p.Namespace)
		if ns == nil {
			return types.NamespacedName{}, ""
		}
		by, labels = "Namespace "+p.Namespace, ns.Labels
	}
	name := labels[plan.LabelUseWaypoint]
	if name == "" || name == "none" {
		return types.NamespacedName{}, ""
	}
	key := types.NamespacedName{Namespace: cmp.Or(labels[plan.LabelUseWaypointNamespace], p.Namespace), Name: name}
	if x.unfit(key, p.Namespace, false) != "" {
		return types.NamespacedName{}, ""
	}
	return key, fmt.Sprintf("%s has label %s=%s, and that waypoint is for workloads too", by, plan.LabelUseWaypoint, name)
}

// podLeads says whether ztunnel leads what is sent to the address of a pod of a group through a waypoint for workloads.
func (x *Explainer) podLeads(g *group) []lead {
	if len(g.pods) == 0 || g.standing == outside || g.standing == sidecar {
		return []lead{{}}
	}
	key, label := x.podLabel(g.pods[0])
	switch {
	case key.Name == "":
		return []lead{{}}
	case x.w.Gateway(key) == nil:
		return x.doubtful(key, label, fmt.Sprintf("waypoint %s is not in the files", key))
	}
	return []lead{x.through(key, label)}
}

// unfit says why a waypoint is not taken for what a namespace has, or "". Nothing is said of what files may lack.
func (x *Explainer) unfit(key types.NamespacedName, namespace string, services bool) string {
	g := x.w.Gateway(key)
	if g == nil {
		if x.w.Paper {
			return ""
		}
		return fmt.Sprintf("there is no waypoint %s", key)
	}
	wants := "services"
	fits := []string{"", "service", "all"}
	if !services {
		wants, fits = "workloads", []string{"workload", "all"}
	}
	switch is := g.Labels[plan.LabelWaypointFor]; {
	case !slices.Contains(fits, is):
		return fmt.Sprintf("waypoint %s is not for %s (label %s is %q)", key, wants, plan.LabelWaypointFor, is)
	case !plan.Admits(x.w.Snapshot, g, namespace):
		return fmt.Sprintf("waypoint %s takes nothing from namespace %s (spec.listeners.allowedRoutes)", key, namespace)
	case !x.w.Paper && len(g.Status.Addresses) == 0:
		return fmt.Sprintf("waypoint %s has no address: it is not programmed", key)
	}
	return ""
}

// down says why nothing gets through a waypoint, or "": ztunnel refuses connections while none of its pods is ready.
func (x *Explainer) down(key types.NamespacedName) string {
	g := x.w.Gateway(key)
	if x.w.Paper || g == nil || len(g.Spec.Addresses) > 0 {
		return ""
	}
	pods := x.waypointPods(key)
	for _, p := range pods {
		if c := podReady(p); c == nil || c.Status == corev1.ConditionTrue {
			return ""
		}
	}
	if !x.w.IsWaypoint(g) {
		return "" // who runs it may have other pods
	}
	return fmt.Sprintf("waypoint %s has no pod that is ready: ztunnel refuses the connection", key)
}

func podReady(p *plan.Pod) *corev1.PodCondition {
	for i := range p.Status.Conditions {
		if c := &p.Status.Conditions[i]; c.Type == corev1.PodReady {
			return c
		}
	}
	return nil
}

func (x *Explainer) waypointPods(key types.NamespacedName) []*plan.Pod {
	return x.w.Selected(key.Namespace, map[string]string{edge.LabelGatewayName: key.Name})
}

// slicesOf are the EndpointSlices of a Service.
func (x *Explainer) slicesOf(key types.NamespacedName) []*endpointSlice {
	if x.slices == nil {
		x.slices = map[types.NamespacedName][]*endpointSlice{}
		for _, o := range x.w.EndpointSlices {
			of := types.NamespacedName{Namespace: o.Namespace, Name: o.Labels["kubernetes.io/service-name"]}
			x.slices[of] = append(x.slices[of], o)
		}
	}
	return x.slices[key]
}

// waypointDetail tells a waypoint's class.
func waypointDetail(g *gatewayv1.Gateway) string {
	if g == nil {
		return ""
	}
	return string(g.Spec.GatewayClassName)
}
