package check

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

const (
	labelCanary          = "istio.io/use-waypoint-canary"
	labelCanaryNamespace = "istio.io/use-waypoint-canary-namespace"
	annotationCanary     = "istio.io/use-waypoint-canary-weight"
)

// mesh labels of Istio that are written by people.
func meshLabels() []string {
	return []string{
		plan.LabelUseWaypoint, plan.LabelUseWaypointNamespace, plan.LabelWaypointFor, plan.LabelDataplaneMode, edge.LabelIngressUseWaypoint,
		labelCanary, labelCanaryNamespace,
	}
}

func labelChecks() []Check {
	return []Check{
		{
			Code: "ISM115", Title: "a label has a value that is read in several ways", Severities: []v1alpha1.Severity{v1alpha1.SeverityError, v1alpha1.SeverityWarning},
			Pains:  []string{"A2", "EP05"},
			Matter: "istio.io/ingress-use-waypoint is neither true nor false, istio.io/use-waypoint is empty, or istio.io/waypoint-for is no kind of traffic.",
			Harm:   "Istio takes some forms for true, kgateway none but true; what cannot be read is false, and requests go past the waypoint.",
			Fix:    "Write true, false, the name of a waypoint, or service, workload, all.",
			Find:   (*World).labelValues,
		},
		{
			Code: "ISM116", Title: "a label of the mesh is misspelt, or an annotation", Severities: []v1alpha1.Severity{v1alpha1.SeverityWarning},
			Pains:  []string{"A3", "EP05"},
			Matter: "A label is nearly one of Istio's, or one of Istio's labels stands among annotations.",
			Harm:   "Nobody reads it: pods stay outside the mesh, or requests go past the waypoint, and nothing says so.",
			Fix:    "Write the label as Istio does.",
			Find:   (*World).misspelt,
		},
		{
			Code: "ISM117", Title: "a waypoint's namespace is named, and no waypoint", Severities: []v1alpha1.Severity{v1alpha1.SeverityWarning}, Pains: []string{"A3"},
			Matter: "Label istio.io/use-waypoint-namespace stands without istio.io/use-waypoint.",
			Harm:   "It does nothing by itself: requests go without a waypoint, or to that of the namespace.",
			Fix:    "Add istio.io/use-waypoint, or remove it.",
			Find:   (*World).danglingNamespace,
		},
		{
			Code: "ISM119", Title: "a Service and its namespace contradict each other on gateways", Severities: []v1alpha1.Severity{v1alpha1.SeverityWarning},
			Pains:  []string{"EP04"},
			Matter: "A namespace has istio.io/ingress-use-waypoint=true, a Service in it false, and kgateway sends to it.",
			Harm:   "Istio takes the Service's label, kgateway that of either: by one gateway requests pass the waypoint, by another not.",
			Fix:    "Remove the contradiction: label istio.io/use-waypoint=none keeps a Service from every waypoint.",
			Find:   (*World).contradictions,
		},
		{
			Code: "ISM129", Title: "a canary waypoint does not take part", Severities: []v1alpha1.Severity{v1alpha1.SeverityWarning}, Pains: []string{"A3", "A7"},
			Matter: "A canary waypoint is missing, the same as the first, without a first, or its weight is no number from 0 to 100.",
			Harm:   "Istio leaves it out: all requests go to the first waypoint, or to none.",
			Fix:    "Correct labels and weight.",
			Find:   (*World).canaries,
		},
	}
}

// thing is an object with labels that lead to waypoints.
type thing struct {
	Object

	labels, annotations map[string]string
}

// things are Services, ServiceEntries and namespaces.
func (w *World) things() []thing {
	list := make([]thing, 0, len(w.Services)+len(w.Namespaces)+len(w.ServiceEntries))
	for i := range w.Services {
		s := &w.Services[i]
		list = append(list, thing{ServiceObject(s), s.Labels, s.Annotations})
	}
	for i := range w.Namespaces {
		n := &w.Namespaces[i]
		list = append(list, thing{namespaceObject(n.Name), n.Labels, n.Annotations})
	}
	for _, o := range w.ServiceEntries {
		list = append(list, thing{Object{kindServiceEntry().Group, kindServiceEntry().Kind, keyOf(o)}, o.GetLabels(), o.GetAnnotations()})
	}
	return list
}

