package plan

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
)

// policy adds the step that sets a switch by a policy for an object of a namespace: by the one that is there for it, else by one of ours. of are the
// Services that it is for; none: all.
func (m *maker) policy(g *gateway, s *edge.Switch, namespace, name string, of []string) {
	key := types.NamespacedName{Namespace: namespace, Name: "isthmus-" + name}
	want := setting{s.Path, s.Value}
	var there *unstructured.Unstructured
	for _, o := range m.objects(s.Kind) {
		if o.GetNamespace() == namespace && (keyOf(o) == key || targeted(o, s.Target[1], name)) {
			there = o
			break
		}
	}
	if there == nil {
		step := Step{Step: v1alpha1.Step{Verb: VerbSwitch, Object: object(s.Kind.Kind, key), State: v1alpha1.StepNext, Reason: "make it: " + switchHow}}
		if m.ask(namespace, s.Kind.Group, s.Kind.Kind, "create "+s.Kind.Kind+" "+key.Name) {
			step.Write = m.newPolicy(s, key, name)
		} else {
			step.State, step.Reason = v1alpha1.StepBlocked, "no consent"
		}
		m.addSwitch(step, of)
		return
	}
	c := carrier{s.Kind.APIVersion(), s.Kind.Kind, there}
	if there.GetDeletionTimestamp() != nil {
		m.addSwitch(Step{Step: v1alpha1.Step{Verb: VerbSwitch, Object: c.String(), State: v1alpha1.StepNext, Reason: "it is being deleted, and made anew when it is gone"}}, of)
		return
	}
	step := Step{Step: v1alpha1.Step{Verb: VerbSwitch, Object: c.String(), State: v1alpha1.StepDone, Reason: "made for this edge"}}
	if is, _ := value(there, s.Path); !m.made(there) || fmt.Sprint(is) != want.String() {
		step = m.put(c, VerbSwitch, switchHow, []setting{want}, nil)
	} else {
		step.wants = func() *Write { return m.newPolicy(s, key, name) }
	}
	if step.State == v1alpha1.StepDone {
		m.accepted(&step, g, there)
	}
	m.addSwitch(step, of)
}

func (m *maker) newPolicy(s *edge.Switch, key types.NamespacedName, name string) *Write {
	return &Write{APIVersion: s.Kind.APIVersion(), Kind: s.Kind.Kind, Key: key, Fields: policyFields(s, name, m.Edge.Owner())}
}

// policyFields is a policy of ours.
func policyFields(s *edge.Switch, name, owner string) map[string]any {
	fields := map[string]any{"metadata": map[string]any{"labels": map[string]any{v1alpha1.LabelOwner: owner}}}
	nest(fields, []string{"spec", "targetRefs"}, []any{map[string]any{"group": s.Target[0], "kind": s.Target[1], "name": name}})
	nest(fields, s.Path, s.Value)
	return fields
}

// targetRefs are those of a policy, of the older form too.
func targetRefs(o *unstructured.Unstructured) []map[string]any {
	return append(items(o.Object, []string{"spec", "targetRefs"}), items(o.Object, []string{"spec", "targetRef"})...)
}

// targeted says whether a policy is for a whole object of its namespace.
func targeted(o *unstructured.Unstructured, kind, name string) bool {
	for _, ref := range targetRefs(o) {
		if ref["kind"] == kind && ref["name"] == name && ref["sectionName"] == nil {
			return true
		}
	}
	return false
}

