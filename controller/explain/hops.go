package explain

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// hops draws what a way leads through.
func (x *Explainer) hops(w *Way, c *client, s *sender, t *target, g *group, l lead, a *policy.Answer) {
	from := c.node
	last := Hop{From: from, To: podsNode(t, g), Transport: TransportPlaintext, Enforcer: EnforcerNone, Decision: a.Workload}
	carries := TransportHBONE
	if s.native {
		carries = TransportNative
	}
	seen := texts(s.ids)
	if l.via {
		gw := x.w.Gateway(l.waypoint)
		at := Node{Kind: NodeWaypoint, Name: "waypoint " + l.waypoint.String(), Detail: waypointDetail(gw)}
		w.Hops = append(w.Hops, Hop{
			From: from, To: at, Transport: carries, Expected: texts(x.waypointIDs(l.waypoint)), Seen: seen, Unseen: len(seen) == 0, Enforcer: EnforcerWaypoint,
			Decision: a.Waypoint, Said: l.blocked,
		})
		last.From, carries, seen = at, TransportNative, texts(x.waypointIDs(l.waypoint))
	}
	switch g.standing {
	case inMesh, late, unclear:
		last.Enforcer = EnforcerZtunnel
	case native:
		last.Enforcer = EnforcerItself
	case outside, sidecar:
	}
	if s.inside && last.Enforcer != EnforcerNone {
		last.Transport, last.Expected, last.Seen, last.Unseen = carries, texts(x.ids(g.pods)), seen, len(seen) == 0
	}
	if last.Enforcer == EnforcerNone {
		last.Said = "the pods are outside the mesh: nobody enforces anything"
	}
	w.Hops = append(w.Hops, last)
}

func podsNode(t *target, g *group) Node {
	n := Node{Kind: NodePods, Name: t.name}
	if t.service == nil {
		return n
	}
	n.Name = "pods of " + t.name
	switch {
	case g.elsewhere:
		n.Name = "what " + t.name + " stands for"
	case len(g.pods) == 0:
		n.Detail = "none now"
	case len(g.pods) < len(t.pods):
		n.Detail = fmt.Sprintf("%d of %d: %s", len(g.pods), len(t.pods), some(g.pods))
	default:
		n.Detail = fmt.Sprint(len(g.pods))
	}
	return n
}

// some names a few pods.
func some(pods []*plan.Pod) string {
	const most = 3
	var names []string
	for _, p := range pods[:min(len(pods), most)] {
		names = append(names, p.Name)
	}
	if more := len(pods) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(names, ", ")
}

// before is the hop of clients outside the mesh to a gateway, with what ztunnel decides there.
func (x *Explainer) before(c *client) Hop {
	h := Hop{From: Node{Kind: NodeOutside, Name: "clients outside the mesh"}, To: c.node, Transport: TransportAny, Enforcer: EnforcerNone, Before: true}
	points := map[policy.Decision]bool{}
	carried, open := 0, 0
	for _, p := range c.pods {
		if x.standing(p) != inMesh {
			continue
		}
		if carried++; p.Annotations[plan.AnnotationBypassInbound] == "true" {
			open++
			continue
		}
		h.Decision = x.points.ztunnel(p.Namespace, p.Labels).Decide(&policy.Request{Source: policy.Absent[spiffeid.ID]()})
		points[h.Decision] = true
	}
	switch {
	case len(c.pods) == 0:
		h.Said = "it has no pods here"
	case carried == 0:
		h.Said = "no ztunnel carries what comes in"
	case carried == open:
		h.Said = "ztunnel does not carry what comes in (annotation " + plan.AnnotationBypassInbound + ")"
	case len(points) > 1 || carried < len(c.pods) || open > 0:
		h.Enforcer, h.Said = EnforcerZtunnel, "which of its pods is reached"
		if h.Decision.Verdict != policy.Allow {
			h.Decision.Verdict, h.Decision.Reason, h.Decision.On = policy.Depends, policy.Undecided, policy.OnUnreadable
		}
	default:
		h.Enforcer = EnforcerZtunnel
	}
	return h
}

// merge puts ways together that differ in pods alone: under other policies, but decided in the same way.
func merge(ways []Way) (merged []Way) {
	total := map[string]int{}
	at := map[string]int{}
	for _, w := range ways {
		last := w.Hops[len(w.Hops)-1]
		key := fmt.Sprintf("%s %d %s %v %s %v %v %v", w.Doubt, w.Share, w.Why, w.Verdict, last.From.Name, last.Transport, last.Enforcer, last.Said)
		for _, h := range w.Hops {
			key += "\n" + h.Decision.String()
		}
		total[last.From.Name] += w.pods
		i, there := at[key]
		if !there {
			at[key] = len(merged)
			merged = append(merged, w)
			continue
		}
		m := &merged[i]
		m.pods += w.pods
		m.targets = addNew(m.targets, w.targets)
		to := &m.Hops[len(m.Hops)-1]
		to.Expected = append(to.Expected, last.Expected...)
		slices.Sort(to.Expected)
		to.Expected = slices.Compact(to.Expected)
		to.To.Detail = fmt.Sprint(m.pods)
	}
	for i := range merged {
		to := &merged[i].Hops[len(merged[i].Hops)-1]
		if to.To.Detail == fmt.Sprint(merged[i].pods) && merged[i].pods < total[to.From.Name] {
			to.To.Detail = fmt.Sprintf("%d of %d", merged[i].pods, total[to.From.Name])
		}
	}
	return merged
}

// sum makes one verdict of all ways.
func (a *Answer) sum() {
	var on []string
	verdicts := map[policy.Verdict]bool{}
	byClient, byDoubt, byPod := map[string]map[policy.Verdict]bool{}, false, false
	for i := range a.Ways {
		w := &a.Ways[i]
		verdicts[w.Verdict] = true
		if w.Verdict == policy.Depends {
			for _, h := range w.Hops {
				if !h.Before && h.Decision.Verdict == policy.Depends {
					on = h.addOn(on)
				}
			}
		}
		if byClient[w.Client] == nil {
			byClient[w.Client] = map[policy.Verdict]bool{}
		}
		byClient[w.Client][w.Verdict] = true
		byDoubt = byDoubt || w.Doubt != ""
	}
	a.Verdict = policy.Depends
	if len(verdicts) == 1 {
		for v := range verdicts {
			a.Verdict = v
		}
		if a.Verdict != policy.Depends {
			return
		}
	}
	for _, of := range byClient {
		byPod = byPod || len(of) > 1 && !byDoubt
	}
	if len(verdicts) > 1 {
		switch {
		case byDoubt:
			on = append(on, "which way it takes")
		case byShare(a.Ways):
			on = append(on, "which of two waypoints it takes, by their weights")
		case byPod:
			on = append(on, "which pod answers")
		default:
			on = append(on, "which pod sends")
		}
	}
	a.On = strings.Join(on, ", ")
}
