package check

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
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
func enrolment(v *plan.View) (field, fix, patch string) {
	const label = plan.LabelDataplaneMode + ": " + modeAmbient
	switch {
	case v.Vendor.Never != "":
		return "", "put a gateway before these Services that can be captured: " + v.Vendor.Never, ""
	case slices.ContainsFunc(v.Pods, func(p *corev1.Pod) bool { return p.Spec.HostNetwork }):
		return "", "run it without hostNetwork, which is never captured, and label its pods " + label, ""
	case v.Object != nil && v.Vendor.Infrastructure:
		return "spec.infrastructure.labels[" + plan.LabelDataplaneMode + "]", "label its pods by spec.infrastructure, which starts them anew",
			infrastructureCommand(viewObject(v), plan.LabelDataplaneMode, modeAmbient)
	case v.Kind != "Gateway":
		return "spec.template.metadata.labels[" + plan.LabelDataplaneMode + "]", "label its pod template " + label + ", which starts its pods anew",
			templateCommand(viewObject(v), "labels", plan.LabelDataplaneMode, modeAmbient)
	}
	return "", "label the pod template of its workload " + label, ""
}
