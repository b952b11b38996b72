package explain

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/check"
	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

type endpointSlice = discoveryv1.EndpointSlice

// Explainer answers questions about one world, which must not change meanwhile. It is not safe for concurrent use.
type Explainer struct {
	w       *check.World
	points  *points
	slices  map[types.NamespacedName][]*endpointSlice
	sending map[*plan.View]func(types.NamespacedName) plan.ViewBackend
}

// New is for who has several questions.
func New(w *check.World) *Explainer {
	return &Explainer{w: w, points: newPoints(w), sending: map[*plan.View]func(types.NamespacedName) plan.ViewBackend{}}
}

// From answers one question. An error is a NotFoundError.
func From(w *check.World, q Question) (Answer, error) { return New(w).Answer(q) }

// Answer answers a question. An error is a NotFoundError.
func (x *Explainer) Answer(q Question) (Answer, error) {
	c, err := x.client(q.From)
	if err != nil {
		return Answer{}, err
	}
	t, err := x.target(q.To)
	if err != nil {
		return Answer{}, err
	}
	return x.answer(c, t, &q), nil
}

// answer goes all ways.
func (x *Explainer) answer(c *client, t *target, q *Question) Answer {
	a := Answer{From: c.node.Name, To: t.name, Notes: slices.Concat(c.notes, t.notes)}
	if t.number != 0 {
		a.To += fmt.Sprintf(" port %d", t.number)
	}
	a.TCP = tcp(t.port)
	to, why := x.sends(c, t, &a)
	for _, s := range x.senders(c, t, to, why) {
		if s.inside && !q.As.IsZero() {
			s.ids, s.ips = []spiffeid.ID{q.As}, nil
		}
		var ways []Way
		for i := range t.groups {
			g := &t.groups[i]
			for _, l := range x.leadsOf(&s, t, g) {
				ways = append(ways, x.way(c, &s, t, g, l, q))
			}
		}
		a.Ways = append(a.Ways, merge(ways)...)
	}
	a.portAsked = q.To.Port != "" && (t.service == nil || len(t.service.Spec.Ports) > 1)
	x.unenforced(t, &a)
	if c.view != nil {
		a.gateway = c.view.Key.String()
		first := x.before(c)
		for i := range a.Ways {
			a.Ways[i].Hops = append([]Hop{first}, a.Ways[i].Hops...)
		}
		if first.Decision.Verdict == policy.Deny && first.Enforcer != EnforcerNone {
			a.Notes = append(a.Notes, fmt.Sprintf("nobody outside the mesh gets to %s: %s", c.node.Name, first.Decision))
		}
		a.Notes = append(a.Notes, fmt.Sprintf("what %s itself asks of requests, by policies of its own, is not looked at", c.view.Vendor.Name))
	}
	a.sum()
	return a
}

// unenforced notes policies that only waypoints enforce, where a way leads past them.
func (x *Explainer) unenforced(t *target, a *Answer) {
	past := slices.ContainsFunc(a.Ways, func(w Way) bool { return w.path.Waypoint == nil })
	if t.service == nil || !past {
		return
	}
	waypoint, _, _ := x.w.WaypointOf(t.service)
	names := x.points.attached(keyOf(t.service), waypoint)
	if len(names) == 0 {
		return
	}
	note := "nobody enforces what has targetRefs"
	if len(a.Ways) > 1 {
		note += ", on a way that leads past the waypoint"
	}
	a.Notes = append(a.Notes, note+": "+strings.Join(names, ", "))
}

// sends is what a client sends to, and why.
func (x *Explainer) sends(c *client, t *target, a *Answer) (plan.Destination, string) {
	switch {
	case t.service == nil && c.view != nil:
		a.Notes = append(a.Notes, fmt.Sprintf("%s sends to Services; this is what would be if it sent to the pod", c.node.Name))
		return plan.ToPods, "a pod's own address is asked for"
	case t.service == nil:
		return plan.ToPods, "a pod's own address is asked for"
	case c.view != nil:
		key := keyOf(t.service)
		for i := range c.view.Backends {
			if b := &c.view.Backends[i]; b.Key == key {
				return b.Sends, b.Why
			}
		}
		a.Notes = append(a.Notes, fmt.Sprintf("no route of %s leads to %s: this is what would be if one did", c.node.Name, t.name))
		if x.sending[c.view] == nil {
			x.sending[c.view] = plan.Sender(x.w.Snapshot, c.view)
		}
		b := x.sending[c.view](key)
		return b.Sends, b.Why
	case t.service.Spec.Type == corev1.ServiceTypeExternalName:
		return plan.ToUnknown, "the Service is a name for something else"
	case t.service.Spec.ClusterIP == corev1.ClusterIPNone:
		return plan.ToPods, "the Service is headless: its name is its pods' addresses"
	}
	return plan.ToService, "clients send to the Service's address"
}

// leadsOf are the waypoints that a sender may come to on its way to a group.
func (x *Explainer) leadsOf(s *sender, t *target, g *group) []lead {
	switch {
	case !s.inside:
		return []lead{{}}
	case s.to == plan.ToService:
		return x.leads(t.service)
	}
	leads := x.podLeads(g)
	if s.native && leads[0].via { // ztunnel does so; of others it is not known
		return x.doubtful(leads[0].waypoint, leads[0].why, "whether it takes the waypoint of a pod that it sends to is not known")
	}
	return leads
}

