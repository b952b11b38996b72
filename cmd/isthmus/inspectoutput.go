package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/controller/programmed"
)

// inspectDocument is the output of isthmus inspect.
type inspectDocument struct {
	header
	Gateways []inspectedGateway `json:"gateways"`
}

// inspectedGateway is a gateway, what was read, and where it sends to.
type inspectedGateway struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Vendor    string `json:"vendor"`
	// Edge is the AmbientEdge that it has, NAMESPACE/NAME. Empty: none.
	Edge string `json:"edge,omitempty"`
	// Unread says why nothing was asked. Empty: Pods were.
	Unread   string             `json:"unread,omitempty"`
	Pods     []inspectedPod     `json:"pods,omitempty"`
	Backends []inspectedBackend `json:"backends,omitempty"`
}

// inspectedPod is who was asked: a pod, or a text that stands for one.
type inspectedPod struct {
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	// Controller: it is of the gateway's controller, and tells what that has sent to its proxies.
	Controller bool   `json:"controller,omitempty"`
	Page       string `json:"page,omitempty"` // port and path
	Text       string `json:"text,omitempty"` // a file, or a URL
	// Error says why it was not read.
	Error *errorDetail `json:"error,omitempty"`
}

func (p *inspectedPod) name() string { return cmp.Or(p.Text, p.Namespace+"/"+p.Name) }

// fail notes why a pod was not read.
func (p *inspectedPod) fail(f *failure) { p.Error = new(detail(f)) }

// What comes of a comparison.
const (
	inForce     = "inForce"     // to the Service's address, as switched
	notInForce  = "notInForce"  // past it, though it is switched
	notSwitched = "notSwitched" // to pods, and no switch says otherwise
	unasked     = "unasked"     // to the Service's address, though no switch is known to say so
	noWaypoint  = "noWaypoint"  // to pods, as there is no waypoint that it could lead to
	notThere    = "notThere"    // nothing leads to the Service
	unclear     = "unclear"
	unread      = "unread"
)

// inspectedBackend is a Service that a gateway sends to.
type inspectedBackend struct {
	Service  string `json:"service"`
	Waypoint string `json:"waypoint,omitempty"`
	// Switch is what the gateway's switch says: service, pods or unknown. Why tells where.
	Switch string `json:"switch"`
	Why    string `json:"why,omitempty"`
	// Result is the worst of Seen: inForce, notInForce, notSwitched, unasked, noWaypoint, notThere, unclear, or unread where nobody could be asked.
	Result string         `json:"result"`
	Seen   []inspectedWay `json:"seen,omitempty"`
}

// inspectedWay is where some of the pods send to.
type inspectedWay struct {
	Pods   []string `json:"pods"` // or texts
	Result string   `json:"result"`
	// Sends is address, name, pods, mixed, elsewhere, nothing or unclear; Why tells more.
	Sends     string   `json:"sends"`
	Why       string   `json:"why,omitempty"`
	Upstreams []string `json:"upstreams,omitempty"`
	To        []string `json:"to,omitempty"`
}

// result compares what was read with the switches.
func (x *inspector) result() inspectedGateway {
	v := x.view
	g := inspectedGateway{Kind: v.Kind, Namespace: v.Key.Namespace, Name: v.Key.Name, Vendor: v.Vendor.Name}
	if v.Exists {
		g.Edge = v.Edge.Namespace + "/" + v.Edge.Name
	}
	switch {
	case len(x.pods) > 0:
	case len(v.Vendor.Shows) == 0 && v.Vendor.Inspect != "":
		g.Unread = "isthmus does not read what " + v.Vendor.Name + " has programmed; it is seen in " + v.Vendor.Inspect
	case len(v.Vendor.Shows) == 0:
		g.Unread = "what kind of gateway it is is not known, nor where it shows what it has programmed"
	default:
		g.Unread = "it has no pods that run"
	}
	for i := range x.pods {
		g.Pods = append(g.Pods, x.pods[i].inspectedPod)
	}
	for i := range v.Backends {
		g.Backends = append(g.Backends, x.backend(i))
	}
	return g
}

// backend compares one Service, by what each pod has for it.
func (x *inspector) backend(i int) inspectedBackend {
	b := &x.view.Backends[i]
	out := inspectedBackend{Service: b.Key.String(), Switch: b.Sends.String(), Why: b.Why, Result: unread}
	if b.Waypoint.Name != "" {
		out.Waypoint = b.Waypoint.String()
	}
	if x.at[i] < 0 {
		out.Result = unclear
		return out
	}
	for j := range x.pods {
		p := &x.pods[j]
		if p.Error != nil {
			continue
		}
		w := &p.ways[x.at[i]]
		seen := inspectedWay{Pods: []string{p.name()}, Result: compared(b, w), Sends: string(w.Sends), Why: w.Why, Upstreams: w.Upstreams, To: w.To}
		same := slices.IndexFunc(out.Seen, func(o inspectedWay) bool {
			return o.Result == seen.Result && o.Sends == seen.Sends && o.Why == seen.Why && slices.Equal(o.To, seen.To) && slices.Equal(o.Upstreams, seen.Upstreams)
		})
		if same >= 0 {
			out.Seen[same].Pods = append(out.Seen[same].Pods, p.name())
		} else {
			out.Seen = append(out.Seen, seen)
		}
		if worse(seen.Result, out.Result) {
			out.Result = seen.Result
		}
	}
	return out
}