// accepted waits until the gateway's controller has accepted a policy. That proves little, but that it has not is a fact.
func (m *maker) accepted(s *Step, g *gateway, o *unstructured.Unstructured) {
	s.State, s.Reason = v1alpha1.StepNext, fmt.Sprintf("%s has not said yet whether it accepts it", g.vendor.Name)
	for _, c := range items(o.Object, []string{"status", "ancestors", "conditions"}) {
		generation, _ := c["observedGeneration"].(int64)
		if c["type"] != "Accepted" || generation < o.GetGeneration() {
			continue
		}
		if c["status"] == "True" {
			s.State, s.Reason = v1alpha1.StepDone, fmt.Sprintf("%s has accepted it; what its proxies do is seen in %s", g.vendor.Name, g.vendor.Inspect)
			return
		}
		s.Reason = fmt.Sprintf("%s does not accept it: %v", g.vendor.Name, c["message"])
		m.found(v1alpha1.Finding{
			Code: v1alpha1.FindingRejected, Severity: v1alpha1.SeverityWarning, Object: s.Object, Field: "status.ancestors",
			Message: fmt.Sprintf("%s; %s goes on sending to pods, past waypoints", s.Reason, g), Fix: "see the policy's conditions",
		})
	}
}

// overridden finds policies of others that win over a switch: those for a listener, a route or one of its rules.
func (m *maker) overridden(g *gateway, s *edge.Switch) {
	for i := range g.vendor.Switches {
		alt := &g.vendor.Switches[i]
		if alt.On != edge.OnGateway {
			continue
		}
		for _, o := range m.objects(alt.Kind) {
			is, set := value(o, alt.Path)
			if !set || fmt.Sprint(is) == fmt.Sprint(alt.Value) || !m.narrower(g, o, s.On == edge.OnParameters) {
				continue
			}
			f := v1alpha1.Finding{
				Code: v1alpha1.FindingOverridden, Severity: v1alpha1.SeverityError, Object: object(o.GetKind(), keyOf(o)), Field: edge.Field(alt.Path),
				Message: fmt.Sprintf("this is %q for a part of what %s serves, and wins there: those requests go to pods, past waypoints", fmt.Sprint(is), g),
				Fix:     fmt.Sprintf("remove the field, or set it to %q", fmt.Sprint(alt.Value)),
			}
			services, whole := m.routed(g, o)
			of := m.backendsOf(services)
			if !whole && len(of) == 0 {
				f.Severity = v1alpha1.SeverityWarning // whoever may add a route is not to stop what is done for the rest
			}
			m.about(of, func() { m.found(f) })
		}
	}
}

// routed are the Services of the routes that a policy is for; whole: it is for the Gateway too, for one of its listeners or for a ListenerSet, and so for all.
func (m *maker) routed(g *gateway, o *unstructured.Unstructured) (services []types.NamespacedName, whole bool) {
	for _, ref := range targetRefs(o) {
		if ref["kind"] == "Gateway" && o.GetNamespace() == g.key.Namespace && ref["name"] == g.key.Name {
			return nil, true
		}
		is := func(kind string, key types.NamespacedName) bool {
			return kind == ref["kind"] && key.Namespace == o.GetNamespace() && key.Name == ref["name"]
		}
		if slices.ContainsFunc(m.parents(g), func(p parent) bool { return is(p.kind, p.key) }) {
			return nil, true
		}
		for _, f := range m.follow() {
			if f.gateway == g && is(f.kind, f.key) {
				services = append(services, f.reach...)
			}
		}
	}
	return services, false
}

// narrower says whether a policy is for a part of a Gateway, or, with whole, for the Gateway itself too.
func (m *maker) narrower(g *gateway, o *unstructured.Unstructured, whole bool) bool {
	for _, ref := range targetRefs(o) {
		name, _ := ref["name"].(string)
		switch ref["kind"] {
		case "Gateway":
			if o.GetNamespace() == g.key.Namespace && name == g.key.Name && (whole || ref["sectionName"] != nil) {
				return true
			}
		default: // a ListenerSet, or a route
			is := func(kind string, key types.NamespacedName) bool {
				return kind == ref["kind"] && key.Namespace == o.GetNamespace() && key.Name == name
			}
			if slices.ContainsFunc(m.parents(g), func(p parent) bool { return is(p.kind, p.key) }) ||
				slices.ContainsFunc(m.follow(), func(f *followed) bool { return f.gateway == g && is(f.kind, f.key) }) {
				return true
			}
		}
	}
	return false
}
