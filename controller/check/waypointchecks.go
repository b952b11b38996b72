package check

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// Causes for which a Service does not lead to its waypoint, or nobody answers there; each is a check.
const (
	causeMissing   = "ISM102"
	causeNoAddress = "ISM111"
	causeNoPods    = "ISM112"
	causeUnbound   = "ISM113"
	causeRefused   = "ISM114"
)

const past = "ztunnel and gateways send straight to pods, and no policy, route or limit of the waypoint is enforced"

func waypointChecks() []Check {
	return []Check{
		{
			Code: causeMissing, Title: "the waypoint is not there, or is not for Services",
			Severities: []v1alpha1.Severity{v1alpha1.SeverityError, v1alpha1.SeverityInfo},
			Pains:      []string{"A3", "A7", "A13"},
			Matter:     "A label leads Services to a waypoint that does not exist, is a Gateway of another kind, or is for workloads alone.",
			Harm:       "Istio leaves the waypoint out: requests go straight to pods, and its policies are not enforced. Nothing fails visibly.",
			Fix:        "Create the waypoint, correct label istio.io/use-waypoint or istio.io/use-waypoint-namespace, or set istio.io/waypoint-for.",
			Find:       byCause(causeMissing),
		},
		{
			Code: causeNoAddress, Title: "the waypoint has no address", Severities: []v1alpha1.Severity{v1alpha1.SeverityError}, Pains: []string{"A3"},
			Matter: "Services lead to a waypoint whose Gateway has no address in its status: its Deployment has never been ready.",
			Harm:   "Istio leaves the waypoint out until it has one: requests go straight to pods, and its policies are not enforced.",
			Fix:    "See the conditions of the Gateway and the pods of the waypoint, and label Services only when it is Programmed.",
			Find:   byCause(causeNoAddress),
		},
		{
			Code: causeNoPods, Title: "the waypoint has no pod that is ready", Severities: []v1alpha1.Severity{v1alpha1.SeverityError}, Pains: []string{"A3", "EP11"},
			Matter: "Services lead to a waypoint of which no pod is ready.",
			Harm:   "ztunnel refuses connections to these Services; agentgateway goes straight to their pods, past every policy.",
			Fix:    "Have the waypoint run, with two replicas or more.",
			Find:   byCause(causeNoPods),
		},
		{
			Code: causeUnbound, Title: "Istio has not bound a Service to its waypoint", Severities: []v1alpha1.Severity{v1alpha1.SeverityError},
			Pains:  []string{"A3", "A4"},
			Matter: "A Service names a waypoint, and its condition istio.io/WaypointBound is not True, for a reason that no other check tells.",
			Harm:   "Requests go straight to pods, and the waypoint's policies are not enforced.",
			Fix:    "Mend what the condition says.",
			Find:   byCause(causeUnbound),
		},
		{
			Code: causeRefused, Title: "the waypoint does not admit the namespace", Severities: []v1alpha1.Severity{v1alpha1.SeverityError}, Pains: []string{"A3"},
			Matter: "Services lead to a waypoint of another namespace, and allowedRoutes of its listener do not admit theirs: by default only its own.",
			Harm:   "Istio leaves the waypoint out: requests go straight to pods, and its policies are not enforced.",
			Fix:    "Let allowedRoutes.namespaces of the waypoint's HBONE listener admit the namespace.",
			Find:   byCause(causeRefused),
		},
	}
}

// byCause finds the leads that have one cause, once for each label and waypoint.
func byCause(cause string) func(*World, func(Finding)) {
	return func(w *World, found func(Finding)) {
		type key struct {
			by       Object
			waypoint types.NamespacedName
			why      string
		}
		findings, led, order := map[key]Finding{}, map[key][]string{}, []key{}
		for _, b := range w.index().broken.of(w.findBroken) {
			if b.cause != cause {
				continue
			}
			k := key{b.by, b.waypoint, b.why}
			if _, ok := findings[k]; !ok {
				findings[k], order = b.finding, append(order, k)
			}
			led[k] = append(led[k], b.object.String())
		}
		for _, k := range order {
			f := findings[k]
			slices.Sort(led[k])
			f.Message = fmt.Sprintf("%s. Labelled to lead there: %s", f.Message, some(led[k]))
			found(f)
		}
	}
}

// broken is a lead that does not do, and why.
type broken struct {
	*lead

	cause, why string
	finding    Finding
}

// findBroken are all leads that do not do.
func (w *World) findBroken() []broken {
	var list []broken
	leads := w.index().leads
	for i := range leads {
		if cause, why, f := w.brokenLead(&leads[i]); cause != "" {
			list = append(list, broken{&leads[i], cause, why, f})
		}
	}
	return list
}