func labelField(key string) string { return "metadata.labels[" + key + "]" }

func (w *World) labelValues(found func(Finding)) {
	for _, t := range w.things() {
		if is, set := t.labels[edge.LabelIngressUseWaypoint]; set && is != "true" && is != "false" {
			f := Finding{Object: t.Object, Field: labelField(edge.LabelIngressUseWaypoint), Fix: "write true or false"}
			meant, err := strconv.ParseBool(is)
			switch {
			case err != nil:
				f.Message = fmt.Sprintf("%q is neither true nor false, and taken for false: gateways send to pods, past the waypoint", is)
			default:
				f.Severity = v1alpha1.SeverityWarning
				f.Message = fmt.Sprintf("Istio takes %q for %t, and kgateway takes nothing but \"true\" for true: gateways do not agree", is, meant)
				f.Patch = labelCommand(t.Object, edge.LabelIngressUseWaypoint, strconv.FormatBool(meant))
			}
			found(f)
		}
		if is, set := t.labels[plan.LabelUseWaypoint]; set && is == "" {
			found(Finding{
				Object: t.Object, Field: labelField(plan.LabelUseWaypoint), Severity: v1alpha1.SeverityWarning,
				Message: "this is empty: it names no waypoint, and hides that of the namespace. Requests go straight to pods",
				Fix:     "name a waypoint, or write none where none is meant",
			})
		}
	}
	for i := range w.Gateways {
		g := &w.Gateways[i]
		if is, set := g.Labels[plan.LabelWaypointFor]; set && !slices.Contains([]string{"service", "workload", "all", "none"}, is) {
			found(Finding{
				Object: gatewayObject(keyOf(g)), Field: labelField(plan.LabelWaypointFor), Severity: v1alpha1.SeverityError,
				Message: fmt.Sprintf("%q is no kind of traffic: nothing leads to this waypoint, and its policies are not "+
					"enforced", is), Fix: "write service, workload or all",
			})
		}
	}
}

func (w *World) misspelt(found func(Finding)) {
	one := func(t *thing, where string, has map[string]string, is string) {
		for _, key := range sortedKeys(has) {
			want := meant(key)
			if want == "" || key == want && where == "labels" {
				continue
			}
			f := Finding{Object: t.Object, Field: fmt.Sprintf("metadata.%s[%s]", where, key), Fix: "write it as label " + want}
			f.Message = fmt.Sprintf("nobody reads %s %s: Istio's label is %s", is, key, want)
			if key == want {
				f.Message = fmt.Sprintf("nobody reads annotation %s: it is a label", key)
			}
			switch {
			case t.Group == "apps":
				f.Field = fmt.Sprintf("spec.template.metadata.%s[%s]", where, key)
			case has[key] != "":
				f.Patch = labelCommand(t.Object, want, has[key])
				if f.Patch != "" && where == "labels" && plain(key) {
					f.Patch += " " + key + "-"
				}
			}
			found(f)
		}
	}
	list := w.things()
	for i := range w.Gateways {
		g := &w.Gateways[i]
		list = append(list, thing{gatewayObject(keyOf(g)), g.Labels, g.Annotations})
	}
	for i := range w.Pods { // those of a workload have the labels of its template
		if p := &w.Pods[i]; len(p.OwnerReferences) == 0 && (!w.Paper || w.where[podObject(p)] != "") {
			list = append(list, thing{podObject(p), p.Labels, nil})
		}
	}
	for i := range w.Deployments {
		d := &w.Deployments[i]
		list = append(list, thing{Object{"apps", "Deployment", keyOf(d)}, d.Spec.Template.Labels, nil})
	}
	for i := range w.DaemonSets {
		d := &w.DaemonSets[i]
		list = append(list, thing{Object{"apps", "DaemonSet", keyOf(d)}, d.Spec.Template.Labels, nil})
	}
	for i := range list {
		one(&list[i], "labels", list[i].labels, "label")
		one(&list[i], "annotations", list[i].annotations, "annotation")
	}
}

