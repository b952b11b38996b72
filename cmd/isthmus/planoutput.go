package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// planDocument is the output of isthmus plan.
type planDocument struct {
	header
	Namespace string                   `json:"namespace"`
	Name      string                   `json:"name"`
	Mode      v1alpha1.Mode            `json:"mode"`
	Undoing   bool                     `json:"undoing,omitempty"` // it is being deleted: the steps lead back
	Blocked   bool                     `json:"blocked"`           // a finding of severity Error stops all writing
	Done      bool                     `json:"done"`              // no step is left, and none is unknown
	Unknown   int                      `json:"unknown,omitempty"` // steps that cannot be seen from here
	Digest    string                   `json:"digest"`
	Gateways  []v1alpha1.GatewayStatus `json:"gateways"`
	Backends  []v1alpha1.BackendStatus `json:"backends"`
	Findings  []v1alpha1.Finding       `json:"findings"`
	Steps     []planStep               `json:"steps"`
	Notes     []string                 `json:"notes,omitempty"` // what was not looked at
}

// planStep is a step, and what it writes now.
type planStep struct {
	v1alpha1.Step
	Write *planWrite `json:"write,omitempty"`
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
		Undoing: p.Undoing, Blocked: p.Blocked(), Done: p.Done() && !p.Blocked(), Digest: p.Digest, Notes: notes,
		Gateways: orEmpty(p.Gateways), Backends: orEmpty(p.Backends), Findings: orEmpty(p.Findings), Steps: []planStep{},
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
	return d
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
	fmt.Fprintf(p.w, "%s %s/%s, mode %s: %s\n", p.paint(bold, verb+" of AmbientEdge"), clean(d.Namespace), clean(d.Name), clean(string(d.Mode)), p.paint(c, word))
	if err := p.gateways(d.Gateways); err != nil {
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
	if d.Unknown > 0 {
		word += "; " + unknown
	}
	if d.Mode == v1alpha1.ModeObserve && !d.Undoing {
		word += ", and mode Observe takes none"
	}
	return word, yellow
}

// blocked is an error that names what blocks. The findings themselves are in the plan, and are not told again.
func (d *planDocument) blocked() error {
	if !d.Blocked {
		return nil
	}
	var by []string
	for _, f := range d.Findings {
		if f.Severity == v1alpha1.SeverityError {
			by = append(by, f.Code+" at "+f.Object)
		}
	}
	return &failure{what: "the plan is blocked: " + strings.Join(by, ", "), next: "do what the findings above say, and plan again"}
}
