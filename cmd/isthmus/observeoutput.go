package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// observeDocument is the output of isthmus observe.
type observeDocument struct {
	header
	Gateways []observedGateway `json:"gateways"`
	Notes    []string          `json:"notes,omitempty"` // what was assumed
}

// observedGateway is a gateway, and what an AmbientEdge does or would do for it.
type observedGateway struct {
	Kind      string                    `json:"kind"`
	Namespace string                    `json:"namespace"`
	Name      string                    `json:"name"`
	Vendor    string                    `json:"vendor"`
	Pods      int32                     `json:"pods"`
	Captured  int32                     `json:"captured"`
	Identity  string                    `json:"identity,omitempty"`
	Switch    string                    `json:"switch,omitempty"`
	Inspect   string                    `json:"inspect,omitempty"` // where people see what it has programmed
	Needs     []v1alpha1.Finding        `json:"needs,omitempty"`   // settings of its controller that must be there before, whatever its routes are
	HasEdge   bool                      `json:"hasEdge"`           // AmbientEdge is in the cluster; else it would fit
	Edge      *v1alpha1.AmbientEdgeSpec `json:"edgeSpec"`
	Plan      *planDocument             `json:"plan"`

	consents []string // the commands by which the owners of backends consent
}

// newObserveDocument plans for all gateways that are wanted.
func newObserveDocument(s *plan.Snapshot, wanted func(*plan.Candidate) bool) *observeDocument {
	d := &observeDocument{header: newHeader("Observation"), Gateways: []observedGateway{}}
	for _, c := range plan.Candidates(s) {
		if !wanted(&c) {
			continue
		}
		look := *s
		look.Edge = c.Edge
		look.Edges = append([]v1alpha1.AmbientEdge{}, s.Edges...)
		p := newPlanDocument(c.Edge, &look, nil)
		g := observedGateway{Kind: c.Kind, Namespace: c.Key.Namespace, Name: c.Key.Name, HasEdge: c.Exists, Edge: &c.Edge.Spec, Plan: p, Vendor: edge.Custom().Name, Needs: c.Needs(&look)}
		for _, st := range p.Gateways {
			if st.Name == c.Key.Name {
				g.Vendor, g.Pods, g.Captured, g.Identity, g.Switch = st.Vendor, st.Pods, st.Captured, st.Identity, st.Switch
			}
		}
		g.consents = p.consents(&look)
		for _, v := range edge.Vendors() {
			if v.Name == g.Vendor {
				g.Inspect = v.Inspect
			}
		}
		d.Gateways = append(d.Gateways, g)
	}
	return d
}

func (d *observeDocument) nothing(namespace string) string {
	where := "this cluster"
	if namespace != "" {
		where = "namespace " + namespace
	}
	return fmt.Sprintf("There is no Gateway, and no known Ingress controller, in %s.", where)
}

// title is a gateway's kind and name, as short as can be.
func (g *observedGateway) title() string {
	name := g.Namespace + "/" + g.Name
	if g.Kind != "Gateway" {
		name = g.Kind + " " + name
	}
	return name
}

// edgeName is the AmbientEdge that it has, and its mode.
func (g *observedGateway) edgeName() string {
	if !g.HasEdge {
		return "-"
	}
	return g.Plan.Name + " (" + string(g.Plan.Mode) + ")"
}

// what says in a line what is left to do, or what stands in the way.
func (g *observedGateway) what() (string, colour) {
	var errs, verbs []string
	for _, f := range g.Plan.Findings {
		if f.Severity == v1alpha1.SeverityError {
			errs = append(errs, f.Code+" at "+f.Object)
		}
	}
	if len(errs) > 0 {
		text := "blocked by " + errs[0]
		if !g.Plan.Blocked {
			text = "some is held back by " + errs[0]
		}
		if len(errs) > 1 {
			text += fmt.Sprintf(" and %d more", len(errs)-1)
		}
		return text, red
	}
	if g.Plan.Done {
		return "nothing is left to do", green
	}
	counts := map[string]int{}
	for _, s := range g.Plan.Steps {
		if s.State == v1alpha1.StepNext || s.State == v1alpha1.StepLater {
			if counts[s.Verb]++; counts[s.Verb] == 1 {
				verbs = append(verbs, s.Verb)
			}
		}
	}
	if len(verbs) == 0 {
		return g.Plan.summaryText(), yellow
	}
	for i, v := range verbs {
		if counts[v] > 1 {
			verbs[i] = fmt.Sprintf("%s %d", v, counts[v])
		}
	}
	return strings.Join(verbs, ", "), yellow
}

