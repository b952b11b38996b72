package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/check"
)

// checksDocument is the output of isthmus check --list, and --explain.
type checksDocument struct {
	header
	Checks []describedCheck `json:"checks"`
}

// describedCheck is a check, as docs/checks.md has it.
type describedCheck struct {
	Code       string              `json:"code"`
	Title      string              `json:"title"`
	Severities []v1alpha1.Severity `json:"severities"`
	Matter     string              `json:"matter"`
	Harm       string              `json:"harm"`
	Fix        string              `json:"fix"`
	Answers    []string            `json:"answers"` // pains of docs/checks.md
}

func describe(c *check.Check) describedCheck {
	return describedCheck{c.Code, c.Title, c.Severities, c.Matter, c.Harm, c.Fix, orEmpty(c.Pains)}
}

// worst are severities as text.
func worst(list []v1alpha1.Severity) string {
	var all []string
	for _, s := range list {
		all = append(all, string(s))
	}
	return strings.Join(all, ", ")
}

// listChecks shows all checks.
func (a *app) listChecks(checks []check.Check) error {
	d := checksDocument{header: newHeader("Checks"), Checks: []describedCheck{}}
	var rows [][]cell
	for i := range checks {
		c := describe(&checks[i])
		d.Checks = append(d.Checks, c)
		rows = append(rows, cells(c.Code, worst(c.Severities), c.Title))
	}
	if a.output == outputJSON {
		return a.writeJSON(d)
	}
	return a.page(a.stdout).table([]string{"CODE", "SEVERITY", "TITLE"}, rows)
}

// explainCheck tells what is behind a code.
func (a *app) explainCheck(command string, f *checkFlags) error {
	code := strings.ToUpper(strings.TrimSpace(f.explain))
	if !strings.HasPrefix(code, "ISM") {
		code = "ISM" + code
	}
	i := slices.IndexFunc(f.checks, func(c check.Check) bool { return c.Code == code })
	var c describedCheck
	if i >= 0 {
		c = describe(&f.checks[i])
	} else if of, ok := controllerFinding(code); ok {
		c = of
	} else {
		return usagef(command, "there is no check %q: isthmus check --list has all of them, and docs/findings.md the codes of the controller", f.explain)
	}
	if a.output == outputJSON {
		return a.writeJSON(checksDocument{newHeader("Checks"), []describedCheck{c}})
	}
	p := a.page(a.stdout)
	fmt.Fprintf(p.w, "%s (%s)\n", p.paint(bold, c.Code+": "+c.Title), worst(c.Severities))
	for _, part := range []struct{ name, text string }{{"What", c.Matter}, {"Harm", c.Harm}, {"Fix", c.Fix}} {
		if part.text == "" {
			continue // the controller's say what and harm at once, and some have nothing to mend
		}
		fmt.Fprintf(p.w, "\n%s\n", p.paint(bold, part.name))
		width := p.width
		if width == 0 {
			width = textWidth
		}
		for _, line := range wrap(clean(part.text), width-2) {
			fmt.Fprintln(p.w, "  "+line)
		}
	}
	return nil
}
