package check

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/edge/rules"
	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// portOf is the port of a Service that a backend names, and the names that rules have for it. Zero: there is none.
func portOf(s *corev1.Service, backend map[string]any) (number int32, names []string) {
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		if p.Name != "" && backend["portName"] == p.Name || numberIs(backend["port"], p.Port) {
			return p.Port, append([]string{strconv.Itoa(int(p.Port))}, p.Name)
		}
	}
	return 0, nil
}

func numberIs(v any, n int32) bool {
	switch v := v.(type) {
	case int64:
		return v == int64(n)
	case float64:
		return v == float64(n)
	}
	return false
}

// mesh is what stands at the waypoint of the Service that a trip leads to, or nil where there is none or it reads no requests.
func (t *trip) mesh(w *World) *meshSide {
	s := w.edgeWorld().mesh.side(t.service)
	if s == nil || !plan.SpeaksHTTP(s.service, t.port) {
		return nil
	}
	return s
}

// leads says whether requests come by the waypoint; why says what they do instead, or that nobody knows.
func (t *trip) leads(w *World) (is rules.Answer, why string) {
	v := t.edge.View
	m := w.edgeWorld().mesh.side(t.service)
	i := slices.IndexFunc(v.Backends, func(b plan.ViewBackend) bool { return b.Key == t.service })
	needs := slices.IndexFunc(v.Vendor.Needs, func(n edge.Setting) bool { return n.Env != "" && n.Default != n.Want })
	switch {
	case m == nil || i < 0:
		return rules.No, "it leads to no waypoint"
	case v.Backends[i].Sends == plan.ToPods:
		return rules.No, "now " + v.String() + " sends past the waypoint, as " + v.Backends[i].Why
	case v.Backends[i].Sends == plan.ToUnknown:
		return rules.Unsure, "where " + v.String() + " sends is not known"
	case slices.ContainsFunc(v.Findings, func(f v1alpha1.Finding) bool { return f.Code == v1alpha1.FindingSwitchIdle }):
		return rules.Unsure, "whether its switch does anything is not seen"
	case w.Paper && needs >= 0:
		return rules.Unsure, fmt.Sprintf("whether its controller has %s=%s is not seen", v.Vendor.Needs[needs].Env, v.Vendor.Needs[needs].Want)
	case !m.there:
		return rules.Unsure, "whether its waypoint is in force is not seen"
	}
	switch w.inside(v) {
	case rules.No:
		return rules.No, "now " + v.String() + " is outside the mesh, and sends past the waypoint"
	case rules.Unsure:
		return rules.Unsure, "whether " + v.String() + " is in the mesh is not seen"
	}
	return rules.Yes, ""
}

// inside says whether the mesh carries what a gateway sends. Of files the labels tell.
func (w *World) inside(v *plan.View) rules.Answer {
	switch {
	case v.Captured() || v.Vendor.Native == edge.NativeAlways:
		return rules.Yes
	case !w.Paper && len(v.Pods) > 0:
		return rules.No
	case !w.Paper:
		return rules.Unsure
	}
	if len(v.Pods) > 0 && !slices.ContainsFunc(v.Pods, func(p *plan.Pod) bool { return !w.InMesh(p) }) {
		return rules.Yes
	}
	if v.Object == nil {
		return rules.Unsure
	}
	mode := ""
	if i := v.Object.Spec.Infrastructure; i != nil {
		mode = string(i.Labels[plan.LabelDataplaneMode])
	}
	if ns := w.Namespace(v.Key.Namespace); mode == "" && ns != nil && !v.Vendor.Proxies.Anywhere && !v.Vendor.Proxies.Shared {
		mode = ns.Labels[plan.LabelDataplaneMode]
	}
	switch {
	case mode == "ambient":
		return rules.Yes
	case mode == "none" && v.Vendor.Native == edge.NativeNever:
		return rules.No
	}
	return rules.Unsure
}

// identities are those of a gateway. Where its pods are not seen there are all that the policies of the Service tell apart: what holds for each of them
// holds for the gateway.
func (t *trip) identities(w *World, m *meshSide) []spiffeid.ID {
	var ids []spiffeid.ID
	for _, s := range t.edge.View.Identities {
		if id, err := spiffeid.FromString(s); err == nil {
			ids = append(ids, id)
		}
	}
	if len(ids) > 0 {
		return ids
	}
	return m.callers(w.domain())
}

