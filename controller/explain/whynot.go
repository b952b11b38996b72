package explain

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// Changes is the smallest change that would let what is denied through.
type Changes struct {
	// Texts say it, all of them together. None: nothing is denied.
	Texts []string
	// Cautions say whom else it would let through.
	Cautions []string
	// Patches of policies that do it, as far as policies do.
	Patches []Patch
}

// WhyNot names the smallest change that would let requests through on all ways on which they are denied. An Answer is one of this Explainer's.
func (x *Explainer) WhyNot(a *Answer) Changes {
	var all Changes
	p := policy.NewPatcher(x.points.policy)
	say := func(text string) {
		if !slices.Contains(all.Texts, text) {
			all.Texts = append(all.Texts, text)
		}
	}
	for i := range a.Ways {
		w := &a.Ways[i]
		if w.Verdict != policy.Deny {
			continue
		}
		if w.blocked != "" {
			say("have a ready pod for the waypoint: " + w.blocked)
		}
		if text := w.caution(); text != "" && !slices.Contains(all.Cautions, text) {
			all.Cautions = append(all.Cautions, text)
		}
		for _, c := range w.changes(a.portAsked) {
			if c.Careful != "" && !slices.Contains(all.Cautions, c.Careful) {
				all.Cautions = append(all.Cautions, c.Careful)
			}
			switch text := c.String(); {
			case c.Policy.IsZero() && a.gateway != "":
				say(fmt.Sprintf("%s; isthmus observe %s shows the steps", text, a.gateway))
			default:
				say(text)
			}
			p.Add(c)
		}
	}
	all.Patches = patchesOf(p)
	return all
}

// changes are those that let each of the way's sources pass its points.
func (w *Way) changes(portAsked bool) (all []policy.Change) {
	answer := w.path.Decide(&w.request)
	r, sources := w.request, w.sources
	r.PortAsked = portAsked
	if answer.ByWaypoint && answer.Waypoint.Verdict != policy.Allow {
		all = append(all, whyNot(w.path.Waypoint, r, sources)...)
	}
	if w.path.Workload == nil || answer.Workload.Verdict == policy.Allow {
		return all
	}
	if answer.ByWaypoint {
		// Which requests get there the waypoint says, not the pods.
		r.PortAsked, r.Method, r.Path, r.Host = false, policy.Values[string]{}, policy.Values[string]{}, policy.Values[string]{}
		r.Source, r.SourceIP, sources = w.path.WaypointSource, w.path.WaypointIP, w.waypointIDs
	}
	pods := whyNot(w.path.Workload, r, sources)
	for i := range pods {
		if answer.ByWaypoint {
			pods[i].Careful = ""
		}
	}
	return append(all, pods...)
}

// caution says that who admits a waypoint at pods admits all who pass it.
func (w *Way) caution() string {
	answer := w.path.Decide(&w.request)
	if !answer.ByWaypoint || w.path.Waypoint.DefaultDeny() || w.path.Workload == nil || answer.Workload.Verdict == policy.Allow {
		return ""
	}
	return "the pods see the waypoint, whoever calls: with it, everybody is let through whom the waypoint lets through, and no ALLOW policy there says whom. " +
		"Name the callers there first, in a policy with targetRefs"
}

// whyNot asks a point for each source by itself.
func whyNot(p *policy.Point, r policy.Request, sources []spiffeid.ID) (all []policy.Change) {
	if len(sources) == 0 {
		return p.WhyNot(&r)
	}
	for _, id := range sources {
		r.Source = policy.Of(id)
		all = append(all, p.WhyNot(&r)...)
	}
	return all
}

// DrawChanges writes changes for people. A nil paint leaves the texts as they are.
func DrawChanges(out io.Writer, c Changes, width int, paint Paint) error {
	d := newDrawing(width, paint)
	d.text.WriteByte('\n')
	if len(c.Texts) == 0 {
		d.line("", RolePlain, "", "why not: nothing is denied for sure, so there is nothing to change")
	} else {
		d.line("", RoleTitle, "", "why not: this would allow it")
	}
	for i, text := range c.Texts {
		d.line(fmt.Sprintf("  %d. ", i+1), RolePlain, "     ", text)
	}
	for _, text := range c.Cautions {
		d.line("  careful: ", RoleDepends, "     ", text)
	}
	for _, p := range c.Patches {
		for line := range strings.Lines(p.Text) {
			d.text.WriteString("     " + line)
		}
	}
	_, err := io.WriteString(out, d.text.String())
	return err
}
