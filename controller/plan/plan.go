package plan

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// Plan is what is to be done, and what was found on the way.
type Plan struct {
	Steps    []Step
	Findings []v1alpha1.Finding
	Gateways []v1alpha1.GatewayStatus
	Backends []v1alpha1.BackendStatus
	// Undoing: the AmbientEdge is being deleted, and the steps lead back.
	Undoing bool
	// Digest changes with the steps, whatever their state.
	Digest string
	// Whole: all that is to be taken back has its step. Otherwise what was written and is not wanted may have none, as that is not known for sure.
	Whole bool

	observer bool // nobody carries it out, whatever the mode
	mayRoll  []rolling
	holds    holdings
	settled  bool // see settle
	// leaves: pods admit a waypoint beside the one that their Service is to lead to; see Unpairs.
	leaves bool
}

// Step is a step of the plan.
type Step struct {
	v1alpha1.Step
	// Write is what is to be written now. Nil: nothing, or not yet.
	Write *Write
	part  part
	// needs are the parts whose steps before this one come first, as far as it depends on them: see after.
	needs []part
	// of are the Services that it is for, as findings name them. None: it is for a gateway, or for what is taken back.
	of []string
	// wide: it is for the gateways, and so for all Services.
	wide bool
	// waypoint is that of a Service's steps of wiring, leads the one that it leads to already by its label; as findings name them.
	waypoint, leads string
	// revokes: a Service leads to its waypoint, and what its pods stop to allow ends there by this. Nothing holds it back, and no error stops it.
	revokes bool
	// less is what revokes of a write that also allows more: that is written where an error holds the step back. Nil: nothing of it does, or all.
	less *Write
	// watched: a watch tells when it is done, so that nobody has to look again soon.
	watched bool
	own     own
	// later is what is to be written, as far as it is known, when the steps before are done.
	later *Write
	// wants gives what the step is for, done or not: see Effects. Nil: nothing is written for it, or it is not known.
	wants func() *Write
}

// concerns says whether a step is for a backend, be it for all of them.
func (s *Step) concerns(b *backend) bool { return s.wide || slices.Contains(s.of, b.String()) }

// Verbs of steps.
const (
	VerbEnrol    = "Enrol"   // set what brings pods into the mesh
	VerbRoll     = "Roll"    // start pods anew, one by one
	VerbVerify   = "Verify"  // see that pods are captured, or are not
	VerbCreate   = "Create"  // make a waypoint
	VerbAsk      = "Ask"     // see that a waypoint answers to which Services lead by themselves, and a gateway will follow
	VerbAwait    = "Await"   // see that a waypoint answers, that what it was made of is gone, or that a route counts
	VerbPair     = "Pair"    // have a waypoint answer callers as a Service's pods do, and these admit it
	VerbWitness  = "Witness" // see by requests that a waypoint enforces what was written for it
	VerbWire     = "Wire"    // let a Service lead to its waypoint
	VerbSwitch   = "Switch"  // set the gateway's own switch
	VerbConfirm  = "Confirm" // see that istiod has bound a Service to its waypoint
	VerbLock     = "Lock"    // keep the gateway from the pods but by their waypoint
	VerbNarrow   = "Narrow"  // have a waypoint let in of the gateway what its routes call, and no more
	VerbUnlock   = "Unlock"  // let it reach them again
	VerbUnswitch = "Unswitch"
	VerbUnwire   = "Unwire"
	VerbUnpair   = "Unpair" // take that away
	VerbDelete   = "Delete"
	VerbUnenrol  = "Unenrol"
	VerbRelease  = "Release" // leave what was written as it is, without our marks
)

// part is what a step belongs to: conditions are made of parts.
type part int

const (
	partEnrol part = iota
	partWaypoint
	partPair
	partWitness
	partWire
	partLock
	partUnlock
	partUnswitch
	partUnpair
	partRelease
	partRefused // nothing waits for these
)

