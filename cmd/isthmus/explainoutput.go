package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/isthmus-mesh/isthmus/controller/explain"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// explainDocument is the output of isthmus explain.
type explainDocument struct {
	header
	From    string         `json:"from"`
	To      string         `json:"to"`
	Request string         `json:"request,omitempty"` // what is known of it, in words
	Verdict string         `json:"verdict"`           // allow, deny or depends
	On      string         `json:"on,omitempty"`      // of depends
	Ways    []wayDetail    `json:"ways"`
	Changes *changesDetail `json:"changes,omitempty"` // with --why-not
	Live    *liveDetail    `json:"live,omitempty"`    // with --live
	Notes   []string       `json:"notes,omitempty"`
}

// wayDetail is one way that requests take.
type wayDetail struct {
	Client  string         `json:"client,omitempty"` // which pods of the source; absent: all
	Doubt   string         `json:"doubt,omitempty"`  // why it is not known whether it is taken
	Share   int            `json:"share,omitempty"`  // of the connections, in per cent; absent: all
	Path    string         `json:"path"`
	Why     []string       `json:"why"`
	Verdict string         `json:"verdict"`
	Blocked string         `json:"blocked,omitempty"` // why nothing gets through, whatever policies say
	Hops    []explainedHop `json:"hops"`
}

// explainedHop is one connection.
type explainedHop struct {
	From      nodeDetail `json:"from"`
	To        nodeDetail `json:"to"`
	Transport string     `json:"transport"` // any, plaintext, hbone or hbone-native
	Expected  []string   `json:"expected,omitempty"`
	Seen      []string   `json:"seen,omitempty"`
	Enforcer  string     `json:"enforcer"` // none, ztunnel, waypoint, itself, sidecar or unknown
	Decision  *decision  `json:"decision,omitempty"`
	Said      string     `json:"said,omitempty"`
	Before    bool       `json:"before,omitempty"` // it leads to the source, and is none of the request's
}

type nodeDetail struct {
	Kind   string `json:"kind"` // outside, gateway, client, waypoint or pods
	Name   string `json:"name"`
	Detail string `json:"detail,omitempty"`
}

// decision is what an enforcement point does.
type decision struct {
	Verdict string `json:"verdict"`
	Reason  string `json:"reason"`
	On      string `json:"on,omitempty"`
	Policy  string `json:"policy,omitempty"` // Kind namespace/name
	Rule    *int   `json:"rule,omitempty"`   // index in spec.rules
	Field   string `json:"field,omitempty"`
}

type changesDetail struct {
	Texts    []string      `json:"texts"`
	Cautions []string      `json:"cautions,omitempty"` // whom else it would let through
	Patches  []patchDetail `json:"patches,omitempty"`
}

type patchDetail struct {
	Policy string `json:"policy"`
	Patch  string `json:"patch"` // a JSON patch, as YAML
}

func newExplainDocument(a *explain.Answer, request string, notes []string) *explainDocument {
	d := &explainDocument{header: newHeader("Explanation"), From: a.From, To: a.To, Request: request, Verdict: a.Verdict.String(), On: a.On, Ways: []wayDetail{}}
	d.Notes = append(append(d.Notes, notes...), a.Notes...)
	for i := range a.Ways {
		w := &a.Ways[i]
		way := wayDetail{Client: w.Client, Doubt: w.Doubt, Share: w.Share, Path: w.Short(), Why: w.Why, Verdict: w.Verdict.String(), Blocked: w.Blocked()}
		for j := range w.Hops {
			way.Hops = append(way.Hops, newExplainedHop(&w.Hops[j]))
		}
		d.Ways = append(d.Ways, way)
	}
	return d
}

func newExplainedHop(h *explain.Hop) explainedHop {
	node := func(n explain.Node) nodeDetail { return nodeDetail{string(n.Kind), n.Name, n.Detail} }
	d := explainedHop{
		From: node(h.From), To: node(h.To), Transport: string(h.Transport), Expected: h.Expected, Seen: h.Seen,
		Enforcer: string(h.Enforcer), Said: h.Said, Before: h.Before,
	}
	if h.Enforcer == explain.EnforcerNone {
		return d
	}
	d.Decision = &decision{Verdict: h.Decision.Verdict.String(), Reason: h.Decision.Reason.String(), Field: h.Decision.Field}
	if h.Decision.Verdict == policy.Depends {
		d.Decision.On = h.On()
	}
	if !h.Decision.Policy.IsZero() {
		d.Decision.Policy = h.Decision.Policy.String()
		if h.Decision.Rule >= 0 {
			d.Decision.Rule = &h.Decision.Rule
		}
	}
	return d
}