func (g *observedGateway) uncaptured() string {
	return uncaptured(v1alpha1.GatewayStatus{Name: g.Name, Pods: g.Pods, Captured: g.Captured}, g.Plan.bare())
}

// print shows a line a gateway.
func (d *observeDocument) print(p *page) error {
	var rows [][]cell
	for i := range d.Gateways {
		g := &d.Gateways[i]
		row := cells(g.title(), g.Vendor, fmt.Sprintf("%d/%d", g.Captured, g.Pods), fmt.Sprint(len(g.Plan.Backends)), g.edgeName(), "")
		if row[2].colour = green; g.Captured < g.Pods || g.Pods == 0 {
			row[2].colour = yellow
		}
		if how := g.uncaptured(); how != "" {
			row[2] = cell{how, green}
		}
		row[5].text, row[5].colour = g.what()
		rows = append(rows, row)
	}
	return p.table([]string{"GATEWAY", "VENDOR", "CAPTURED", "BACKENDS", "EDGE", "WHAT"}, rows)
}

// printAll shows everything about one gateway, and the AmbientEdge for it.
func (g *observedGateway) printAll(p *page) error {
	how := fmt.Sprintf("%d of %d pods captured", g.Captured, g.Pods)
	switch g.uncaptured() {
	case inHBONE:
		how = fmt.Sprintf("%d pods, which speak HBONE themselves", g.Pods)
	case outOfMesh:
		how = fmt.Sprintf("%d pods, which stay outside the mesh", g.Pods)
	}
	fmt.Fprintf(p.w, "%s, %s, %s\n", p.paint(bold, g.Kind+" "+g.Namespace+"/"+g.Name), g.Vendor, how)
	if g.Inspect != "" {
		for _, line := range wrap("What it has programmed is seen in "+g.Inspect+".", p.width) {
			fmt.Fprintln(p.w, line)
		}
	}
	for _, n := range g.Needs {
		for _, line := range wrap(fmt.Sprintf("It needs before: %s (%s, %s).", clean(n.Fix), clean(n.Object), clean(n.Message)), p.width) {
			fmt.Fprintln(p.w, p.paint(yellow, line))
		}
	}
	fmt.Fprintln(p.w)
	if err := g.Plan.print(p); err != nil {
		return err
	}
	if g.HasEdge {
		return nil
	}
	text, err := g.edgeYAML()
	if err != nil {
		return err
	}
	fmt.Fprintf(p.w, "\n%s\n", p.paint(bold, "# How the backends' owners consent, and how it is applied:"))
	for _, c := range g.consents {
		fmt.Fprintln(p.w, clean(c))
	}
	fmt.Fprintf(p.w, "isthmus observe %s/%s -o yaml | kubectl apply -f -\n", clean(g.Namespace), clean(g.Name))
	_, err = fmt.Fprintf(p.w, "\n%s\n%s", p.paint(bold, "# The AmbientEdge that would do this:"), text)
	return err
}

// edgeYAML is the AmbientEdge alone, as kubectl apply takes it.
func (g *observedGateway) edgeYAML() ([]byte, error) {
	text, err := yamlOf(map[string]any{
		"apiVersion": v1alpha1.GroupVersion().String(), "kind": "AmbientEdge",
		"metadata": map[string]any{"namespace": g.Plan.Namespace, "name": g.Plan.Name}, "spec": g.Edge,
	})
	if err != nil {
		return nil, fmt.Errorf("encode the AmbientEdge: %w", err)
	}
	return text, nil
}

// consents are the commands by which the owners of backends consent that have not. Without a backend it is one to fill in.
func (d *planDocument) consents(s *plan.Snapshot) []string {
	var list []string
	for _, b := range d.Backends {
		ns, _, _ := strings.Cut(b.Service, "/")
		if c := plan.ConsentCommand(s, ns); c != "" && !slices.Contains(list, c) {
			list = append(list, c)
		}
	}
	if len(d.Backends) == 0 {
		list = append(list, fmt.Sprintf("kubectl annotate namespace NAMESPACE %s=%s/%s   # that of each backend, once routes name them; added to what is there by a comma",
			v1alpha1.AnnotationEdges, d.Namespace, d.Name))
	}
	return list
}

// summaryText is summary, for a line of a table.
func (d *planDocument) summaryText() string {
	text, _ := d.summary()
	return cmp.Or(text, "-")
}
