package explain

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// Width is how wide a drawing is, in columns, where nobody says less; a word that is longer stays whole.
const Width = 100

// Role is what a part of a drawing says, for who paints it.
type Role int

// The roles.
const (
	RolePlain Role = iota
	RoleTitle
	RoleAllow
	RoleDeny
	RoleDepends
	RoleFaint
)

// Paint dresses up a text in its role.
type Paint func(Role, string) string

// Draw writes an answer for people: each way from its client down to the pods. It is at most width columns wide; zero, and more than Width, mean Width. A nil
// paint leaves the texts as they are.
func Draw(out io.Writer, a *Answer, width int, paint Paint) error {
	d := newDrawing(width, paint)
	d.line("", role(a.Verdict), "", a.Title())
	for i := range a.Ways {
		d.text.WriteByte('\n')
		d.way(a, i)
	}
	if len(a.Notes) > 0 {
		d.text.WriteByte('\n')
	}
	for _, n := range a.Notes {
		d.line("note: ", RoleFaint, "      ", n)
	}
	_, err := io.WriteString(out, d.text.String())
	return err
}

// Title is the answer in a line.
func (a *Answer) Title() string {
	s := fmt.Sprintf("%s -> %s: %v", a.From, a.To, a.Verdict)
	if a.On != "" {
		s += ", on " + a.On
	}
	return s
}

func role(v policy.Verdict) Role {
	switch v {
	case policy.Allow:
		return RoleAllow
	case policy.Deny:
		return RoleDeny
	}
	return RoleDepends
}

type drawing struct {
	text  strings.Builder
	width int
	paint Paint
}

func newDrawing(width int, paint Paint) *drawing {
	if paint == nil {
		paint = func(_ Role, text string) string { return text }
	}
	if width <= 0 || width > Width {
		width = Width
	}
	return &drawing{width: width, paint: paint}
}

// line writes a text after head, and what does not fit below it after next.
func (d *drawing) line(head string, r Role, next, text string) {
	for _, l := range wrap(text, d.width-max(utf8.RuneCountInString(head), utf8.RuneCountInString(next))) {
		d.text.WriteString(head + d.paint(r, l) + "\n")
		head = next
	}
}

func (d *drawing) way(a *Answer, i int) {
	w := &a.Ways[i]
	if len(a.Ways) > 1 || w.Doubt != "" {
		title := fmt.Sprintf("way %d of %d: %v", i+1, len(a.Ways), w.Verdict)
		if w.Client != "" {
			title += ", for " + w.Client
		}
		if w.Share > 0 {
			title += fmt.Sprintf(", %d %% of the connections", w.Share)
		}
		d.line("", role(w.Verdict), "", title)
		if w.Doubt != "" {
			d.line("  perhaps: ", RoleDepends, "           ", w.Doubt)
		}
	}
	from := true
	for j := range w.Hops {
		h := &w.Hops[j]
		if h.Before && i > 0 {
			continue // it is the same on every way
		}
		if from {
			d.node(h.From)
			from = false
		}
		d.line("  |   ", RolePlain, "  |   ", h.carried())
		if len(h.Seen) > 0 || h.Unseen {
			d.line("  |   seen as  ", RolePlain, "  |            ", h.seen())
			d.line("  |   expects  ", RolePlain, "  |            ", h.expected())
		}
		d.node(h.To)
		bar := "  |   "
		if j == len(w.Hops)-1 {
			bar = "      "
		}
		for k, text := range h.decided() {
			r := RolePlain
			if k == 0 && h.Enforcer != EnforcerNone {
				r = role(h.verdict())
			}
			d.line(bar, r, bar+"  ", text)
		}
	}
	for j, why := range w.Why {
		head := "  why "
		if j > 0 {
			head = "      "
		}
		d.line(head, RoleFaint, "      ", why)
	}
}

func (d *drawing) node(n Node) {
	text := n.Name
	if n.Detail != "" {
		text += " (" + n.Detail + ")"
	}
	d.line("  o   ", RoleTitle, "  |   ", text)
}

// carried says what carries a hop.
func (h *Hop) carried() string {
	switch h.Transport {
	case TransportAny:
		return "from outside, without an identity of the mesh"
	case TransportPlaintext:
		return "plaintext, without an identity"
	case TransportNative:
		return "HBONE (mTLS), spoken by " + string(h.From.Kind) + " itself"
	}
	return "HBONE (mTLS), by the client's ztunnel"
}

func (h *Hop) seen() string {
	if h.Unseen {
		return "an identity that is not known here"
	}
	return strings.Join(h.Seen, " or ")
}

func (h *Hop) expected() string {
	if len(h.Expected) == 0 {
		return "an identity that is not known here"
	}
	return strings.Join(h.Expected, " or ")
}

// verdict is that of the decision, unless nothing gets there.
func (h *Hop) verdict() policy.Verdict {
	if h.Enforcer == EnforcerWaypoint && h.Said != "" {
		return policy.Deny
	}
	return h.Decision.Verdict
}

// decided says what happens at the end of a hop.
func (h *Hop) decided() (lines []string) {
	by := map[Enforcer]string{
		EnforcerZtunnel: "ztunnel", EnforcerWaypoint: "waypoint", EnforcerItself: "the pod itself, as a ztunnel would", EnforcerSidecar: "its sidecar",
		EnforcerUnknown: "the far end",
	}
	switch {
	case h.Enforcer == EnforcerNone && h.Said == "":
		return []string{"nobody enforces anything"}
	case h.Enforcer == EnforcerNone:
		return []string{h.Said}
	case h.Enforcer == EnforcerWaypoint && h.Said != "":
		return []string{"deny: " + h.Said}
	}
	first := fmt.Sprintf("%v by %s", h.Decision.Verdict, by[h.Enforcer])
	if h.Decision.Verdict == policy.Depends {
		first = fmt.Sprintf("depends on %s, at %s", h.On(), by[h.Enforcer])
	} else {
		first += ": " + h.Decision.Reason.String()
	}
	lines = append(lines, first)
	if p := where(h.Decision); p != "" {
		lines = append(lines, p)
	}
	if h.Said != "" && !strings.Contains(first, h.Said) {
		lines = append(lines, h.Said)
	}
	return lines
}

// where is the place in a policy that decides: policy, rule, field. Empty: none does.
func where(d policy.Decision) string {
	switch {
	case d.Policy.IsZero():
		return ""
	case d.Field != "":
		return d.Policy.String() + " " + d.Field
	case d.Rule >= 0:
		return fmt.Sprintf("%v rules[%d]", d.Policy, d.Rule)
	}
	return d.Policy.String()
}

// wrap breaks text at blanks into lines of at most width runes.
func wrap(text string, width int) (lines []string) {
	line := ""
	for _, word := range strings.Fields(text) {
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) <= width:
			line += " " + word
		default:
			lines = append(lines, line)
			line = word
		}
	}
	return slices.Clip(append(lines, line))
}