// meant is the label of Istio's that a key is, or was meant to be, or "".
func meant(key string) string {
	prefix, name, ok := strings.Cut(key, "/")
	if !ok || !strings.HasSuffix(prefix, "istio.io") {
		return ""
	}
	for _, want := range meshLabels() {
		if key == want {
			return want
		}
	}
	plain := strings.NewReplacer("-", "", "_", "", ".", "")
	for _, want := range meshLabels() {
		_, is, _ := strings.Cut(want, "/")
		if strings.EqualFold(plain.Replace(name), plain.Replace(is)) || distance(name, is) == 1 {
			return want
		}
	}
	return ""
}

// distance is how many letters have to be put in, taken out or changed to make b of a; 2 stands for more than one.
func distance(a, b string) int {
	if len(a) > len(b) {
		a, b = b, a
	}
	if len(b)-len(a) > 1 {
		return 2
	}
	i := 0
	for i < len(a) && a[i] == b[i] {
		i++
	}
	switch {
	case a == b:
		return 0
	case len(a) == len(b) && a[i+1:] == b[i+1:], len(a) < len(b) && a[i:] == b[i+1:]:
		return 1
	}
	return 2
}

func (w *World) danglingNamespace(found func(Finding)) {
	for _, t := range w.things() {
		if is := t.labels[plan.LabelUseWaypointNamespace]; is != "" {
			if _, set := t.labels[plan.LabelUseWaypoint]; !set {
				found(Finding{
					Object: t.Object, Field: labelField(plan.LabelUseWaypointNamespace),
					Message: fmt.Sprintf("this names namespace %s, and no label %s says which waypoint of it: it does nothing", is, plan.LabelUseWaypoint),
					Fix:     "add label " + plan.LabelUseWaypoint + " with the waypoint's name, or remove this one",
				})
			}
		}
	}
}

func (w *World) contradictions(found func(Finding)) {
	for _, l := range w.index().leads {
		if l.service == nil || w.namespaceLabels(l.object.Namespace)[edge.LabelIngressUseWaypoint] != "true" {
			continue
		}
		own, set := l.service.Labels[edge.LabelIngressUseWaypoint]
		if off, err := strconv.ParseBool(own); !set || off && err == nil {
			continue
		}
		for _, s := range w.index().senders[l.object.NamespacedName] {
			if s.view.Vendor.Name == "kgateway" {
				found(Finding{
					Object: l.object, Field: labelField(edge.LabelIngressUseWaypoint), Related: []Object{namespaceObject(l.object.Namespace), viewObject(s.view)},
					Message: fmt.Sprintf("this is %q, and that of the namespace \"true\": %s passes the waypoint all the same, and Istio's gateways go past it", own, s.view),
					Fix:     fmt.Sprintf("remove one of the two; to keep the Service from its waypoint, label it %s=none", plan.LabelUseWaypoint),
				})
			}
		}
	}
}

func (w *World) canaries(found func(Finding)) {
	for _, t := range w.things() {
		name, set := t.labels[labelCanary]
		if !set || name == "" || name == waypointNone {
			continue
		}
		own := t.Namespace
		if t.Kind == "Namespace" {
			own = t.Name
		}
		in := func(label string) string {
			if is := t.labels[label]; is != "" {
				return is
			}
			return own
		}
		key := types.NamespacedName{Namespace: in(labelCanaryNamespace), Name: name}
		f := Finding{Object: t.Object, Field: labelField(labelCanary)}
		first := t.labels[plan.LabelUseWaypoint]
		weight, weighs := t.annotations[annotationCanary]
		n, err := strconv.Atoi(weight)
		switch {
		case first == "" || first == waypointNone:
			f.Message, f.Fix = "a canary takes a share of what the first waypoint has, and this names none: it does nothing", "add label "+plan.LabelUseWaypoint
		case first == name && in(plan.LabelUseWaypointNamespace) == key.Namespace:
			f.Message, f.Fix = "the canary is the waypoint itself: it does nothing", "name another waypoint, or remove the label"
		case weighs && (err != nil || n < 0 || n > 100):
			f.Field = "metadata.annotations[" + annotationCanary + "]"
			f.Message, f.Fix = fmt.Sprintf("%q is no number from 0 to 100: the canary gets nothing", weight), "write a number of per cent"
		case !w.Paper && w.Gateway(key) == nil && w.Knows(gatewayObject(key).kind()):
			f.Message, f.Fix = fmt.Sprintf("%s does not exist: all requests go to the first waypoint", gatewayObject(key)), "create it, or correct the label"
		default:
			continue
		}
		found(f)
	}
}
