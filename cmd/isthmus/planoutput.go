package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// planDocument is the output of isthmus plan.
type planDocument struct {
	header
	Namespace string                   `json:"namespace"`
	Name      string                   `json:"name"`
	Mode      v1alpha1.Mode            `json:"mode"`
	Undoing   bool                     `json:"undoing,omitempty"`   // it is being deleted: the steps lead back
	Blocked   bool                     `json:"blocked"`             // findings of severity Error stop all writing
	BlockedBy []string                 `json:"blockedBy,omitempty"` // those findings, but for an approval of before: that is given anew
	Held      []string                 `json:"held,omitempty"`      // Services that findings hold back, while others go on
	Done      bool                     `json:"done"`                // no step is left, and none is unknown
	Unknown   int                      `json:"unknown,omitempty"`   // steps that cannot be seen from here
	Digest    string                   `json:"digest"`
	Gateways  []v1alpha1.GatewayStatus `json:"gateways"`
	Backends  []v1alpha1.BackendStatus `json:"backends"`
	Findings  []v1alpha1.Finding       `json:"findings"`
	Steps     []planStep               `json:"steps"`
	Notes     []string                 `json:"notes,omitempty"` // what was not looked at, or is assumed
	FromFiles bool                     `json:"fromFiles,omitempty"`

	// What isthmus apply needs. Edge is the AmbientEdge that the plan is for, Changes are what is left to be written and what it finds there, Effects what
	// is approved: what is written in the end, done or not. Approval is the digest of Effects, and of Edge as it is applied.
	Edge     planEdge      `json:"edge"`
	Changes  []planChange  `json:"changes"`
	Effects  []plan.Effect `json:"effects"`
	Approval string        `json:"approval"`

	snapshot *plan.Snapshot // that it was made of
}

// planEdge is the AmbientEdge of a plan. Generation 0: it is not in the cluster.
type planEdge struct {
	UID         types.UID                `json:"uid,omitempty"`
	Generation  int64                    `json:"generation,omitempty"`
	Labels      map[string]string        `json:"labels,omitempty"`
	Annotations map[string]string        `json:"annotations,omitempty"`
	Spec        v1alpha1.AmbientEdgeSpec `json:"spec"`
}

// planChange is what all steps together do to an object.
type planChange struct {
	Deed       plan.Deed    `json:"deed"`
	APIVersion string       `json:"apiVersion"`
	Kind       string       `json:"kind"`
	Namespace  string       `json:"namespace,omitempty"`
	Name       string       `json:"name"`
	UID        types.UID    `json:"uid,omitempty"`
	Steps      []string     `json:"steps"`
	Fields     []planFields `json:"fields,omitempty"`
}

// planFields is a field before and after. Nil: it is not set.
type planFields struct {
	Field  string `json:"field"`
	Before any    `json:"before,omitempty"`
	After  any    `json:"after,omitempty"`

	path []string
}

func (c *planChange) key() types.NamespacedName {
	return types.NamespacedName{Namespace: c.Namespace, Name: c.Name}
}

// String names the object.
func (c *planChange) String() string {
	if c.Namespace == "" {
		return c.Kind + " " + c.Name
	}
	return c.Kind + " " + c.Namespace + "/" + c.Name
}

// planStep is a step, and what it writes now.
type planStep struct {
	v1alpha1.Step
	Write *planWrite `json:"write,omitempty"`
}

// bare are the steps without their writes.
func (d *planDocument) bare() (list []v1alpha1.Step) {
	for i := range d.Steps {
		list = append(list, d.Steps[i].Step)
	}
	return list
}

// planWrite is a change to one object: the fields that would be applied, or its deletion.
type planWrite struct {
	APIVersion string         `json:"apiVersion"`
	Kind       string         `json:"kind"`
	Namespace  string         `json:"namespace,omitempty"`
	Name       string         `json:"name"`
	Delete     bool           `json:"delete,omitempty"`
	Release    bool           `json:"release,omitempty"`
	Fields     map[string]any `json:"fields,omitempty"`
}

// newPlanDocument plans for e.
func newPlanDocument(e *v1alpha1.AmbientEdge, s *plan.Snapshot, notes []string) *planDocument {
	s.Edges = append(slices.DeleteFunc(s.Edges, func(o v1alpha1.AmbientEdge) bool { return o.Namespace == e.Namespace && o.Name == e.Name }), *e)
	s.Hearsay = true
	p := plan.Make(s)
	d := &planDocument{
		header: newHeader("Plan"), Namespace: e.Namespace, Name: e.Name, Mode: cmp.Or(e.Spec.Mode, v1alpha1.ModeObserve),
		Undoing: p.Undoing, Blocked: p.Blocked(), Done: p.Done() && !p.Wrong(), Digest: p.Digest, Notes: notes,
		Gateways: orEmpty(p.Gateways), Backends: orEmpty(p.Backends), Findings: orEmpty(p.Findings), Steps: []planStep{},
	}
	for _, b := range p.Backends {
		if len(b.Held) > 0 {
			d.Held = append(d.Held, b.Service)
		}
	}
	for i := range p.Steps {
		step := planStep{Step: p.Steps[i].Step}
		if w := p.Steps[i].Write; w != nil {
			step.Write = &planWrite{APIVersion: w.APIVersion, Kind: w.Kind, Namespace: w.Key.Namespace, Name: w.Key.Name, Delete: w.Delete, Release: w.Release, Fields: w.Fields}
		}
		if step.State == v1alpha1.StepUnknown {
			d.Unknown++
		}
		d.Steps = append(d.Steps, step)
	}
	d.approvable(e, s, p)
	if d.FromFiles = s.Paper; s.Paper {
		for i := range d.Backends {
			d.Backends[i].Path = "" // it is what was seen
		}
	}
	return d
}

