package plan

import (
	"cmp"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// cause tells one finding from another.
type cause struct{ code, object, field string }

func causeOf(f *v1alpha1.Finding) cause { return cause{f.Code, f.Object, f.Field} }

func (c cause) String() string { return c.code + " " + c.object }

// holdings are what errors hold back. An error that is about one backend, or about one waypoint, holds its steps and what depends on them; the others go
// on. One that is about a gateway, or about the edge itself, stops all.
type holdings struct {
	// apart are the errors that hold back some steps only. What is false, or not there, stops all.
	apart map[cause]bool
	// by is what holds an object back, as steps and findings name it: a Service, or what is to be taken back.
	by map[string][]cause
	// counted are the backends that count: those whose namespaces do not consent are left out, as nobody waits for them.
	counted []string
	// waiting are backends that others have to do something for: their namespaces do not consent, or their waypoints do not answer.
	waiting map[string]cause
	// begun: something was written for the edge.
	begun bool
}

// add notes what a finding holds back: the steps of these objects. An error without any stops all, whatever it holds back beside.
func (h *holdings) add(f *v1alpha1.Finding, objects ...string) {
	if f.Severity != v1alpha1.SeverityError {
		return
	}
	if h.apart == nil {
		h.apart = map[cause]bool{}
	}
	c := causeOf(f)
	is, known := h.apart[c]
	h.apart[c] = len(objects) > 0 && (is || !known)
	for _, o := range objects {
		h.also(o, c)
	}
}

// also holds an object back for an error that is found elsewhere.
func (h *holdings) also(o string, c cause) {
	if h.by == nil {
		h.by = map[string][]cause{}
	}
	if !slices.Contains(h.by[o], c) {
		h.by[o] = append(h.by[o], c)
	}
}

// wait notes what Services wait for, though it is no error.
func (h *holdings) wait(c cause, services ...string) {
	if h.waiting == nil {
		h.waiting = map[string]cause{}
	}
	for _, o := range services {
		h.waiting[o] = c
	}
}

// each calls do with the objects that an error holds back.
func (h *holdings) each(c cause, do func(object string)) {
	for o, list := range h.by {
		if slices.Contains(list, c) {
			do(o)
		}
	}
}

// all says whether every backend that counts is held back: nobody would gain by what is left.
func (h *holdings) all() bool {
	return len(h.counted) > 0 && !slices.ContainsFunc(h.counted, func(o string) bool { return len(h.by[o]) == 0 })
}

// of are the causes of a Service that is held back, or that waits for others to do something.
func (h *holdings) of(service string) []string {
	var list []string
	for _, c := range h.by[service] {
		list = append(list, c.String())
	}
	if c, is := h.waiting[service]; is && len(list) == 0 {
		list = append(list, c.String())
	}
	return list
}

// about has what is found meanwhile hold back objects only, as steps name them.
func (m *maker) about(objects []string, do func()) {
	before := m.whom
	m.whom = objects
	do()
	m.whom = before
}

// wantedAt are the Services that are to lead to a waypoint.
func (m *maker) wantedAt(waypoint string) []string {
	var list []string
	for _, b := range m.backends {
		if b.wanted && object("Gateway", b.waypoint) == waypoint {
			list = append(list, b.String())
		}
	}
	return list
}

// held says whether errors hold a backend back.
func (m *maker) held(service string) bool { return len(m.plan.holds.by[service]) > 0 }

// takesBack says whether a step of a part takes back.
func takesBack(p part) bool {
	return p == partUnlock || p == partUnswitch || p == partUnpair || p == partRelease
}

// causes are what holds a step back; why is set where it is not an error about it. A waypoint is made, and looked at, while a Service of it is free.
func (p *Plan) causes(s *Step) (list []cause, why string) {
	h := &p.holds
	if s.part == partWaypoint || s.part == partWitness {
		if len(s.of) == 0 || slices.ContainsFunc(s.of, func(o string) bool { return len(h.by[o]) == 0 }) {
			return nil, ""
		}
		return h.by[s.of[0]], ""
	}
	if s.wide && !takesBack(s.part) && !h.begun && h.all() {
		return nil, "every backend is held back"
	}
	if s.watched || s.revokes {
		return nil, "" // a route is not a Service's
	}
	of := s.of
	if s.part == partUnlock {
		of = of[:1] // others are of the same pods
	}
	for _, o := range of {
		if len(h.by[o]) > 0 {
			return h.by[o], ""
		}
	}
	if takesBack(s.part) {
		return h.by[s.Object], ""
	}
	return nil, ""
}

// concerned are the objects that are held back where a write is refused. None: it is one of the edge itself.
func (p *Plan) concerned(w *Write) []string {
	if w == nil {
		return nil
	}
	switch s := find(p.Steps, func(s *Step) bool { return s.Write == w || s.later == w || s.own.write == w }); {
	case s == nil:
		return nil
	case takesBack(s.part):
		return []string{s.Object}
	case s.part == partLock, s.part == partPair && len(s.of) > 0:
		return s.of[:1] // others are of the same pods
	default:
		return s.of
	}
}

// Apart says whether a write is about some backends, or takes one thing back, so that the others go on where it is refused.
func (p *Plan) Apart(w *Write) bool { return len(p.concerned(w)) > 0 }

// Alone says whether there is nothing else for the edge to go on with where a write is refused.
func (p *Plan) Alone(w *Write) bool {
	objects := p.concerned(w)
	return !slices.ContainsFunc(p.holds.counted, func(o string) bool { return !slices.Contains(objects, o) && len(p.holds.by[o]) == 0 })
}

// Says says whether a finding is in the plan.
func (p *Plan) Says(f v1alpha1.Finding) bool { return slices.Contains(p.Findings, f) }

// Holds says whether an error holds a Service back, which is named as in a status.
func (p *Plan) Holds(service string) bool { return len(p.holds.by["Service "+service]) > 0 }

// HeldBack says whether an error holds back some steps only.
func (p *Plan) HeldBack(f v1alpha1.Finding) bool { return p.holds.apart[causeOf(&f)] }

// Hold adds a finding that came up while a write of the plan was tried or made, and holds back what depends on that: the steps of its Services, or the one
// step that takes something back. For a write of the edge itself it is Stop.
func (p *Plan) Hold(w *Write, f v1alpha1.Finding) {
	objects := p.concerned(w)
	if len(objects) == 0 {
		p.Stop(f)
		return
	}
	p.holds.add(&f, objects...)
	if !p.Says(f) {
		p.Findings = slices.Insert(p.Findings, 0, f)
	}
	p.sortFindings()
	p.settle()
	p.stop()
}

// own is a step as it was planned, before it waits for others or is held back.
type own struct {
	state  v1alpha1.StepState
	reason string
	write  *Write
}

// settle gives each step its turn: what an error holds back is Held, and what waits for steps before it is Later. It may be called again when more is
// held back.
func (p *Plan) settle() {
	if !p.settled {
		p.settled = true
		for i := range p.Steps {
			s := &p.Steps[i]
			s.own = own{s.State, s.Reason, s.Write}
		}
	}
	first := p.ahead()
	for i := range p.Steps {
		s := &p.Steps[i]
		s.State, s.Reason, s.Write, s.later = s.own.state, s.own.reason, s.own.write, nil
		if s.State == v1alpha1.StepDone {
			continue
		}
		if list, why := p.causes(s); len(list) > 0 || why != "" {
			s.hold(v1alpha1.StepHeld)
			by := cmp.Or(why, codes(list)) + ": "
			s.Reason = strings.TrimSuffix(by+strings.TrimPrefix(s.Reason, by), ": ")
			continue
		}
		if s.State == v1alpha1.StepNext && p.waits(s, p.Steps[:i], first) {
			s.State, s.Write, s.later = v1alpha1.StepLater, nil, s.Write
		}
	}
	for i := range p.Backends {
		b := &p.Backends[i]
		b.Held, _ = limited(p.holds.of("Service "+b.Service), v1alpha1.MaxHeld)
	}
}

// codes are those of causes, each once.
func codes(list []cause) string {
	var all []string
	for _, c := range list {
		if !slices.Contains(all, c.code) {
			all = append(all, c.code)
		}
	}
	return strings.Join(all, ", ")
}
