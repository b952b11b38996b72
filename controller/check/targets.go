package check

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	typev1beta1 "istio.io/api/type/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// targetChecks are about what policies are attached to, and whether they are enforced at all.
func targetChecks() []Check {
	return []Check{
		{
			Code: v1alpha1.FindingUnenforced, Title: "a policy is for a Service without waypoint", Severities: both(), Pains: []string{"A13", "A3", "B7"},
			Matter: "A policy has targetRefs to a Service that leads to no waypoint.",
			Harm:   "Nobody enforces it: a DENY denies nothing, an ALLOW restricts nobody, tokens are not looked at.",
			Fix:    "Lead the Service to a waypoint by label istio.io/use-waypoint.",
			Find:   findUnenforced,
		},
		{
			Code: "ISM223", Title: "targetRefs name what no policy is enforced for", Severities: onlyError(), Pains: []string{"A13", "B4", "B14"},
			Matter: "targetRefs name a kind, a group or a namespace that istiod does not attach policies to, or a GatewayClass outside the root namespace.",
			Harm:   "Nobody enforces the policy, though it may have a status.",
			Fix:    "Name the Service, or the waypoint's Gateway, in the policy's own namespace.",
			Find:   findWrongTargets,
		},
		{
			Code: "ISM243", Title: "a policy is only tried out", Severities: []v1alpha1.Severity{v1alpha1.SeverityWarning, v1alpha1.SeverityInfo},
			Pains: []string{"B14"},
			Matter: "A policy has the annotation istio.io/dry-run. At a waypoint it is matched and logged; to ztunnel istiod does not send it, " +
				"unless it is set to.",
			Harm: "It decides nothing; at pods nothing is logged either. A ztunnel older than 1.29 that is sent it enforces it.",
			Fix:  "Take the annotation away when the policy is to be enforced.",
			Find: findDryRuns,
		},
		{
			Code: "ISM244", Title: "a DENY takes away what an ALLOW is to give", Severities: onlyWarning(), Pains: []string{"B5", "B14", "B15"},
			Matter: "A caller that an ALLOW policy names is denied by a DENY policy at the same point, whatever it asks.",
			Harm:   "DENY comes first: the caller is refused.",
			Fix:    "Make an exception in the DENY, or take the caller from the ALLOW.",
			Find:   findConflicts,
		},
	}
}

// eachTargeting calls f for each policy with targetRefs.
func (w *World) eachTargeting(f func(Object, metav1.Object, []*typev1beta1.PolicyTargetReference)) {
	for _, p := range w.Policies {
		f(accessObject(p), p, targetRefsOf(&p.Spec))
	}
	for _, p := range w.RequestAuthentications {
		f(securityObject(kindRequestAuthentication, p), p, targetRefsOf(&p.Spec))
	}
}

// namespaceSeen says whether the labels of a namespace are known.
func (w *World) namespaceSeen(name string) bool {
	return !w.Paper || w.where[Object{"", "Namespace", objectKey("", name)}] != ""
}

func findUnenforced(w *World, found func(Finding)) {
	w.eachTargeting(func(o Object, p metav1.Object, refs []*typev1beta1.PolicyTargetReference) {
		for i, r := range refs {
			s := w.services[objectKey(p.GetNamespace(), r.GetName())]
			if r.GetKind() != policy.KindService || s == nil {
				continue
			}
			if _, _, ok := w.WaypointOf(s); ok || !w.namespaceSeen(p.GetNamespace()) {
				continue
			}
			name := w.onlyWaypoint(p.GetNamespace())
			f := Finding{
				Severity: w.ifWhole(), Object: o, Field: fmt.Sprintf("spec.targetRefs[%d]", i), Related: []Object{ServiceObject(s)},
				Message: fmt.Sprintf("this is for Service %s/%s, which leads to no waypoint: nobody enforces it", s.Namespace, s.Name),
				Fix:     fmt.Sprintf("lead the Service to a waypoint: label %s", plan.LabelUseWaypoint),
			}
			f.Patch = w.leadCommand(s, objectKey(s.Namespace, name))
			found(f)
		}
	})
}

// leadCommand leads a Service to a waypoint of its namespace; empty, where a label says otherwise already, the waypoint is not for Services, or pods may refuse it.
func (w *World) leadCommand(s *corev1.Service, waypoint types.NamespacedName) string {
	g := w.Gateway(waypoint)
	if _, set := s.Labels[plan.LabelUseWaypoint]; set || g == nil || waypoint.Namespace != s.Namespace || !w.IsWaypoint(g) {
		return ""
	}
	if is := w.waypointFor(g); is != "service" && is != "all" {
		return ""
	}
	points, _ := w.pointsOf(s)
	for _, p := range points {
		for _, port := range w.portPairs(s) {
			if p.Decide(port.request(policy.Of(w.waypointIDs(waypoint)...))).Verdict != policy.Allow {
				return ""
			}
		}
	}
	return labelCommand(ServiceObject(s), plan.LabelUseWaypoint, waypoint.Name)
}

// onlyWaypoint is the one waypoint of a namespace, or "".
func (w *World) onlyWaypoint(namespace string) string {
	var names []string
	for i := range w.Gateways {
		if g := &w.Gateways[i]; g.Namespace == namespace && w.IsWaypoint(g) {
			names = append(names, g.Name)
		}
	}
	if len(names) != 1 {
		return ""
	}
	return names[0]
}

func findWrongTargets(w *World, found func(Finding)) {
	w.eachTargeting(func(o Object, p metav1.Object, refs []*typev1beta1.PolicyTargetReference) {
		for i, r := range refs {
			if why, fix := w.wrongTarget(p.GetNamespace(), r); why != "" {
				found(Finding{
					Object: o, Field: fmt.Sprintf("spec.targetRefs[%d]", i), Message: "nobody enforces this: " + why, Fix: fix,
				})
			}
		}
	})
}

