package plan

import (
	"slices"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// queue tells Services that lead to one waypoint, and are of one namespace: the first goes all the way before the others begin.
type queue struct{ waypoint, namespace string }

func queueOf(s *Step) queue { return queue{s.waypoint, namespaceOf(s.Object)} }

// ahead are the first Services of each queue that nothing holds back.
func (p *Plan) ahead() map[queue]string {
	first := map[queue]string{}
	for i := range p.Steps {
		s := &p.Steps[i]
		if s.Verb != VerbWire || s.waypoint == "" {
			continue
		}
		if list, _ := p.causes(s); len(list) == 0 && first[queueOf(s)] == "" {
			first[queueOf(s)] = s.Object
		}
	}
	return first
}

// waits says whether a step has to wait for one of those before it. Only what is not done of the parts that it needs counts, and of that what it depends
// on: no backend waits for another's.
func (p *Plan) waits(s *Step, before []Step, first map[queue]string) bool {
	if s.wide && s.part == partWire && !p.followed() {
		return true
	}
	for i := range before {
		x := &before[i]
		if x.State != v1alpha1.StepDone && slices.Contains(s.needs, x.part) && after(s, x, first) {
			return true
		}
	}
	return false
}

// after says whether a step comes after another, which is not done.
func after(s, x *Step, first map[queue]string) bool {
	switch {
	case x.part == partEnrol:
		return true
	case takesBack(s.part):
		return takenAfter(s, x)
	case s.part == partWaypoint:
		return x.Object == s.Object
	case s.wide: // see followed
		return false
	case x.wide, overlap(s.of, x.of):
		return true
	}
	return s.part == partWire && x.part == partWire && s.waypoint != "" && x.State != v1alpha1.StepHeld && slices.Contains(x.of, first[queueOf(s)])
}

// followed says whether Services are so far that a gateway's own switch may come, which is one for all of them: one is wired at least, and each that leads
// to a waypoint, by whose label ever, is served there, and not held back: its waypoint may refuse the gateway. That would send the requests of others there as well. A Service that leads to none is
// reached by its address as it is by its pods', and nobody waits for it.
func (p *Plan) followed() bool {
	one := false
	for i := range p.Steps {
		switch s := &p.Steps[i]; {
		case s.part != partWire || s.wide:
		case s.Verb == VerbWire && s.State == v1alpha1.StepNext:
			return false
		case s.Verb == VerbConfirm && s.leads != "" && len(p.holds.by[s.Object]) > 0:
			return false
		case s.Verb == VerbConfirm && s.State == v1alpha1.StepDone:
			one = true
		case s.Verb == VerbConfirm && s.leads != "":
			return false
		}
	}
	return one
}

// takenAfter says whether what a step takes back goes after another step, which is not done: one of the same namespace, or one of a Service that leads to
// the waypoint that would go. For what stays waits only what is of the same Service, or its waypoint. What belongs to the gateways goes last, and does
// not wait for what stays, but for a Service that leads to its waypoint.
func takenAfter(s, x *Step) bool {
	stays := x.State == v1alpha1.StepHeld || x.State == v1alpha1.StepBlocked
	near := slices.ContainsFunc(spaces(s), func(ns string) bool { return slices.Contains(spaces(x), ns) })
	switch {
	case s.wide && x.Verb == VerbUnwire, s.wide && x.part == partUnlock:
		return true // a gateway that leaves while a Service leads to its waypoint goes past it
	case s.wide, x.wide:
		return !stays
	case x.leads != "" && x.leads == s.Object:
		return true
	case stays && (s.Verb != VerbDelete || x.Verb != VerbUnwire): // others of its namespace are not concerned, but for its waypoint
		return overlap(s.of, x.of)
	}
	return near
}

// spaces are the namespaces that a step is about.
func spaces(s *Step) []string {
	if len(s.of) == 0 {
		return []string{namespaceOf(s.Object)}
	}
	var list []string
	for _, o := range s.of {
		list = append(list, namespaceOf(o))
	}
	return list
}

func overlap(a, b []string) bool {
	return slices.ContainsFunc(a, func(o string) bool { return slices.Contains(b, o) })
}
