package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/check"
)

// outputSARIF is the format of code hosts.
const outputSARIF = "sarif"

// checkDocument is the output of isthmus check.
type checkDocument struct {
	header
	Findings []checkFinding `json:"findings"`
	Ignored  []checkFinding `json:"ignored"`
	Gone     []checkFinding `json:"gone,omitempty"` // those of the cluster that files mend
	Counts   checkCounts    `json:"counts"`
	Notes    []string       `json:"notes,omitempty"`

	took   time.Duration
	unread error // what could not be read
}

// checkCounts say how many there are.
type checkCounts struct {
	Errors   int `json:"errors"`
	Warnings int `json:"warnings"`
	Infos    int `json:"infos"`
	Ignored  int `json:"ignored"`
	Checks   int `json:"checks"`
	Objects  int `json:"objects"`
	Unread   int `json:"unread,omitempty"` // objects and parts of files that could not be read, and are left out
}

// checkFinding is a finding.
type checkFinding struct {
	Code     string            `json:"code"`
	Severity v1alpha1.Severity `json:"severity"`
	Object   checkObject       `json:"object"`
	Field    string            `json:"field,omitempty"`
	File     string            `json:"file,omitempty"` // empty in a cluster
	Line     int               `json:"line,omitempty"` // of the field, or else of the object
	Message  string            `json:"message"`
	Fix      string            `json:"fix,omitempty"`
	Patch    string            `json:"patch,omitempty"`
	Related  []checkObject     `json:"related,omitempty"`
	Ignored  string            `json:"ignored,omitempty"` // the reason
}

// checkObject names an object.
type checkObject struct {
	Group     string `json:"group,omitempty"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

func newCheckObject(o check.Object) checkObject {
	return checkObject{o.Group, o.Kind, o.Namespace, o.Name}
}

// String is Kind namespace/name, or Kind name.
func (o checkObject) String() string {
	if o.Namespace == "" {
		return o.Kind + " " + o.Name
	}
	return o.Kind + " " + o.Namespace + "/" + o.Name
}

// place is file:line, or empty.
func (f *checkFinding) place() string {
	if f.File == "" || f.Line == 0 {
		return f.File
	}
	return f.File + ":" + strconv.Itoa(f.Line)
}

func newCheckDocument(w *world, checks []check.Check, found []check.Finding) *checkDocument {
	d := &checkDocument{header: newHeader("Check"), Findings: []checkFinding{}, Ignored: []checkFinding{}, Notes: w.notes}
	d.Counts.Checks, d.Counts.Objects = len(checks), w.objects
	if w.edgeNote != "" {
		d.Notes = append(d.Notes, w.edgeNote)
	}
	d.Counts.Unread, d.unread = w.Unread()+len(w.broken), w.unreadError()
	all := w.unread()[:len(w.broken)] // the others are found by a check
	for i := range found {
		all = append(all, w.finding(&found[i]))
	}
	for i := range all {
		f := all[i]
		switch {
		case f.Ignored != "":
			d.Counts.Ignored++
			d.Ignored = append(d.Ignored, f)
			continue
		case f.Severity == v1alpha1.SeverityError:
			d.Counts.Errors++
		case f.Severity == v1alpha1.SeverityWarning:
			d.Counts.Warnings++
		default:
			d.Counts.Infos++
		}
		d.Findings = append(d.Findings, f)
	}
	return d
}

// finding is a finding with the line of its field.
func (w *world) finding(f *check.Finding) checkFinding {
	out := checkFinding{
		Code: f.Code, Severity: f.Severity, Object: newCheckObject(f.Object), Field: f.Field, Message: f.Message, Fix: f.Fix, Patch: f.Patch, Ignored: f.Ignored,
	}
	for _, o := range f.Related {
		out.Related = append(out.Related, newCheckObject(o))
	}
	if o, is := w.files[f.Object]; is {
		out.File, out.Line = o.doc.file, o.line(f.Field)
	}
	return out
}

// textWidth is how wide text is where no terminal says it.
const textWidth = 100

// print shows findings by severity and object, then those that are ignored, and how many there are.
func (d *checkDocument) print(p *page) error {
	width := cmp.Or(p.width, textWidth)
	for i, s := range severities() {
		list := slices.DeleteFunc(slices.Clone(d.Findings), func(f checkFinding) bool { return f.Severity != s })
		if len(list) == 0 {
			continue
		}
		slices.SortStableFunc(list, func(a, b checkFinding) int {
			return cmp.Or(cmp.Compare(a.Object.Namespace, b.Object.Namespace), cmp.Compare(a.Object.Kind, b.Object.Kind), cmp.Compare(a.Object.Name, b.Object.Name))
		})
		colour := []colour{red, yellow, plain}[i]
		fmt.Fprintln(p.w, p.paint(bold, fmt.Sprintf("%ss", s)))
		for j := range list {
			if j == 0 || list[j].Object != list[j-1].Object {
				fmt.Fprintf(p.w, "%s\n", p.paint(bold, list[j].Object.String()))
			}
			list[j].print(p, width, colour)
		}
		fmt.Fprintln(p.w)
	}
	if len(d.Ignored) > 0 {
		fmt.Fprintln(p.w, p.paint(bold, "Ignored"))
		for i := range d.Ignored {
			f := &d.Ignored[i]
			for j, line := range wrap(fmt.Sprintf("%s at %s: %s", clean(f.Code), clean(f.Object.String()), clean(f.Ignored)), width-4) {
				fmt.Fprintf(p.w, "%s%s\n", []string{"  ", "    "}[min(j, 1)], p.paint(grey, line))
			}
		}
		fmt.Fprintln(p.w)
	}
	_, err := fmt.Fprintln(p.w, strings.Join(wrap(d.summary(), p.width), "\n"))
	return err
}

func (f *checkFinding) print(p *page, width int, c colour) {
	head := "  " + p.paint(c, f.Code)
	if f.Field != "" {
		head += " " + clean(f.Field)
	}
	if at := f.place(); at != "" {
		head += " " + p.paint(grey, "("+at+")")
	}
	fmt.Fprintln(p.w, head)
	for _, line := range wrap(clean(f.Message), width-4) {
		fmt.Fprintln(p.w, "    "+line)
	}
	for i, line := range wrapFix(clean(f.Fix), width-9) {
		switch {
		case line == "":
		case i == 0:
			fmt.Fprintf(p.w, "    %s %s\n", p.paint(bold, "fix:"), line)
		default:
			fmt.Fprintln(p.w, "         "+line)
		}
	}
	for line := range strings.Lines(f.Patch) {
		if line = strings.TrimRight(line, "\r\n"); line != "" {
			fmt.Fprintln(p.w, "           "+clean(line))
		}
	}
}

// summary says in a line how many findings there are, and of how much.
func (d *checkDocument) summary() string {
	var parts []string
	for _, n := range []struct {
		n    int
		what string
	}{{d.Counts.Errors, "error"}, {d.Counts.Warnings, "warning"}, {d.Counts.Infos, "info"}} {
		if n.n > 0 {
			parts = append(parts, count(n.n, n.what))
		}
	}
	if len(parts) == 0 {
		parts = []string{"nothing found"}
	}
	if d.Counts.Ignored > 0 {
		parts = append(parts, thousands(d.Counts.Ignored)+" ignored")
	}
	return fmt.Sprintf("%s; %s, %s in %.1f s", strings.Join(parts, ", "), count(d.Counts.Checks, "check"), count(d.Counts.Objects, "object"), d.took.Seconds())
}

// count is a number of things.
func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return thousands(n) + " " + what
}

// thousands is a number with commas.
func thousands(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