// worse says whether result a counts before b.
func worse(a, b string) bool {
	order := []string{unread, inForce, unasked, noWaypoint, notSwitched, unclear, notThere, notInForce}
	return slices.Index(order, a) > slices.Index(order, b)
}

// compared says what a way means for a Service.
func compared(b *plan.ViewBackend, w *programmed.Way) string {
	past := w.Sends == programmed.ToPods || w.Sends == programmed.Mixed || w.Sends == programmed.Elsewhere
	switch {
	case w.Sends == programmed.Unclear:
		return unclear
	case w.Sends == programmed.Nothing:
		return notThere
	case b.Sends == plan.ToService && past && b.Waypoint.Name == "":
		return noWaypoint
	case b.Sends == plan.ToService && past:
		return notInForce
	case b.Sends == plan.ToService:
		return inForce
	case past && b.Sends == plan.ToPods:
		return notSwitched
	case past:
		return unclear
	}
	return unasked
}

// resultText says a result to people.
func resultText(w *inspectedWay) (string, colour) {
	what := map[string]string{
		"address": "its own address", "name": "its name", "pods": "its pods", "mixed": "its own address and past it", "elsewhere": "what is neither its address nor a pod of it that is known",
	}[w.Sends]
	switch w.Result {
	case inForce:
		return what + ", as switched", green
	case notInForce:
		return what + " still: the switch is not in force", red
	case notSwitched:
		return what + ": it is not switched", yellow
	case unasked:
		return what + ", though no switch says so", green
	case noWaypoint:
		return what + ": it leads to no waypoint", plain
	case notThere:
		return cmp.Or(w.Why, "nothing leads to it"), red
	}
	return "unclear: " + cmp.Or(w.Why, what), yellow
}

// print shows the gateways one after the other.
func (d *inspectDocument) print(p *page) error {
	for i := range d.Gateways {
		if i > 0 {
			fmt.Fprintln(p.w)
		}
		if err := d.Gateways[i].print(p); err != nil {
			return err
		}
	}
	return nil
}

func (g *inspectedGateway) print(p *page) error {
	read, controller := 0, false
	for i := range g.Pods {
		if g.Pods[i].Error == nil {
			read++
			controller = controller || g.Pods[i].Controller
		}
	}
	how := g.Unread
	switch {
	case how != "":
	case controller:
		how = "as its controller has sent it to its proxies, which could not be read"
	case g.Pods[0].Text != "":
		how = fmt.Sprintf("read from %d of %d texts", read, len(g.Pods))
	default:
		how = fmt.Sprintf("read from %d of %d pods", read, len(g.Pods))
	}
	p.colon(fmt.Sprintf("%s %s/%s, %s", p.paint(bold, g.Kind), g.Namespace, g.Name, g.Vendor), clean(how))
	var rows [][]cell
	for _, b := range g.Backends {
		if len(b.Seen) == 0 {
			text := "not read"
			if b.Result == unclear {
				text = "unclear: " + b.Why
			}
			rows = append(rows, cells(b.Service, cmp.Or(b.Waypoint, "-"), b.Switch, "-", text))
		}
		for i := range b.Seen {
			w := &b.Seen[i]
			row := cells(b.Service, cmp.Or(b.Waypoint, "-"), b.Switch, cmp.Or(strings.Join(w.To, " "), "-"), "")
			row[4].text, row[4].colour = resultText(w)
			if len(b.Seen) > 1 {
				row[4].text += " (" + strings.Join(w.Pods, ", ") + ")"
			}
			rows = append(rows, row)
		}
	}
	if len(rows) == 0 {
		fmt.Fprintln(p.w, "No route of it leads to a Service.")
		return nil
	}
	return p.table([]string{"BACKEND", "WAYPOINT", "SWITCH", "SENDS TO", "RESULT"}, rows)
}

// failure is the error of a switch that is not in force, or else of a pod that could not be read.
func (d *inspectDocument) failure() error {
	for _, result := range []string{notInForce, notThere} {
		for i := range d.Gateways {
			g := &d.Gateways[i]
			for _, b := range g.Backends {
				if b.Result != result || b.Switch != plan.ToService.String() {
					continue
				}
				f := &failure{
					what: fmt.Sprintf("the switch of %s %s/%s is not in force for Service %s", g.Kind, g.Namespace, g.Name, b.Service), where: b.Why,
					next: fmt.Sprintf("isthmus observe %s/%s says what its vendor needs; if something was changed just now, try again", g.Namespace, g.Name),
				}
				if result == notThere {
					f.what = fmt.Sprintf("%s %s/%s has nothing that leads to Service %s", g.Kind, g.Namespace, g.Name, b.Service)
				}
				return f
			}
		}
	}
	for i := range d.Gateways {
		g := &d.Gateways[i]
		failed := slices.DeleteFunc(slices.Clone(g.Pods), func(p inspectedPod) bool { return p.Error == nil })
		if len(failed) == 0 {
			continue
		}
		e := failed[0].Error
		f := &failure{what: e.Message, where: e.Where, next: e.Next}
		if e.Cause != "" {
			f.err = fmt.Errorf("%s", e.Cause)
		}
		if len(failed) > 1 {
			f.what = fmt.Sprintf("%s, for one of %d pods of %s %s/%s", f.what, len(failed), g.Kind, g.Namespace, g.Name)
		}
		return f
	}
	return nil
}