// Write is a change to one object.
type Write struct {
	APIVersion, Kind string
	Key              types.NamespacedName
	// UID is that of the object which the plan is about. Empty: it is to be created.
	UID types.UID
	// Delete the object, which has our owner label. Otherwise Fields are applied by server-side apply: all that is ours of it, from
	// the root of the object. Fields that were ours and are not there are taken away.
	Delete bool
	Fields map[string]any
	// Force takes Fields from their managers, and takes away those that are nil: the object was made for the edge.
	Force bool `json:",omitempty"`
	// TakeOver are the paths of those of Fields that are taken from their managers, as spec.takeOver says. No other is.
	TakeOver [][]string `json:",omitempty"`
	// Release leaves the object as it is, and takes our marks from it; there are no Fields.
	Release bool `json:",omitempty"`
	// Restore gives Fields back their former values, and keeps none of them.
	Restore bool `json:",omitempty"`
}

func (w *Write) String() string { return object(w.Kind, w.Key) }

// object names an object for people: Kind namespace/name.
func object(kind string, key types.NamespacedName) string {
	if key.Namespace == "" {
		return kind + " " + key.Name
	}
	return kind + " " + key.String()
}

// maker puts a plan together.
type maker struct {
	*Snapshot
	plan     Plan
	gateways []*gateway
	backends []*backend
	missing  []types.NamespacedName        // backends that are not there
	frozen   map[types.NamespacedName]bool // Services that are held back: what was done for them stays as it is
	whom     []string                      // what is found holds back: see about
	doubts   []doubt
	counted  int // routes and Ingresses
	// unsure: a route may yet count, so that what is wanted is not known for sure.
	unsure   bool
	lack     map[string]*lack // by namespace
	policies *policies        // see index
	pairings []*pairing       // see pair
	// pairingBy are pairings by their Services.
	pairingBy map[types.NamespacedName]*pairing
	known     known
	witnesses map[types.NamespacedName]bool // those that stay
	passes    *passage                      // see passing
	inbound   *inbound                      // see gate
	sighted   *sightings                    // see strangers
	// allRoutes, allFollowed and veiled are of routes, follow and veil.
	allRoutes   []*route
	allFollowed []*followed
	veiled      map[string][]string
	// concealing is concealed, by namespace.
	concealing map[string]bool
}

// Make decides. It does not change the snapshot.
func Make(s *Snapshot) *Plan {
	m := &maker{Snapshot: s, witnesses: map[types.NamespacedName]bool{}}
	m.plan.observer = s.ObserveOnly
	if s.Edge.DeletionTimestamp != nil {
		m.plan.Undoing = true
		m.plan.Whole = true
		m.undo()
		m.hiddenFromUndo()
		m.reportUndo()
	} else {
		m.findGateways()
		m.findBackends()
		m.conflicts()
		m.enrol()
		m.waypoints()
		m.hiddenKinds()
		m.reaches()
		m.pair()
		m.pins()
		m.wire()
		m.authorize()
		m.unpaired()
		m.awaitRoutes()
		m.earlier()
		m.lock()
		m.scopeSteps()
		m.withdrawn()
		m.release()
		m.unled()
		m.report()
		m.conceal()
	}
	m.onlyObserved()
	m.finish()
	return &m.plan
}

// add appends a step, which needs those before it of some parts, as far as it depends on them.
func (m *maker) add(s Step, needs ...part) {
	s.State, s.needs = cmp.Or(s.State, v1alpha1.StepNext), needs
	s.ID = stepID(s.Verb, s.Object)
	m.plan.Steps = append(m.plan.Steps, s)
}

// stepID names a step within its edge.
func stepID(verb, object string) string { return verb + " " + object }

// found adds a finding. An error holds back what it is about. What policies do that stand, and that holds nothing back, is not told where nobody asks for it.
func (m *maker) found(f v1alpha1.Finding) {
	if m.Edge.Untold(&f) {
		return
	}
	m.plan.holds.add(&f, m.whom...)
	m.plan.Findings = append(m.plan.Findings, f)
}

// Blocked says whether an error among the findings stops all writing: one that is about a gateway or the edge itself, or those of all backends together.
func (p *Plan) Blocked() bool {
	return p.stops() || p.holds.all() && len(p.Writes()) == 0
}

// stops says whether one error stops all.
func (p *Plan) stops() bool {
	return slices.ContainsFunc(p.Findings, func(f v1alpha1.Finding) bool {
		return f.Severity == v1alpha1.SeverityError && !p.holds.apart[causeOf(&f)]
	})
}