// brokenLead says why a Service does not lead to its waypoint, or nobody answers there: a cause, or "".
func (w *World) brokenLead(l *lead) (cause, why string, f Finding) {
	g := w.Gateway(l.waypoint)
	field := "metadata.labels[" + plan.LabelUseWaypoint + "]"
	name := gatewayObject(l.waypoint).String()
	f = Finding{Object: l.by, Field: field, Related: []Object{gatewayObject(l.waypoint)}}
	switch {
	case g == nil:
		f.Message = fmt.Sprintf("this leads to %s, which does not exist: %s", name, past)
		f.Fix = "create that waypoint, or correct the label"
		if !w.Knows(gatewayObject(l.waypoint).kind()) {
			f.Severity = v1alpha1.SeverityInfo
			f.Message = fmt.Sprintf("this leads to %s, which is not in the files: where the cluster has none either, %s", name, past)
		}
		if other := w.sameName(l.waypoint); other != "" && l.waypoint.Namespace == l.object.Namespace {
			f.Fix = fmt.Sprintf("create that waypoint, or, if that of the same name in namespace %s is meant, name that too, by label %s", other,
				plan.LabelUseWaypointNamespace)
		}
		return causeMissing, "missing", f
	case !w.takesHBONE(g):
		f.Message = fmt.Sprintf("this leads to %s, which is of class %s and no waypoint: nothing there takes what the mesh sends on port "+
			"15008", name, g.Spec.GatewayClassName)
		f.Fix = "name a Gateway of class " + plan.WaypointClass
		return causeMissing, "class", f
	}
	if is := w.waypointFor(g); is == "workload" || is == waypointNone {
		f.Object, f.Field, f.Related = gatewayObject(l.waypoint), "metadata.labels["+plan.LabelWaypointFor+"]", []Object{l.by}
		f.Message = fmt.Sprintf("this waypoint is for %q and takes nothing that is sent to Services: %s", is, past)
		f.Fix = "set the label to service or all"
		if is == "workload" {
			f.Patch = labelCommand(f.Object, plan.LabelWaypointFor, "all") // workloads may count on it
		}
		return causeMissing, "for", f
	}
	if listener, admits := w.admitsService(g, l.object.Namespace); !admits {
		f.Object, f.Field, f.Related = gatewayObject(l.waypoint), listener+".allowedRoutes", []Object{l.by}
		f.Message = fmt.Sprintf("this waypoint does not admit namespace %s, whose Services are labelled to lead to it: %s", l.object.Namespace, past)
		f.Fix = fmt.Sprintf("let the listener admit it: allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {kubernetes.io/metadata.name: "+
			"%s}}}}", l.object.Namespace)
		return causeRefused, l.object.Namespace, f
	}
	if w.Paper {
		return "", "", f
	}
	return w.brokenNow(l, g)
}

// brokenNow is brokenLead, as far as statuses tell.
func (w *World) brokenNow(l *lead, g *gatewayv1.Gateway) (cause, why string, f Finding) {
	at := gatewayObject(l.waypoint)
	if len(g.Status.Addresses) == 0 {
		f = Finding{Object: at, Field: "status.addresses", Related: []Object{l.by}, Fix: "see its conditions, and its pods: kubectl describe " +
			"gateway -n " + at.Namespace + " " + at.Name}
		f.Message = "this waypoint has no address" + notProgrammed(g) + ": " + past
		return causeNoAddress, "", f
	}
	pods, ready := w.Selected(at.Namespace, map[string]string{labelGatewayName: at.Name}), 0
	for _, p := range pods {
		if isReady(p) {
			ready++
		}
	}
	if ready == 0 && w.Knows(podKind()) && w.isWaypoint(g) && len(g.Spec.Addresses) == 0 { // one with addresses is run by somebody else
		f = Finding{Object: at, Field: "status", Related: []Object{l.by}, Fix: "have its Deployment run: kubectl get " +
			"pods -n " + at.Namespace + " -l " + labelGatewayName + "=" + at.Name}
		f.Message = fmt.Sprintf("none of the pods of this waypoint (%d) is ready: who calls through ztunnel is refused, and some gateways go straight to "+
			"pods", len(pods))
		return causeNoPods, "", f
	}
	conditions := conditionsOf(w, l)
	if c := meta.FindStatusCondition(conditions, plan.ConditionWaypointBound); c != nil && c.Status != metav1.ConditionTrue {
		f = Finding{Object: l.object, Field: "status.conditions", Related: []Object{at}, Fix: "mend what istiod says; where nothing is wrong, look at istiod's log"}
		f.Message = fmt.Sprintf("istiod has not bound this to waypoint %s (%s: %s): %s", l.waypoint, c.Reason, c.Message, past)
		return causeUnbound, "", f
	}
	return "", "", f
}