// wrongTarget says why nothing is enforced for what a policy names, or "".
func (w *World) wrongTarget(namespace string, r *typev1beta1.PolicyTargetReference) (why, fix string) {
	groups := map[string]string{policy.KindService: "", policy.KindServiceEntry: "networking.istio.io", policy.KindGateway: groupGateways,
		"GatewayClass": groupGateways}
	group, ok := groups[r.GetKind()]
	switch {
	case !ok:
		return fmt.Sprintf("policies are attached to Services, ServiceEntries, Gateways and GatewayClasses, and %s is none of these", r.GetKind()),
			"name the Service, or its waypoint"
	case r.GetGroup() != group && (group != "" || r.GetGroup() != "core"):
		return fmt.Sprintf("a %s is of group %q, and not of %q", r.GetKind(), group, r.GetGroup()), fmt.Sprintf("write group: %q", group)
	case r.GetNamespace() != "" && r.GetNamespace() != namespace:
		return fmt.Sprintf("a policy is attached to objects of its own namespace %s only, and this names one of %s", namespace, r.GetNamespace()),
			"have the policy in namespace " + r.GetNamespace()
	case r.GetKind() == "GatewayClass" && r.GetName() == policy.WaypointClass && namespace != w.Root():
		return fmt.Sprintf("policies for a GatewayClass are taken from the root namespace %s alone, and this is in %s", w.Root(), namespace),
			"move the policy to namespace " + w.Root() + ", or name the waypoint's Gateway"
	}
	return "", ""
}

func findDryRuns(w *World, found func(Finding)) {
	for _, p := range w.Policies {
		text, set := p.Annotations["istio.io/dry-run"]
		if !set {
			continue
		}
		f := Finding{Object: accessObject(p), Field: "metadata.annotations[istio.io/dry-run]", Severity: v1alpha1.SeverityWarning,
			Fix: "take the annotation away to have it enforced"}
		dry, err := strconv.ParseBool(text)
		atPods := len(targetRefsOf(&p.Spec)) == 0 && w.podUnder(p.Namespace, p.Spec.Selector) != nil
		switch {
		case err != nil:
			f.Message, f.Fix = fmt.Sprintf("%q is neither true nor false: the policy is enforced", text), `write "true" or take the annotation away`
		case !dry:
			continue
		case atPods:
			f.Message = fmt.Sprintf("this is only tried out, and ztunnel, which stands before %s, is not told of it: nothing is enforced, and nothing logged, "+
				"unless istiod sends dry-run policies and ztunnel is older than 1.29, which enforces them", w.selectorText(p.Namespace, p.Spec.Selector))
		default:
			f.Severity, f.Message = v1alpha1.SeverityInfo, "this is only tried out: what it matches is logged, and nothing is enforced"
		}
		found(f)
	}
}

func findConflicts(w *World, found func(Finding)) {
	for _, p := range w.Policies {
		if p.Spec.Action != actionAllow {
			continue
		}
		point := w.pointWith(p)
		if point == nil || !slices.ContainsFunc(point.Policies(), func(r policy.Ref) bool {
			o := w.guard().byRef[r]
			return o != nil && o.Spec.Action == actionDeny
		}) {
			continue
		}
		for _, l := range lists(p) {
			if l.not {
				continue
			}
			for _, id := range w.exactIDs(&l, p.Namespace) {
				d := point.Decide(&policy.Request{Source: policy.Of(id)})
				if d.Verdict != policy.Deny || d.Reason != policy.Denied {
					continue
				}
				changes := point.WhyNot(&policy.Request{Source: policy.Of(id)})
				by := Object{groupSecurity, d.Policy.Kind, objectKey(d.Policy.Namespace, d.Policy.Name)}
				text, patch := w.amend(changes, "principal "+principalText(id))
				found(Finding{
					Object: accessObject(p), Field: l.field, Related: []Object{by},
					Message: fmt.Sprintf("this allows %s, and rules[%d] of %s denies all that it sends: DENY comes first", principalText(id), d.Rule, by),
					Fix:     "take it from here, or " + text, Patch: patch,
				})
			}
		}
	}
}

// pointWith is a point that enforces a policy, or nil.
func (w *World) pointWith(p *securityv1.AuthorizationPolicy) *policy.Point {
	refs := targetRefsOf(&p.Spec)
	if len(refs) == 0 {
		if pod := w.podUnder(p.Namespace, p.Spec.Selector); pod != nil {
			return w.before(pod.Namespace, pod.Labels)
		}
		return nil
	}
	for _, r := range refs {
		key := objectKey(p.Namespace, r.GetName())
		switch r.GetKind() {
		case policy.KindService:
			if s := w.services[key]; s != nil {
				if waypoint, ok := w.leadsTo(s); ok {
					return w.behind(waypoint, key)
				}
			}
		case policy.KindGateway:
			if led := w.guard().led[key]; len(led) > 0 {
				return w.behind(key, objectKey(led[0].Namespace, led[0].Name))
			}
		}
	}
	return nil
}

// exactIDs are the identities that a field names, patterns left out.
func (w *World) exactIDs(l *listed, own string) []spiffeid.ID {
	var texts []string
	for _, v := range l.values {
		if strings.Contains(v, "*") {
			continue
		}
		switch l.plainName() {
		case "principals":
			texts = append(texts, "spiffe://"+v)
		case "serviceAccounts":
			ns, sa, ok := strings.Cut(v, "/")
			if !ok {
				ns, sa = own, v
			}
			texts = append(texts, "spiffe://"+w.trustDomain()+"/ns/"+ns+"/sa/"+sa)
		}
	}
	return idsOf(texts)
}
