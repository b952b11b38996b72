package check

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// parent is what a route names in its parentRefs.
type parent struct {
	kind string
	types.NamespacedName
}

// controllers say who answers for parents of routes: for Gateways, ListenerSets, and, under the empty name, for Services.
func (b *Builder) controllers(objects []Placed) map[parent]string {
	classes, of := map[string]string{}, map[parent]string{{kind: "Service"}: plan.WaypointController}
	for i := range b.w.Classes {
		classes[b.w.Classes[i].Name] = string(b.w.Classes[i].Spec.ControllerName)
	}
	text := func(u *unstructured.Unstructured, fields ...string) string {
		v, _, _ := unstructured.NestedString(u.Object, fields...)
		return v
	}
	for _, o := range objects {
		if o.GetKind() == "GatewayClass" {
			classes[o.GetName()] = text(o.Unstructured, "spec", "controllerName")
		}
	}
	for i := range b.w.Gateways {
		g := &b.w.Gateways[i]
		of[parent{"Gateway", types.NamespacedName{Namespace: g.Namespace, Name: g.Name}}] = classes[string(g.Spec.GatewayClassName)]
	}
	sets := slices.Clone(b.w.ListenerSets)
	for _, o := range objects {
		switch {
		case o.GetKind() == "Gateway":
			of[parent{"Gateway", o.key().NamespacedName}] = classes[text(o.Unstructured, "spec", "gatewayClassName")]
		case strings.HasSuffix(o.GetKind(), "ListenerSet"):
			sets = append(sets, o.Unstructured)
		}
	}
	for _, u := range sets {
		at := types.NamespacedName{Namespace: cmp.Or(text(u, "spec", "parentRef", "namespace"), u.GetNamespace()), Name: text(u, "spec", "parentRef", "name")}
		of[parent{u.GetKind(), types.NamespacedName{Namespace: u.GetNamespace(), Name: u.GetName()}}] = of[parent{"Gateway", at}]
	}
	return of
}

// imply gives an object the status that it will have, where it has none. A route's is told of the parents that it names: it keeps what they said of it.
func imply(u *unstructured.Unstructured, controllers map[parent]string) {
	gk := u.GroupVersionKind().GroupKind()
	isRoute := strings.HasSuffix(gk.Kind, "Route")
	if _, told := u.Object["status"]; told && !isRoute || gk.Group != gatewayv1.GroupName {
		return
	}
	conditions := func(of ...string) (list []any) {
		for _, c := range of {
			list = append(list, map[string]any{
				"type": c, "status": "True", "reason": c, "message": "", "observedGeneration": u.GetGeneration(), "lastTransitionTime": "1970-01-01T00:00:00Z",
			})
		}
		return list
	}
	switch {
	case gk.Kind == "Gateway":
		u.Object["status"] = map[string]any{
			"conditions": conditions("Accepted", "Programmed"),
			"addresses":  []any{map[string]any{"type": "Hostname", "value": fmt.Sprintf("%s.%s.svc.cluster.local", u.GetName(), u.GetNamespace())}},
		}
	case isRoute:
		before, _, _ := unstructured.NestedSlice(u.Object, "status", "parents")
		refs, _, _ := unstructured.NestedSlice(u.Object, "spec", "parentRefs")
		parents := []any{}
		for _, r := range refs {
			ref, is := r.(map[string]any)
			if !is {
				continue
			}
			field := func(name, otherwise string) string {
				v, _ := ref[name].(string)
				return cmp.Or(v, otherwise)
			}
			if kept := slices.DeleteFunc(slices.Clone(before), func(p any) bool { return !saysOf(p, ref, u.GetNamespace()) }); len(kept) > 0 {
				parents = append(parents, kept...)
				continue
			}
			at := parent{field("kind", "Gateway"), types.NamespacedName{Namespace: field("namespace", u.GetNamespace()), Name: field("name", "")}}
			if at.kind == "Service" {
				at.NamespacedName = types.NamespacedName{}
			}
			parents = append(parents, map[string]any{"parentRef": ref, "controllerName": controllers[at], "conditions": conditions("Accepted", "ResolvedRefs")})
		}
		for _, p := range before { // a route that leads here is in no parentRefs
			said, _ := p.(map[string]any)
			if kind, _, _ := unstructured.NestedString(said, "parentRef", "kind"); strings.HasSuffix(kind, "Route") {
				parents = append(parents, p)
			}
		}
		u.Object["status"] = map[string]any{"parents": parents}
	}
}

// saysOf says whether an entry of a route's status is about one of its parentRefs: a namespace that is left out is the route's.
func saysOf(entry any, ref map[string]any, namespace string) bool {
	said, _ := entry.(map[string]any)
	of, _ := said["parentRef"].(map[string]any)
	otherwise := map[string]string{"group": gatewayv1.GroupName, "kind": "Gateway", "namespace": namespace, "name": "", "sectionName": "", "port": ""}
	for field, usual := range otherwise {
		text := func(tree map[string]any) string {
			if v, is := tree[field]; is && v != nil {
				return fmt.Sprint(v)
			}
			return usual
		}
		if text(of) != text(ref) {
			return false
		}
	}
	return of != nil
}

