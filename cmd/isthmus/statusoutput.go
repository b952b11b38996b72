package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// unseen says whether no controller has ever told anything about e.
func (e *edgeStatus) unseen() bool {
	return meta.FindStatusCondition(e.Status.Conditions, v1alpha1.ConditionReady) == nil
}

// ready is the word for an edge's state, and why.
func (e *edgeStatus) ready() (cell, string) {
	c := meta.FindStatusCondition(e.Status.Conditions, v1alpha1.ConditionReady)
	switch {
	case e.unseen():
		return cell{"Unknown", yellow}, "no controller has looked at it yet"
	case !e.Current:
		return cell{"Unknown", yellow}, "the controller has not seen its newest spec yet"
	case c.Status == metav1.ConditionTrue:
		return cell{"True", green}, c.Reason
	}
	return cell{string(c.Status), red}, c.Reason
}

// print shows a line an edge.
func (d *statusDocument) print(p *page, now time.Time) error {
	if len(d.Edges) == 0 {
		return nil
	}
	var rows [][]cell
	for _, e := range d.Edges {
		var pods, captured int32
		var outside []string
		for _, g := range e.Status.Gateways {
			pods, captured = pods+g.Pods, captured+g.Captured
			outside = append(outside, uncaptured(g, e.Status.Plan.Steps))
		}
		done := 0
		for _, s := range e.Status.Plan.Steps {
			if s.State == v1alpha1.StepDone {
				done++
			}
		}
		row := cells(e.Namespace, e.Name, string(e.Mode), "", "-", "-", "-", "", ago(e.Created.Time, now), "")
		if len(e.Status.Gateways) > 0 {
			row[4].text = fmt.Sprintf("%d/%d", captured, pods)
			if outside = slices.Compact(outside); len(outside) == 1 && outside[0] != "" {
				row[4].text = outside[0]
			}
		}
		if e.Status.ObservedGeneration > 0 {
			row[5].text = fmt.Sprint(len(e.Status.Backends) + int(e.Status.BackendsLeftOut))
			row[6].text = fmt.Sprintf("%d/%d", done, len(e.Status.Plan.Steps)+int(e.Status.Plan.StepsLeftOut))
		}
		var why string
		row[3], why = e.ready()
		row[7] = findingCount(e.Status)
		row[9].text = why
		rows = append(rows, row)
	}
	return p.table([]string{"NAMESPACE", "NAME", "MODE", "READY", "CAPTURED", "BACKENDS", "STEPS", "FINDINGS", "AGE", "REASON"}, rows)
}

// What stands in place of a count of captured pods.
const (
	inHBONE   = "HBONE" // they speak it themselves
	outOfMesh = "none"  // they are to stay outside
)

// uncaptured says in a word why nobody waits for a gateway's pods to be captured, as its step Verify has it. Empty: they are, or are to be.
func uncaptured(g v1alpha1.GatewayStatus, steps []v1alpha1.Step) string {
	for _, s := range steps {
		if s.Verb != plan.VerbVerify || s.State != v1alpha1.StepDone || !strings.HasSuffix(s.Object, "/"+g.Name) || g.Captured > 0 || g.Pods == 0 {
			continue
		}
		if strings.Contains(s.Reason, "HBONE") {
			return inHBONE
		}
		return outOfMesh
	}
	return ""
}

func findingCount(s v1alpha1.AmbientEdgeStatus) cell {
	n := len(s.Findings) + int(s.FindingsLeftOut)
	c := cell{text: fmt.Sprint(n)}
	for _, f := range s.Findings {
		switch {
		case f.Severity == v1alpha1.SeverityError:
			c.colour = red
		case f.Severity == v1alpha1.SeverityWarning && c.colour != red:
			c.colour = yellow
		}
	}
	return c
}

// print shows everything about one edge.
func (e *edgeStatus) print(p *page) error {
	word, why := e.ready()
	p.colon(fmt.Sprintf("%s %s/%s, mode %s", p.paint(bold, "AmbientEdge"), e.Namespace, e.Name, clean(string(e.Mode))), fmt.Sprintf("ready %s (%s)", p.paint(word.colour, word.text), clean(why)))
	if e.Deleting {
		fmt.Fprintln(p.w, p.paint(yellow, "It is being deleted."))
	}
	if len(e.Status.Conditions) > 0 {
		var rows [][]cell
		for _, c := range e.Status.Conditions {
			row := cells(c.Type, string(c.Status), c.Reason, oneLine(c.Message))
			row[1].colour = green
			if c.Status != metav1.ConditionTrue {
				row[1].colour = yellow
			}
			rows = append(rows, row)
		}
		if err := p.section("CONDITION", []string{"STATUS", "REASON", "MESSAGE"}, rows); err != nil {
			return err
		}
	}
	if err := p.gateways(e.Status.Gateways, e.Status.Plan.Steps, false); err != nil {
		return err
	}
	if err := p.backends(e.Status.Backends, int(e.Status.BackendsLeftOut)); err != nil {
		return err
	}
	if err := p.findings(e.Status.Findings, int(e.Status.FindingsLeftOut)); err != nil {
		return err
	}
	return p.plan(e.Status.Plan)
}

