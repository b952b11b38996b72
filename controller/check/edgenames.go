package check

import (
	"fmt"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

func edgeNameChecks() []Check {
	return []Check{{
		Code: "ISM132", Title: "an AmbientEdge names what is not there",
		Severities: []v1alpha1.Severity{v1alpha1.SeverityError, v1alpha1.SeverityWarning, v1alpha1.SeverityInfo},
		Matter: "The Gateway, workload, Service, namespace or waypoint that an AmbientEdge names does not exist, or the class of its Gateway; or spec.takeOver names a field that no " +
			"gateway's switch has, which is a Warning. Of files alone what is missing is Info, and only where they have others of its kind and namespace.",
		Harm: "The controller does nothing for what is named, or nothing at all: the gateway goes on as before, past waypoints.",
		Fix:  "Create it, or correct the name.",
		Find: (*World).edgeNames,
	}}
}

// edgeNames finds what AmbientEdges name and is not there, as their plans say it.
func (w *World) edgeNames(found func(Finding)) {
	if len(w.Edges) == 0 {
		return
	}
	plans := plan.Planned(w.Snapshot, w.Views())
	for i := range w.Edges {
		e := &w.Edges[i]
		if e.DeletionTimestamp != nil {
			continue // the controller says what undo lacks
		}
		at := Object{v1alpha1.GroupVersion().Group, "AmbientEdge", keyOf(e)}
		for _, f := range plans[i] {
			field, missing := w.namedBy(e, &f), objectOf(f.Object)
			if field == "" || w.Paper && !w.filesTell(&f, missing) {
				continue
			}
			is := Finding{Severity: f.Severity, Object: at, Field: field, Message: f.Message, Fix: f.Fix}
			if !strings.Contains(is.Message, f.Object) {
				is.Message = f.Object + ": " + is.Message
			}
			if w.Paper && f.Field != waypointForField() {
				is.Severity = v1alpha1.SeverityInfo
				is.Message = strings.Replace(is.Message, "does not exist", "is not in the files: it may be in the cluster", 1)
			}
			if w.has(missing) {
				is.Related = []Object{missing}
			}
			found(is)
		}
		for j, field := range e.Spec.TakeOver {
			if !slices.Contains(switchFields(), field) {
				found(Finding{
					Severity: v1alpha1.SeverityWarning, Object: at, Field: fmt.Sprintf("spec.takeOver[%d]", j),
					Message: fmt.Sprintf("%q is no field of any gateway's switch: nothing is taken over by it", field),
					Fix:     "write the field as ISM303 names it, as in metadata.labels[istio.io/ingress-use-waypoint], or take it away",
				})
			}
		}
	}
}

// namedBy is the field of an AmbientEdge by which a finding of its plan came about, or "": it is about something else.
func (w *World) namedBy(e *v1alpha1.AmbientEdge, f *v1alpha1.Finding) string {
	o := objectOf(f.Object)
	switch f.Code {
	case v1alpha1.FindingNoTarget, v1alpha1.FindingNoClass:
		if f.Code == v1alpha1.FindingNoTarget && f.Field != "spec" {
			return ""
		}
		if i := slices.IndexFunc(e.Spec.TargetRefs, func(r v1alpha1.TargetRef) bool { return o.Kind == "Gateway" && r.Name == o.Name }); i >= 0 {
			return fmt.Sprintf("spec.targetRefs[%d].name", i)
		}
		if i := slices.Index(e.Spec.WorkloadRefs, v1alpha1.WorkloadRef{Kind: o.Kind, Name: o.Name}); i >= 0 {
			return fmt.Sprintf("spec.workloadRefs[%d].name", i)
		}
	case v1alpha1.FindingNoBackend:
		if e.Spec.Backends == nil {
			return "" // a route names it
		}
		if i := slices.Index(e.Spec.Backends.Services, v1alpha1.ServiceRef{Namespace: o.Namespace, Name: o.Name}); i >= 0 {
			if w.namespaces[o.Namespace] == nil {
				return fmt.Sprintf("spec.backends.services[%d].namespace", i)
			}
			return fmt.Sprintf("spec.backends.services[%d].name", i)
		}
	case v1alpha1.FindingNoWaypoint:
		switch {
		case o.Kind == "Service":
			return "spec.waypoint" // there is none to use
		case e.Spec.Waypoint != nil && e.Spec.Waypoint.Name == o.Name:
			return "spec.waypoint.name"
		}
	}
	return ""
}

func waypointForField() string { return "metadata.labels[" + plan.LabelWaypointFor + "]" }

// filesTell says whether files that lack an object are worth telling of it: they have others of its kind in its namespace, so that it may be meant to be among
// them. What classes and labels a cluster has they never tell.
func (w *World) filesTell(f *v1alpha1.Finding, missing Object) bool {
	switch {
	case f.Code == v1alpha1.FindingNoClass:
		return false
	case f.Field == waypointForField():
		return true
	case missing.Kind == "Service" && f.Code == v1alpha1.FindingNoWaypoint:
		return !w.supposed[missing.Namespace]
	case missing.Kind == "Service":
		return len(w.servicesOf[missing.Namespace]) > 0
	case missing.Kind == "Gateway":
		for key := range w.gateways {
			if key.Namespace == missing.Namespace {
				return true
			}
		}
		return false
	}
	for i := range w.Deployments {
		if w.Deployments[i].Namespace == missing.Namespace {
			return true
		}
	}
	for i := range w.DaemonSets {
		if w.DaemonSets[i].Namespace == missing.Namespace {
			return true
		}
	}
	return false
}

// has says whether a Service or Gateway is there.
func (w *World) has(o Object) bool {
	switch o.Kind {
	case "Service":
		return w.services[o.NamespacedName] != nil
	case "Gateway":
		return w.gateways[o.NamespacedName] != nil
	}
	return false
}

// switchFields are the fields by which gateways of any kind are told to send to Services' addresses, where somebody but their owner may write them.
func switchFields() (list []string) {
	for _, v := range edge.Vendors() {
		for i := range v.Switches {
			if s := &v.Switches[i]; s.Writable() {
				list = append(list, edge.Field(s.Path))
			}
		}
	}
	return list
}