// way is one way, with its decisions.
func (x *Explainer) way(c *client, s *sender, t *target, g *group, l lead, q *Question) Way {
	down := s.native && l.blocked != "" // ztunnel refuses then; of others it is not known
	if down {
		l.doubt, l.blocked = join("; ", l.doubt, l.blocked+", and whether others than ztunnel go past it is not known"), ""
	}
	w := Way{Client: s.who, Doubt: join("; ", s.doubt, l.doubt), Share: l.share, Why: slices.Clone(s.why), blocked: l.blocked, pods: len(g.pods), request: q.Request}
	if l.why != "" && s.inside {
		w.Why = append(w.Why, l.why)
	}
	r := &w.request
	r.Source = policy.Absent[spiffeid.ID]()
	if s.inside {
		r.Source, w.sources = policy.Of(s.ids...), s.ids
	}
	if !r.SourceIP.Known() {
		r.SourceIP = policy.Of(s.ips...)
	}
	x.destination(r, t, g, s.to == plan.ToService)
	if g.standing != outside && g.standing != sidecar && !g.elsewhere {
		w.path.Workload = x.points.ztunnel(g.namespace, g.labels)
	}
	if l.via {
		service := types.NamespacedName{}
		if s.to == plan.ToService {
			service = keyOf(t.service)
		}
		w.path.Waypoint = x.points.waypoint(l.waypoint, service)
		pods := x.waypointPods(l.waypoint)
		w.path.WaypointIP = policy.Of(addresses(pods)...)
		w.waypointIDs = x.waypointIDs(l.waypoint)
		w.path.WaypointSource = policy.Of(w.waypointIDs...)
	}
	answer := w.path.Decide(r)
	w.Verdict = answer.Verdict
	x.hops(&w, c, s, t, g, l, &answer)
	x.unsure(&w, g, &answer)
	w.targets = targetsOf(s, t, g)
	switch {
	case w.blocked != "":
		w.Verdict = policy.Deny
	case down && w.Verdict == policy.Allow:
		w.Verdict = policy.Depends
	}
	return w
}

// unsure takes back what nobody looks at: a sidecar decides for itself, and of addresses outside nothing is known.
func (x *Explainer) unsure(w *Way, g *group, a *policy.Answer) {
	last := &w.Hops[len(w.Hops)-1]
	switch {
	case g.standing == sidecar || g.elsewhere:
		last.Enforcer, last.Said = EnforcerSidecar, "what a sidecar decides, which is not looked at"
		if g.elsewhere {
			last.Enforcer, last.Said = EnforcerUnknown, "what stands there, which is no pod of this cluster"
		}
		last.Decision = policy.Decision{Verdict: policy.Depends, Reason: policy.Undecided, Rule: -1, On: policy.OnUnreadable}
	case g.standing == unclear:
		if last.Said = "if the pod is in the mesh, which is not in the files"; a.Workload.Verdict == policy.Allow {
			return
		}
	default:
		return
	}
	if !a.ByWaypoint || a.Waypoint.Verdict != policy.Deny {
		w.Verdict = policy.Depends
	}
}

// destination fills in what is addressed.
func (x *Explainer) destination(r *policy.Request, t *target, g *group, byService bool) {
	if g.port != 0 {
		r.WorkloadPort = policy.Of(g.port)
	}
	ips := addresses(g.pods)
	r.WorkloadIP = policy.Of(ips...)
	if !byService {
		// A waypoint for workloads sees a pod's address as what is addressed.
		r.ServicePort, r.ServiceIP = r.WorkloadPort, r.WorkloadIP
		return
	}
	r.ServicePort = policy.Of(t.number)
	if t.number == 0 {
		r.ServicePort = policy.Values[uint16]{}
	}
	r.ServiceIP = policy.Of(vips(t.service)...)
	if r.Protocol = protocol(t.port); !r.Protocol.Known() && (r.Method.Known() || r.Path.Known() || r.Host.Known()) {
		r.Protocol = policy.Of(policy.HTTP) // a waypoint finds out, and what is asked for is HTTP
	}
}

// waypointIDs are who a waypoint is: its pods tell, and before there are any, its name.
func (x *Explainer) waypointIDs(key types.NamespacedName) []spiffeid.ID {
	ids := x.ids(x.waypointPods(key))
	if len(ids) == 0 {
		if id, err := x.id(key.Namespace, key.Name); err == nil {
			ids = append(ids, id)
		}
	}
	return ids
}

// targetsOf are the addresses that are dialled on a way.
func targetsOf(s *sender, t *target, g *group) (list []string) {
	if s.to == plan.ToService && t.service != nil && t.number != 0 {
		return []string{fmt.Sprintf("%s.%s.svc.cluster.local:%d", t.service.Name, t.service.Namespace, t.number)}
	}
	for _, p := range g.pods {
		if a, err := netip.ParseAddr(p.Status.PodIP); err == nil && g.port != 0 {
			list = append(list, netip.AddrPortFrom(a, g.port).String())
		}
	}
	return list
}

func join(sep string, parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), sep)
}

func texts(ids []spiffeid.ID) (list []string) {
	for _, id := range ids {
		list = append(list, id.String())
	}
	slices.SortFunc(list, cmp.Compare[string])
	return list
}
