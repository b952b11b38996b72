package check

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// switchOf is the switch of a gateway that is set where people would set it first, or nil.
func switchOf(v *plan.View) *edge.Switch {
	var last *edge.Switch
	for i := range v.Vendor.Switches {
		s := &v.Vendor.Switches[i]
		if s.For != edge.ForAll && (s.For == edge.ForRoutes) != (v.Kind == "Gateway") {
			continue
		}
		if last = s; s.Writable() && s.On != edge.OnParameters {
			return s
		}
	}
	return last
}

// switchOn says how a gateway's switch is set for a Service.
func (w *World) switchOn(v *plan.View, l *lead) (field, fix, patch string) {
	for i := range v.Findings {
		if f := &v.Findings[i]; f.Code == v1alpha1.FindingSwitchIdle && f.Severity == v1alpha1.SeverityError {
			return f.Field, "mend " + f.Object + ": " + f.Fix + "; and see that " + switchName(v) + " is set", ""
		}
	}
	s := switchOf(v)
	if s == nil {
		return "", "put a gateway before this Service that can send to its address, or admit at its pods what the waypoint's policies admit", ""
	}
	fix = "set " + s.String()
	switch s.On {
	case edge.OnService:
		field = s.Field()
		if s.Path[1] == "labels" {
			return field, fix, labelCommand(l.object, s.Path[2], fmt.Sprint(s.Value))
		}
		return field, fix, annotateCommand(l.object, s.Path[2], fmt.Sprint(s.Value))
	case edge.OnIngress:
		fix += " in the Ingresses that name this Service: " + some(routesOf(v, l.object.NamespacedName))
	case edge.OnGateway:
		patch = carrying(s, v.Key, v.Key.Name)
	case edge.OnServiceByRef:
		patch = carrying(s, l.object.NamespacedName, l.object.Name)
	case edge.OnParameters:
		fix += " in the parameters of " + v.String()
	case edge.OnList:
		fix += " for this Service, where it is named"
	}
	if patch != "" {
		namespace, name := v.Key.Namespace, v.Key.Name
		if s.On == edge.OnServiceByRef {
			namespace, name = l.object.Namespace, l.object.Name
		}
		group, _, _ := strings.Cut(s.Kind.APIVersion(), "/")
		if is := w.already(schema.GroupKind{Group: group, Kind: s.Kind.Kind}, namespace, s.Target[1], name); is != "" {
			patch, fix = "", fix+" in "+is+", which is there already: of two for one object one counts"
		}
	}
	if s.Unreleased {
		patch, fix = "", fix+", which "+v.Vendor.Name+" has from "+s.Since+" on"
	}
	return "", fix, patch
}

func switchName(v *plan.View) string {
	if s := switchOf(v); s != nil {
		return s.String()
	}
	return "its switch"
}

// carrying is a policy that has a switch and nothing else.
func carrying(s *edge.Switch, at types.NamespacedName, target string) string {
	group := s.Target[0]
	return fmt.Sprintf("apiVersion: %s\nkind: %s\nmetadata: {namespace: %s, name: %s-waypoints}\nspec:\n  targetRefs: [{group: %q, kind: %s, name: "+
		"%s}]\n  %s: %v\n",
		s.Kind.APIVersion(), s.Kind.Kind, at.Namespace, at.Name, group, s.Target[1], target, s.Path[len(s.Path)-1], s.Value)
}

// enrolment says how the pods of a gateway are brought into the mesh, and those of nobody else.
func (w *World) enrolment(v *plan.View) (field, fix, patch string) {
	const label = plan.LabelDataplaneMode + ": " + modeAmbient
	more := ""
	if w.refusesClients(v) {
		more = "; annotate them " + plan.AnnotationBypassInbound + `: "true" too, as policies before them refuse their clients otherwise`
	}
	switch {
	case v.Vendor.Never != "":
		return "", "put a gateway before these Services that can be captured: " + v.Vendor.Never, ""
	case slices.ContainsFunc(v.Pods, func(p *plan.Pod) bool { return p.Spec.HostNetwork }):
		return "", "run it without hostNetwork, which is never captured, and label its pods " + label + more, ""
	case v.Object != nil && v.Vendor.Infrastructure:
		return "spec.infrastructure.labels[" + plan.LabelDataplaneMode + "]", "label its pods by spec.infrastructure, which starts them anew" + more,
			w.enrolCommand(v)
	case v.Kind != "Gateway":
		return "spec.template.metadata.labels[" + plan.LabelDataplaneMode + "]", "label its pod template " + label + ", which starts its pods anew" + more,
			w.enrolCommand(v)
	}
	return "", "label the pod template of its workload " + label + more, ""
}

// refusesClients says whether policies before a gateway's pods may refuse callers without identity, its clients, as soon as the pods are captured.
func (w *World) refusesClients(v *plan.View) bool {
	pods := v.Pods
	if len(pods) == 0 {
		p := &plan.Pod{}
		p.Namespace, p.Labels = v.Key.Namespace, map[string]string{labelGatewayName: v.Key.Name}
		pods = []*plan.Pod{p}
	}
	return slices.ContainsFunc(pods, func(p *plan.Pod) bool {
		return p.Annotations[plan.AnnotationBypassInbound] != "true" && w.pointBefore(p).Decide(new(nobody())).Verdict != policy.Allow
	})
}

// enrolCommand brings in a gateway's pods by its Gateway, or by their template, and leaves alone what comes in where policies would refuse it.
func (w *World) enrolCommand(v *plan.View) string {
	labels := map[string]any{"labels": map[string]string{plan.LabelDataplaneMode: modeAmbient}}
	if w.refusesClients(v) {
		labels["annotations"] = map[string]string{plan.AnnotationBypassInbound: "true"}
	}
	kind, how, spec := "gateways.gateway.networking.k8s.io", " --type=merge", map[string]any{"infrastructure": labels}
	if v.Kind != "Gateway" {
		kind, how, spec = strings.ToLower(v.Kind), "", map[string]any{"template": map[string]any{"metadata": labels}}
	}
	body, err := json.Marshal(map[string]any{"spec": spec})
	if err != nil {
		return ""
	}
	return fmt.Sprintf("kubectl patch -n %s %s %s%s -p '%s'", v.Key.Namespace, kind, v.Key.Name, how, body)
}

// already is a policy of a kind that targets an object, or "". Of two for one object a vendor takes one, and not both.
func (w *World) already(kind schema.GroupKind, namespace, target, name string) string {
	for _, o := range w.Others(kind, namespace) {
		refs, _, _ := unstructured.NestedSlice(o.Object, "spec", "targetRefs")
		if one, ok, _ := unstructured.NestedMap(o.Object, "spec", "targetRef"); ok {
			refs = append(refs, one)
		}
		for _, r := range refs {
			if ref, ok := r.(map[string]any); ok && ref["kind"] == target && ref["name"] == name {
				return o.GetKind() + " " + o.GetNamespace() + "/" + o.GetName()
			}
		}
	}
	return ""
}