// roll has the pods of given workloads run as their templates have them, and makes one of a workload that has none. It returns those that are changed.
func (b *Builder) roll(given map[Object]bool) map[*plan.Pod]bool {
	w := b.w
	changed := map[*plan.Pod]bool{}
	pods := map[string][]*plan.Pod{} // by namespace
	for i := range w.Pods {
		p := &w.Pods[i]
		pods[p.Namespace] = append(pods[p.Namespace], p)
		if given[Object{"", "Pod", types.NamespacedName{Namespace: p.Namespace, Name: p.Name}}] {
			changed[p] = true
		}
	}
	var made []*plan.Pod
	of := func(kind string, o metav1.Object, selector *metav1.LabelSelector, template *corev1.PodTemplateSpec) {
		if !given[Object{"apps", kind, types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}}] || selector == nil || len(selector.MatchLabels) == 0 {
			return
		}
		there := false
		for _, p := range pods[o.GetNamespace()] {
			if !has(p.Labels, selector.MatchLabels) {
				continue
			}
			there, changed[p] = true, true
			p.Labels = maps.Clone(p.Labels)
			maps.Copy(p.Labels, template.Labels)
			p.Annotations, p.Spec = maps.Clone(template.Annotations), plan.SpecOf(template.Spec.DeepCopy())
		}
		if !there {
			p := &plan.Pod{ObjectMeta: *template.ObjectMeta.DeepCopy(), Spec: plan.SpecOf(template.Spec.DeepCopy())}
			p.Namespace, p.Name = o.GetNamespace(), o.GetName()+"-assumed"
			p.Status = plan.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}
			made = append(made, p)
		}
	}
	for i := range w.Deployments {
		if d := &w.Deployments[i]; d.Spec.Replicas == nil || *d.Spec.Replicas > 0 {
			of("Deployment", d, d.Spec.Selector, &d.Spec.Template)
		}
	}
	for i := range w.DaemonSets {
		of("DaemonSet", &w.DaemonSets[i], w.DaemonSets[i].Spec.Selector, &w.DaemonSets[i].Spec.Template)
	}
	made = append(made, b.proxies(given, pods)...)
	if len(made) == 0 {
		return changed
	}
	before := w.Pods
	for _, p := range made {
		w.Pods = append(w.Pods, *p)
	}
	now := map[*plan.Pod]bool{}
	for i := range w.Pods { // they may have moved
		if i >= len(before) || changed[&before[i]] {
			now[&w.Pods[i]] = true
		}
	}
	return now
}

// proxies are the pods that istiod will make for given Gateways, of those that it knows and that have none.
func (b *Builder) proxies(given map[Object]bool, pods map[string][]*plan.Pod) (made []*plan.Pod) {
	accounts := map[string]string{plan.WaypointController: "", "istio.io/gateway-controller": "-istio"}
	of := map[string]string{plan.WaypointClass: plan.WaypointController}
	for i := range b.w.Classes {
		of[b.w.Classes[i].Name] = string(b.w.Classes[i].Spec.ControllerName)
	}
	for i := range b.w.Gateways {
		g := &b.w.Gateways[i]
		ending, known := accounts[of[string(g.Spec.GatewayClassName)]]
		if !known || !given[Object{gatewayv1.GroupName, "Gateway", types.NamespacedName{Namespace: g.Namespace, Name: g.Name}}] {
			continue
		}
		labels := map[string]string{edge.LabelGatewayName: g.Name}
		if slices.ContainsFunc(pods[g.Namespace], func(p *plan.Pod) bool { return has(p.Labels, labels) }) {
			continue
		}
		labels[plan.LabelDataplaneMode] = "none"
		p := &plan.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: g.Namespace, Name: g.Name + "-assumed", Labels: labels}}
		p.Spec.ServiceAccountName = g.Name + ending
		p.Status = plan.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}
		made = append(made, p)
		b.w.ServiceAccounts[types.NamespacedName{Namespace: g.Namespace, Name: p.Spec.ServiceAccountName}] = true
	}
	return made
}

// recapture has pods captured as their labels and those of their namespaces have it, where either is given.
func (w *World) recapture(given map[Object]bool, changed map[*plan.Pod]bool) {
	for i := range w.Pods {
		p := &w.Pods[i]
		if !changed[p] && !given[Object{"", "Namespace", types.NamespacedName{Name: p.Namespace}}] {
			continue
		}
		mode, set := p.Labels[plan.LabelDataplaneMode]
		if !set {
			mode = w.namespaceLabels(p.Namespace)[plan.LabelDataplaneMode]
		}
		p.Annotations = maps.Clone(p.Annotations)
		delete(p.Annotations, plan.AnnotationRedirection)
		if mode == "ambient" && !p.Spec.HostNetwork && p.Annotations["sidecar.istio.io/status"] == "" {
			if p.Annotations == nil {
				p.Annotations = map[string]string{}
			}
			p.Annotations[plan.AnnotationRedirection] = "enabled"
		}
	}
}

// bind has istiod bind Services to the waypoints that their labels name, where label or waypoint is given.
func (w *World) bind(given map[Object]bool) {
	for i := range w.Services {
		s := &w.Services[i]
		key, _, led := w.WaypointOf(s)
		if !given[ServiceObject(s)] && !given[Object{"", "Namespace", types.NamespacedName{Name: s.Namespace}}] &&
			(!led || !given[Object{gatewayv1.GroupName, "Gateway", key}]) {
			continue
		}
		s.Status.Conditions = slices.Clone(s.Status.Conditions)
		if g := w.Gateway(key); led && g != nil && w.IsWaypoint(g) {
			meta.SetStatusCondition(&s.Status.Conditions, metav1.Condition{Type: plan.ConditionWaypointBound, Status: metav1.ConditionTrue, Reason: "WaypointAccepted"})
			continue
		}
		meta.RemoveStatusCondition(&s.Status.Conditions, plan.ConditionWaypointBound)
	}
}