// gateways shows the gateways, as found. On paper nobody has seen that none is captured.
func (p *page) gateways(list []v1alpha1.GatewayStatus, steps []v1alpha1.Step, paper bool) error {
	if len(list) == 0 {
		return nil
	}
	var rows [][]cell
	for _, g := range list {
		row := cells(g.Name, g.Vendor, fmt.Sprintf("%d/%d", g.Captured, g.Pods), cmp.Or(g.Switch, "none known"), cmp.Or(g.Identity, "-"))
		if row[2].colour = green; g.Captured < g.Pods || g.Pods == 0 {
			row[2].colour = yellow
		}
		switch how := uncaptured(g, steps); {
		case how != "":
			row[2] = cell{how, green}
		case paper && g.Captured == 0:
			row[2].text = "unknown"
		}
		rows = append(rows, row)
	}
	return p.section("GATEWAY", []string{"VENDOR", "CAPTURED", "SWITCH", "IDENTITY"}, rows)
}

// backends shows where the gateways send to.
func (p *page) backends(list []v1alpha1.BackendStatus, leftOut int) error {
	if len(list) == 0 {
		return nil
	}
	held := slices.ContainsFunc(list, func(b v1alpha1.BackendStatus) bool { return len(b.Held) > 0 })
	var rows [][]cell
	for _, b := range list {
		row := cells(b.Service, cmp.Or(b.Waypoint, "-"), fmt.Sprint(len(b.Policies)), cmp.Or(b.Path, "-"))
		if held {
			row = slices.Insert(row, 3, cell{text: cmp.Or(heldBy(b.Held), "-"), colour: red})
			if len(b.Held) == 0 {
				row[3].colour = ""
			}
		}
		rows = append(rows, row)
	}
	titles := []string{"WAYPOINT", "POLICIES", "PATH"}
	if held {
		titles = slices.Insert(titles, 2, "HELD BY")
	}
	if err := p.section("BACKEND", titles, rows); err != nil {
		return err
	}
	if leftOut > 0 {
		fmt.Fprintf(p.w, "and %d backends more\n", leftOut)
	}
	return nil
}

// heldBy are the codes of the findings that hold a backend back.
func heldBy(list []string) string {
	var codes []string
	for _, s := range list {
		if code, _, _ := strings.Cut(s, " "); !slices.Contains(codes, code) {
			codes = append(codes, code)
		}
	}
	return strings.Join(codes, ", ")
}

// section is a table with an empty line before it.
func (p *page) section(first string, titles []string, rows [][]cell) error {
	fmt.Fprintln(p.w)
	return p.table(append([]string{first}, titles...), rows)
}

// findings shows what is wrong, in their order: a head, what is the matter, and what to do.
func (p *page) findings(list []v1alpha1.Finding, leftOut int) error {
	if len(list) == 0 {
		return nil
	}
	const indent = "        "
	var b strings.Builder
	b.WriteString("\n" + p.paint(bold, "FINDINGS") + "\n")
	for _, f := range list {
		c := map[v1alpha1.Severity]colour{v1alpha1.SeverityError: red, v1alpha1.SeverityWarning: yellow}[f.Severity]
		head := f.Object
		if f.Field != "" {
			head += " " + f.Field
		}
		for i, line := range wrap(clean(head), max(0, p.width-len(f.Code+string(f.Severity))-4)) {
			before := indent
			if i == 0 {
				before = f.Code + "  " + p.paint(c, string(f.Severity)) + "  "
			}
			b.WriteString(before + line + "\n")
		}
		texts := []string{oneLine(f.Message)}
		if f.Fix != "" {
			texts = append(texts, "fix: "+oneLine(f.Fix))
		}
		for _, text := range texts {
			for _, line := range wrapFix(text, max(0, p.width-len(indent))) {
				b.WriteString(indent + line + "\n")
			}
		}
	}
	if leftOut > 0 {
		fmt.Fprintf(&b, "and %d findings more\n", leftOut)
	}
	_, err := io.WriteString(p.w, b.String())
	return err
}

// plan shows the steps in their order.
func (p *page) plan(plan v1alpha1.Plan) error {
	if len(plan.Steps) == 0 {
		return nil
	}
	var rows [][]cell
	for i, s := range plan.Steps {
		row := cells(fmt.Sprint(i+1), s.Verb, string(s.State), s.Object, oneLine(s.Reason))
		row[2].colour = map[v1alpha1.StepState]colour{v1alpha1.StepDone: green, v1alpha1.StepNext: yellow, v1alpha1.StepUnknown: grey, v1alpha1.StepBlocked: red, v1alpha1.StepHeld: red}[s.State]
		rows = append(rows, row)
	}
	if err := p.section("STEP", []string{"VERB", "STATE", "OBJECT", "WHAT"}, rows); err != nil {
		return err
	}
	if plan.StepsLeftOut > 0 {
		fmt.Fprintf(p.w, "and %d steps more\n", plan.StepsLeftOut)
	}
	return nil
}