func conditionsOf(w *World, l *lead) []metav1.Condition {
	if l.service != nil {
		return l.service.Status.Conditions
	}
	var list []metav1.Condition
	o := w.Other(kindServiceEntry(), l.object.Namespace, l.object.Name)
	if o == nil {
		return nil
	}
	all, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	for _, x := range all {
		if c, ok := x.(map[string]any); ok {
			list = append(list, metav1.Condition{
				Type: text(c, "type"), Status: metav1.ConditionStatus(text(c, "status")), Reason: text(c, "reason"), Message: text(c, "message"),
			})
		}
	}
	return list
}

func text(tree map[string]any, key string) string {
	s, _ := tree[key].(string)
	return s
}

func notProgrammed(g *gatewayv1.Gateway) string {
	c := meta.FindStatusCondition(g.Status.Conditions, string(gatewayv1.GatewayConditionProgrammed))
	if c == nil || c.Status == metav1.ConditionTrue || c.Message == "" {
		return ""
	}
	return " (" + c.Reason + ": " + c.Message + ")"
}

// takesHBONE says whether a Gateway may be a waypoint: by its class, by a listener, or by what it says of its inbound connections. One of an unknown class may.
func (w *World) takesHBONE(g *gatewayv1.Gateway) bool {
	const binding = "ambient.istio.io/waypoint-inbound-binding"
	c := w.classes[string(g.Spec.GatewayClassName)]
	return c == nil || w.isWaypoint(g) || g.Annotations[binding] != "" || c.Annotations[binding] != "" ||
		slices.ContainsFunc(g.Spec.Listeners, func(l gatewayv1.Listener) bool { return l.Protocol == "HBONE" || l.Port == 15008 })
}

// waypointFor is what a waypoint takes.
func (w *World) waypointFor(g *gatewayv1.Gateway) string {
	byClass := ""
	if c := w.classes[string(g.Spec.GatewayClassName)]; c != nil {
		byClass = c.Labels[plan.LabelWaypointFor]
	}
	if is, set := g.Labels[plan.LabelWaypointFor]; set {
		return is
	}
	return cmp.Or(byClass, "service")
}

// admitsService says whether a waypoint takes Services of a namespace, as its HBONE listener has it. What labels a namespace has is not always known.
func (w *World) admitsService(g *gatewayv1.Gateway, namespace string) (listener string, admits bool) {
	for i := range g.Spec.Listeners {
		l := &g.Spec.Listeners[i]
		if l.Protocol != "HBONE" || l.Port != 15008 {
			continue
		}
		listener = fmt.Sprintf("spec.listeners[%d]", i)
		if l.AllowedRoutes == nil || l.AllowedRoutes.Namespaces == nil || l.AllowedRoutes.Namespaces.From == nil {
			break
		}
		switch *l.AllowedRoutes.Namespaces.From {
		case gatewayv1.NamespacesFromAll:
			return listener, true
		case gatewayv1.NamespacesFromSelector:
			selector, err := metav1.LabelSelectorAsSelector(l.AllowedRoutes.Namespaces.Selector)
			return listener, err == nil && (selector.Matches(labels.Set(w.labelsOf(namespace))) || w.supposed[namespace])
		}
		return listener, g.Namespace == namespace
	}
	if listener == "" && g.Annotations["ambient.istio.io/waypoint-inbound-binding"] != "" {
		return "", true
	}
	return cmp.Or(listener, "spec.listeners"), g.Namespace == namespace
}

// labelsOf are the labels of a namespace, with that which all have.
func (w *World) labelsOf(namespace string) map[string]string {
	all := map[string]string{"kubernetes.io/metadata.name": namespace}
	for k, v := range w.namespaceLabels(namespace) {
		all[k] = v
	}
	return all
}

// sameName is the namespace of the one waypoint elsewhere that has a name, or "".
func (w *World) sameName(key types.NamespacedName) string {
	var list []string
	for i := range w.Gateways {
		if g := &w.Gateways[i]; g.Name == key.Name && g.Namespace != key.Namespace && w.isWaypoint(g) {
			list = append(list, g.Namespace)
		}
	}
	if len(list) != 1 {
		return ""
	}
	return list[0]
}

// some names a few of many.
func some(names []string) string {
	const most = 4
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most-1], ", "), len(names)-most+1)
}
