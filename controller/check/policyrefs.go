package check

import (
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

func policyRefChecks() []Check {
	return []Check{
		{
			Code: "ISM120", Title: "a policy is for something that is not there", Severities: []v1alpha1.Severity{v1alpha1.SeverityError, v1alpha1.SeverityInfo},
			Pains:  []string{"A13"},
			Matter: "targetRefs of a policy name a Service, ServiceEntry or waypoint that does not exist.",
			Harm:   "Nobody enforces the policy: what it should protect is open, where something else leads there.",
			Fix:    "Create what it names, or correct the name; it is looked for in the policy's namespace.",
			Find:   (*World).missingTargets,
		},
		{
			Code: "ISM121", Title: "a policy is for a gateway that does not read it", Severities: []v1alpha1.Severity{v1alpha1.SeverityError},
			Pains:  []string{"A13", "B15"},
			Matter: "targetRefs of an Istio policy name a Gateway of another vendor.",
			Harm:   "Istio programs its own gateways and waypoints alone: nobody enforces the policy.",
			Fix:    "Use the gateway's own policies there, or attach the policy to the Services behind it and let them lead to a waypoint.",
			Find:   (*World).foreignTargets,
		},
		{
			Code: "ISM123", Title: "nothing leads to a waypoint", Severities: []v1alpha1.Severity{v1alpha1.SeverityWarning, v1alpha1.SeverityInfo},
			Pains:  []string{"A7", "A13", "G5"},
			Matter: "A waypoint is there, and no Service, ServiceEntry, pod or namespace is labelled to lead to it.",
			Harm:   "It does nothing. Warning: policies are attached to it, which nobody enforces.",
			Fix:    "Label what it is for: istio.io/use-waypoint. Or remove it.",
			Find:   (*World).unusedWaypoints,
		},
		{
			Code: "ISM118", Title: "pods are labelled for a waypoint that is for Services", Severities: []v1alpha1.Severity{v1alpha1.SeverityWarning},
			Pains:  []string{"A7", "A8"},
			Matter: "Pods have label istio.io/use-waypoint, the waypoint takes what is sent to Services, and a Service for these pods does not lead there.",
			Harm:   "Who calls the Service goes past the waypoint, and its policies are not enforced.",
			Fix:    "Label the Service.",
			Find:   (*World).podLabels,
		},
		{
			Code: "ISM122", Title: "a route for a Service without a waypoint", Severities: []v1alpha1.Severity{v1alpha1.SeverityWarning}, Pains: []string{"A12", "G7"},
			Matter: "A route has a Service for parent, the Service's pods are in the mesh, and it leads to no waypoint.",
			Harm:   "ztunnel does not read routes: retries, splits, redirects and timeouts of it are not applied to callers in ambient mode.",
			Fix:    "Let the Service lead to a waypoint.",
			Find:   (*World).routesWithoutWaypoint,
		},
	}
}

// eachTarget calls do for each policy and what it names.
func (w *World) eachTarget(do func(p policyObject, i int, to Object)) {
	for _, p := range w.Policies {
		for i, to := range targetsOf(p.Namespace, &p.Spec) {
			do(policyObject{Object{"security.istio.io", "AuthorizationPolicy", keyOf(p)}, p, nil}, i, to)
		}
	}
	for _, p := range w.RequestAuthentications {
		for i, to := range targetsOf(p.Namespace, &p.Spec) {
			do(policyObject{Object{"security.istio.io", "RequestAuthentication", keyOf(p)}, nil, p}, i, to)
		}
	}
}

func (w *World) missingTargets(found func(Finding)) {
	w.eachTarget(func(p policyObject, i int, to Object) {
		missing := false
		switch to.kind() {
		case schema.GroupKind{Kind: "Service"}:
			missing = w.Service(to.NamespacedName) == nil
		case schema.GroupKind{Group: gatewayGroup, Kind: "Gateway"}:
			missing = w.Gateway(to.NamespacedName) == nil
		case kindServiceEntry():
			missing = w.Other(kindServiceEntry(), to.Namespace, to.Name) == nil
		}
		if !missing {
			return
		}
		f := Finding{Object: p.Object, Field: fmt.Sprintf("spec.targetRefs[%d]", i), Fix: "create it, or correct the name: a policy is for objects of its " +
			"own namespace"}
		f.Message = fmt.Sprintf("this policy is for %s, which does not exist: nobody enforces it", to)
		if !w.Knows(to.kind()) {
			if !w.Paper || len(w.servicesOf[to.Namespace]) == 0 || to.Kind == "Gateway" {
				return
			}
			f.Severity = v1alpha1.SeverityInfo
			f.Message = fmt.Sprintf("this policy is for %s, which is not in the files: nobody enforces it unless it is in the cluster", to)
		}
		found(f)
	})
}

func (w *World) foreignTargets(found func(Finding)) {
	w.eachTarget(func(p policyObject, i int, to Object) {
		g := w.Gateway(to.NamespacedName)
		if to.Kind != "Gateway" || to.Group != gatewayGroup || g == nil {
			return
		}
		c := w.classes[string(g.Spec.GatewayClassName)]
		if c == nil || w.takesHBONE(g) {
			return
		}
		switch v := edge.ByController(string(c.Spec.ControllerName)); v.Name {
		case edge.Custom().Name, "istio", "istio-agentgateway":
		default:
			found(Finding{
				Object: p.Object, Field: fmt.Sprintf("spec.targetRefs[%d]", i), Related: []Object{to},
				Message: fmt.Sprintf("this policy is for %s, which is one of %s: Istio programs its own gateways alone, and nobody enforces it", to, v.Name),
				Fix:     "name the Services behind that gateway, which then must lead to a waypoint; or use a policy of " + v.Name,
			})
		}
	})
}

// ledTo are the waypoints that anything leads to.
func (w *World) ledTo() map[types.NamespacedName]bool {
	all := map[types.NamespacedName]bool{}
	for _, l := range w.index().leads {
		all[l.waypoint] = true
	}
	note := func(labels map[string]string, namespace string) {
		for name, in := range map[string]string{plan.LabelUseWaypoint: plan.LabelUseWaypointNamespace, labelCanary: labelCanaryNamespace} {
			if labels[name] != "" {
				key := types.NamespacedName{Namespace: namespace, Name: labels[name]}
				if labels[in] != "" {
					key.Namespace = labels[in]
				}
				all[key] = true
			}
		}
	}
	for _, t := range w.things() {
		ns := t.Namespace
		if t.Kind == "Namespace" {
			ns = t.Name
		}
		note(t.labels, ns)
	}
	for i := range w.Pods {
		note(w.Pods[i].Labels, w.Pods[i].Namespace)
	}
	return all
}

func (w *World) unusedWaypoints(found func(Finding)) {
	if w.Paper {
		return
	}
	led := w.ledTo()
	for i := range w.Gateways {
		g := &w.Gateways[i]
		if !w.isWaypoint(g) || led[keyOf(g)] {
			continue
		}
		at := gatewayObject(keyOf(g))
		f := Finding{Object: at, Severity: v1alpha1.SeverityInfo, Fix: "label what it is for " + plan.LabelUseWaypoint + "=" + g.Name + ", or remove it"}
		f.Message = "no Service, ServiceEntry, pod or namespace leads to this waypoint: it does nothing"
		for _, p := range w.index().targeting[at] {
			f.Severity, f.Related = v1alpha1.SeverityWarning, append(f.Related, p.Object)
		}
		if len(f.Related) > 0 {
			f.Message += ", and nobody enforces the policies that are attached to it"
		}
		found(f)
	}
}

func (w *World) podLabels(found func(Finding)) {
	for i := range w.Services {
		s := &w.Services[i]
		if _, _, leads := w.WaypointOf(s); leads || w.headless(s) || s.Labels[plan.LabelUseWaypoint] == waypointNone || w.supposed[s.Namespace] {
			continue
		}
		for _, p := range w.PodsOf(s) {
			name := p.Labels[plan.LabelUseWaypoint]
			if name == "" || name == waypointNone {
				continue
			}
			key := types.NamespacedName{Namespace: s.Namespace, Name: name}
			if ns := p.Labels[plan.LabelUseWaypointNamespace]; ns != "" {
				key.Namespace = ns
			}
			if g := w.Gateway(key); g == nil || w.waypointFor(g) != "service" && w.waypointFor(g) != "all" {
				continue
			}
			found(Finding{
				Object: ServiceObject(s), Field: labelField(plan.LabelUseWaypoint), Related: []Object{w.standing(podObject(p)), gatewayObject(key)},
				Message: fmt.Sprintf("pods of this Service are labelled for waypoint %s, and the Service is not: who calls the Service goes past the waypoint", key),
				Fix:     "label the Service", Patch: w.leadCommand(s, key),
			})
			break
		}
	}
}

func (w *World) routesWithoutWaypoint(found func(Finding)) {
	check := func(kind string, o metav1.Object) {
		for i, ref := range plan.ParentRefs(o) {
			if ref.Kind == nil || *ref.Kind != "Service" || ref.Group == nil || *ref.Group != "" && *ref.Group != "core" {
				continue
			}
			key := types.NamespacedName{Namespace: o.GetNamespace(), Name: string(ref.Name)}
			if ref.Namespace != nil {
				key.Namespace = string(*ref.Namespace)
			}
			s := w.Service(key)
			if s == nil || w.supposed[key.Namespace] && s.Labels[plan.LabelUseWaypoint] == "" {
				continue
			}
			if _, _, leads := w.WaypointOf(s); leads || !slices.ContainsFunc(w.PodsOf(s), func(p *plan.Pod) bool { return w.InMesh(p) }) {
				continue
			}
			found(Finding{
				Object: Object{gatewayGroup, kind, keyOf(o)}, Field: fmt.Sprintf("spec.parentRefs[%d]", i), Related: []Object{ServiceObject(s)},
				Message: fmt.Sprintf("this route is for what is sent to %s, which leads to no waypoint: nobody applies it for callers in ambient mode", ServiceObject(s)),
				Fix:     "let the Service lead to a waypoint: label " + plan.LabelUseWaypoint,
			})
		}
	}
	for i := range w.HTTPRoutes {
		check("HTTPRoute", &w.HTTPRoutes[i])
	}
	for _, o := range w.OtherRoutes {
		check(o.GetKind(), o)
	}
}