// requests are what a trip takes to its Service: for each match a class of requests, as the edge passes it on. A path or host that is left open is one
// of which policies tell nothing apart, or is unknown.
func (t *trip) requests(w *World, m *meshSide, before ...stage) []policy.Request {
	var list []policy.Request
	base := policy.Request{
		Source: policy.Of(t.identities(w, m)...), Protocol: policy.Of(policy.HTTP), ServicePort: policy.Of(uint16(t.port)),
		Host: t.host(m, slices.Contains(before, hostBefore)),
	}
	for _, match := range t.matches {
		r := base
		if match.method != "" {
			r.Method = policy.Of(match.method)
		}
		r.Path = t.path(m, match.paths, slices.Contains(before, pathBefore))
		list = append(list, r)
	}
	return list
}

// stage says that something is taken as it was before the edge rewrote it.
type stage int

const (
	hostBefore stage = iota
	pathBefore
)

func (t *trip) host(m *meshSide, before bool) policy.Values[string] {
	if list := t.hostRewrites(); len(list) > 0 && !before {
		switch w := list[0].Rewrite; {
		case len(list) > 1: // in which order they come is not told
			return policy.Values[string]{}
		case w.BackendHost:
			return policy.Of(serviceNames(t)...)
		default:
			return policy.Of(w.Host)
		}
	}
	var hosts []string
	for _, h := range t.hosts {
		c := hostClass(h)
		if slices.ContainsFunc(m.hosts(), func(p string) bool { return !c.alike(strings.ToLower(p)) }) {
			return policy.Values[string]{}
		}
		hosts = append(hosts, c.sample())
	}
	return policy.Of(hosts...)
}

func (t *trip) path(m *meshSide, c textClass, before bool) policy.Values[string] {
	if list := t.pathRewrites(); len(list) > 1 && !before {
		return policy.Values[string]{}
	} else if len(list) > 0 && !before {
		c = pathAfter(c, list[0].Rewrite)
	}
	if c.kind == anyText || slices.ContainsFunc(m.paths(), func(p string) bool { return !c.alike(p) }) {
		return policy.Values[string]{}
	}
	return policy.Of(c.sample())
}

// pathAfter is what becomes of paths.
func pathAfter(c textClass, w *rules.Rewrite) textClass {
	switch {
	case w.Pattern || len(w.StripPrefixes) > 0 || w.AddPrefix != "":
		return textClass{}
	case w.Path != nil:
		return textClass{kind: oneText, text: *w.Path}
	case w.Prefix != nil && c.kind == segments:
		return textClass{kind: segments, text: strings.TrimSuffix(*w.Prefix, "/")}
	case w.Prefix != nil:
		return textClass{}
	}
	return c
}

// hostRewrites and pathRewrites are the rules that change hosts, and paths.
func (t *trip) hostRewrites() []*rules.Rule {
	return t.having(func(r *rules.Rule) bool { return r.Rewrite != nil && (r.Rewrite.Host != "" || r.Rewrite.BackendHost) })
}

func (t *trip) pathRewrites() []*rules.Rule {
	return t.having(func(r *rules.Rule) bool {
		w := r.Rewrite
		return w != nil && (w.Path != nil || w.Prefix != nil || w.Pattern || len(w.StripPrefixes) > 0 || w.AddPrefix != "")
	})
}

// having are the rules in force that something holds for.
func (t *trip) having(is func(*rules.Rule) bool) []*rules.Rule {
	var list []*rules.Rule
	for _, r := range t.rules {
		if is(r) {
			list = append(list, r)
		}
	}
	return list
}

// serviceNames are the names and addresses by which a proxy may call a Service.
func serviceNames(t *trip) []string {
	name, ns := t.service.Name, t.service.Namespace
	return []string{name, name + "." + ns, name + "." + ns + ".svc", name + "." + ns + ".svc.cluster.local"}
}

// where names the place of a trip, for messages: HTTPRoute shop/shop rules[0] of Gateway gw/http.
func (t *trip) where() string {
	s := t.route.String() + " " + t.section
	if t.listener != "" {
		s += " by listener " + t.listener
	}
	return s
}