// approvable adds what isthmus apply needs. What a former approval holds back is a part of it: it is to be approved anew.
func (d *planDocument) approvable(e *v1alpha1.AmbientEdge, s *plan.Snapshot, p *plan.Plan) {
	if _, is := e.Annotations[v1alpha1.AnnotationPlan]; is {
		free := *s
		free.Edge = e.DeepCopy()
		delete(free.Edge.Annotations, v1alpha1.AnnotationPlan)
		s, p = &free, plan.Make(&free)
	}
	d.Edge = planEdge{UID: e.UID, Generation: e.Generation, Labels: e.Labels, Spec: e.Spec}
	for key, v := range e.Annotations {
		if key == v1alpha1.AnnotationPlan || key == corev1.LastAppliedConfigAnnotation {
			continue
		}
		if d.Edge.Annotations == nil {
			d.Edge.Annotations = map[string]string{}
		}
		d.Edge.Annotations[key] = v
	}
	d.Changes = []planChange{}
	for _, c := range p.Changes(s) {
		pc := planChange{Deed: c.Deed, APIVersion: c.APIVersion, Kind: c.Kind, Namespace: c.Key.Namespace, Name: c.Key.Name, UID: c.UID, Steps: c.Steps}
		for _, x := range c.Fields {
			pc.Fields = append(pc.Fields, planFields{Field: x.Field(), Before: x.Before, After: x.After, path: x.Path})
		}
		d.Changes = append(d.Changes, pc)
	}
	d.snapshot = s
	d.BlockedBy = blockers(p)
	d.Effects = orEmpty(p.Effects(s))
	d.Approval = plan.ApprovalDigest(d.applied(), d.Effects)
}

// applied is the AmbientEdge that a plan is for, as it is applied where there is none.
func (d *planDocument) applied() *v1alpha1.AmbientEdge {
	e := &v1alpha1.AmbientEdge{Spec: d.Edge.Spec}
	e.Namespace, e.Name, e.Labels, e.Annotations = d.Namespace, d.Name, d.Edge.Labels, d.Edge.Annotations
	return e
}

// approval is the value of the annotation that approves a plan.
func (d *planDocument) approval() string { return plan.Approval(d.applied(), d.Effects) }

// blockers are the errors that stop a plan as a whole. Where each is about some backends, it takes all of them.
func blockers(p *plan.Plan) []string {
	if !p.Blocked() {
		return nil
	}
	var wide, all []string
	for _, f := range p.Findings {
		if f.Severity != v1alpha1.SeverityError {
			continue
		}
		name := f.Code + " at " + f.Object
		if all = append(all, name); !p.HeldBack(f) {
			wide = append(wide, name)
		}
	}
	if len(wide) > 0 {
		return wide
	}
	return all
}

// orEmpty is for JSON: a list that is empty is [], not null.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// print shows the plan.
func (d *planDocument) print(p *page) error {
	word, c := d.summary()
	verb := "Plan"
	if d.Undoing {
		verb = "Undoing"
	}
	p.colon(fmt.Sprintf("%s %s/%s, mode %s", p.paint(bold, verb+" of AmbientEdge"), clean(d.Namespace), clean(d.Name), clean(string(d.Mode))), p.paint(c, word))
	if err := p.gateways(d.Gateways, d.bare(), d.FromFiles); err != nil {
		return err
	}
	if err := p.backends(d.Backends, 0); err != nil {
		return err
	}
	if err := p.findings(d.Findings, 0); err != nil {
		return err
	}
	steps := v1alpha1.Plan{}
	for _, s := range d.Steps {
		steps.Steps = append(steps.Steps, s.Step)
	}
	return p.plan(steps)
}

// summary says in a word what is left.
func (d *planDocument) summary() (string, colour) {
	left := 0
	for _, s := range d.Steps {
		if s.State != v1alpha1.StepDone && s.State != v1alpha1.StepUnknown {
			left++
		}
	}
	unknown := fmt.Sprintf("%d of %d steps only the controller can see", d.Unknown, len(d.Steps))
	switch {
	case d.Blocked:
		return "blocked, nothing is written", red
	case d.Done:
		return "nothing is left to do", green
	case left == 0:
		return "nothing is left to write; " + unknown, yellow
	}
	word := fmt.Sprintf("%d of %d steps are left", left, len(d.Steps))
	if n := len(d.Held); n > 0 {
		word += fmt.Sprintf(", and %d of %d backends held back", n, len(d.Backends))
	}
	if d.Unknown > 0 {
		word += "; " + unknown
	}
	if d.Mode == v1alpha1.ModeObserve && !d.Undoing {
		word += ", and mode Observe takes none"
	}
	return word, yellow
}

// blocked is an error that names what blocks, or holds something back. The findings themselves are in the plan, and are not told again.
func (d *planDocument) blocked() error {
	var by []string
	for _, f := range d.Findings {
		if f.Severity == v1alpha1.SeverityError {
			by = append(by, f.Code+" at "+f.Object)
		}
	}
	if len(by) == 0 {
		return nil
	}
	what := "the plan is blocked: "
	if !d.Blocked {
		what = "some of the plan is held back: "
	}
	return &failure{what: what + strings.Join(by, ", "), next: "do what the findings above say, and plan again"}
}