// showAnswer writes an answer, and what was seen of it.
func (a *app) showAnswer(f *explainFlags, x *explain.Explainer, answer *explain.Answer, live *liveDetail, notes []string) error {
	request := strings.Join(f.request.words, ", ")
	var changes explain.Changes
	if f.whyNot {
		changes = x.WhyNot(answer)
	}
	switch a.output {
	case outputHTML:
		one := explain.Cell{From: answer.From, To: answer.To, Routed: true, Answer: *answer}
		m := explain.Matrix{Sources: []string{one.From}, Targets: []string{one.To}, Cells: []explain.Cell{one}}
		return explain.HTML(cleaner{w: a.stdout}, &m, request, notes)
	case outputJSON:
		d := newExplainDocument(answer, request, notes)
		d.Live = live
		if f.whyNot {
			d.Changes = &changesDetail{Texts: append([]string{}, changes.Texts...), Cautions: changes.Cautions}
			for _, p := range changes.Patches {
				d.Changes.Patches = append(d.Changes.Patches, patchDetail{p.Policy.String(), p.Text})
			}
		}
		return a.writeJSON(d)
	}
	p := a.page(a.stdout)
	if err := explain.Draw(p.w, answer, p.width, p.role); err != nil {
		return err
	}
	if f.whyNot {
		if err := explain.DrawChanges(p.w, changes, p.width, p.role); err != nil {
			return err
		}
	}
	if live != nil {
		live.print(p)
	}
	return nil
}

// role paints a part of a drawing.
func (p *page) role(r explain.Role, text string) string {
	c := map[explain.Role]colour{
		explain.RolePlain: plain, explain.RoleTitle: bold, explain.RoleAllow: green, explain.RoleDeny: red, explain.RoleDepends: yellow, explain.RoleFaint: grey,
	}
	return p.paint(c[r], text)
}

// matrixDocument is the output of isthmus explain --matrix.
type matrixDocument struct {
	header
	Request string       `json:"request,omitempty"`
	Cells   []matrixCell `json:"cells"`
	Notes   []string     `json:"notes,omitempty"`
}

type matrixCell struct {
	From    string `json:"from"`
	To      string `json:"to"`
	Routed  bool   `json:"routed"` // from is no gateway, or one with a route that leads there
	Verdict string `json:"verdict"`
	On      string `json:"on,omitempty"`
	Path    string `json:"path"`
	Why     string `json:"why"`
}

func (a *app) showMatrix(f *explainFlags, m *explain.Matrix, notes []string) error {
	request := strings.Join(f.request.words, ", ")
	if a.output == outputHTML {
		return explain.HTML(cleaner{w: a.stdout}, m, request, notes)
	}
	d := matrixDocument{header: newHeader("AccessMatrix"), Request: request, Cells: []matrixCell{}, Notes: notes}
	for i := range m.Cells {
		c := &m.Cells[i]
		cell := matrixCell{From: c.From, To: c.To, Routed: c.Routed, Verdict: c.Answer.Verdict.String(), On: c.Answer.On}
		cell.Path, cell.Why = c.Why()
		d.Cells = append(d.Cells, cell)
	}
	if a.output == outputJSON {
		return a.writeJSON(d)
	}
	if len(d.Cells) == 0 {
		fmt.Fprintln(a.stderr, "There is no gateway at an edge whose routes lead to a Service.")
		fmt.Fprintln(a.stderr, "  next:  --accounts and --all-services show more; isthmus observe shows the gateways")
		return nil
	}
	return d.print(a.page(a.stdout))
}

// print shows a line a question.
func (d *matrixDocument) print(p *page) error {
	paint := map[string]colour{policy.Allow.String(): green, policy.Deny.String(): red, policy.Depends.String(): yellow}
	var rows [][]cell
	count := map[string]int{}
	for _, c := range d.Cells {
		row := cells(c.From, c.To, c.Verdict, c.Path+"; "+c.Why)
		if !c.Routed {
			row[3].text = "no route; " + row[3].text
		}
		row[2].colour = paint[c.Verdict]
		count[c.Verdict]++
		rows = append(rows, row)
	}
	if err := p.table([]string{"FROM", "TO", "VERDICT", "WAY AND WHY"}, rows); err != nil {
		return err
	}
	var parts []string
	for _, v := range []policy.Verdict{policy.Allow, policy.Deny, policy.Depends} {
		parts = append(parts, strconv.Itoa(count[v.String()])+" "+v.String())
	}
	fmt.Fprintf(p.w, "\n%s\n", strings.Join(parts, ", "))
	return nil
}