// Wrong says whether there is an error among the findings, whatever it holds back.
func (p *Plan) Wrong() bool { return p.firstError().Code != "" }

// Writes are what is to be written now, in order.
func (p *Plan) Writes() []*Write {
	var list []*Write
	for i := range p.Steps {
		if w := p.Steps[i].Write; w != nil {
			list = append(list, w)
		}
	}
	return list
}

// Ahead are the writes of all steps that are left, in order: those of now, and those that wait for them as far as they are known.
func (p *Plan) Ahead() []*Write {
	var list []*Write
	for i := range p.Steps {
		if w := cmp.Or(p.Steps[i].Write, p.Steps[i].later); w != nil {
			list = append(list, w)
		}
	}
	return list
}

// Wanted are the writes of all steps that are left, whatever holds them back.
func (p *Plan) Wanted() []*Write {
	var list []*Write
	for i := range p.Steps {
		if w := p.Steps[i].own.write; w != nil {
			list = append(list, w)
		}
	}
	return list
}

// Stop adds a finding that came up while the plan was carried out; an error stops all writing.
func (p *Plan) Stop(f v1alpha1.Finding) {
	p.holds.add(&f)
	p.Findings = slices.Insert(p.Findings, 0, f)
	p.stop()
}

// stop takes the writes away, where an error forbids them.
func (p *Plan) stop() {
	if !p.stops() {
		return
	}
	for i := range p.Steps {
		if s := &p.Steps[i]; s.Write != nil && !s.revokes {
			s.hold(v1alpha1.StepBlocked)
		}
	}
}

// hold takes the write of a step away, but for what revokes of it.
func (s *Step) hold(state v1alpha1.StepState) {
	if s.Write = s.less; s.Write == nil {
		s.State = state
	}
}

// Done says whether no step is left.
func (p *Plan) Done() bool {
	return !slices.ContainsFunc(p.Steps, func(s Step) bool { return s.State != v1alpha1.StepDone })
}

// Pending says whether a step is under way: something is to be written, or to be seen. What is Blocked or Held, or Later because of that, is not, nor is
// what others have to say: it waits for somebody to act, which watches tell of.
func (p *Plan) Pending() bool {
	return slices.ContainsFunc(p.Steps, func(s Step) bool { return s.State == v1alpha1.StepNext && !s.watched })
}

// left is the first step of the parts that is not done.
func (p *Plan) left(parts ...part) *Step {
	for i := range p.Steps {
		if s := &p.Steps[i]; s.State != v1alpha1.StepDone && slices.Contains(parts, s.part) {
			return s
		}
	}
	return nil
}

// finish gives each step its turn, holds what was not approved, orders the findings, stops what an error forbids, and computes the digest. What is held
// back is not written, and needs no approval yet.
func (m *maker) finish() {
	h := sha256.New()
	for i := range m.plan.Steps {
		fmt.Fprintln(h, m.plan.Steps[i].ID)
	}
	m.count()
	m.plan.settle()
	m.approved()
	m.plan.sortFindings()
	m.plan.stop()
	m.plan.Digest = fmt.Sprintf("%x", h.Sum(nil)[:6])
}

// count notes the backends that count, and whether anything was written.
func (m *maker) count() {
	h := &m.plan.holds
	h.begun = slices.Contains(m.Edge.Finalizers, v1alpha1.Finalizer)
	for _, b := range m.backends {
		if b.refused {
			h.wait(cause{code: v1alpha1.FindingNoConsent, object: "Namespace " + b.key.Namespace}, b.String())
			continue
		}
		h.counted = append(h.counted, b.String())
	}
	for _, key := range m.missing {
		h.counted = append(h.counted, object("Service", key))
	}
}

func (p *Plan) sortFindings() {
	severity := func(f v1alpha1.Finding) int {
		return slices.Index([]v1alpha1.Severity{v1alpha1.SeverityError, v1alpha1.SeverityWarning, v1alpha1.SeverityInfo}, f.Severity)
	}
	slices.SortStableFunc(p.Findings, func(a, b v1alpha1.Finding) int {
		return cmp.Or(cmp.Compare(severity(a), severity(b)), cmp.Compare(a.Code, b.Code), cmp.Compare(a.Object, b.Object))
	})
}
