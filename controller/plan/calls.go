package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	securityapi "istio.io/api/security/v1beta1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// calls are what a gateway's routes call of a Service, as its waypoint sees that.
type calls struct {
	list []calling
	// rest is what the routes say and no policy can: it is left open.
	rest []unsaid
	// why it is not known what they call. Empty: it is.
	why string
	// awaits is a route that may call it yet, or no more: nobody knows until the gateway has said so. Empty: there is none.
	awaits string
}

// calling is a class of requests to one port of a Service, or to all.
type calling struct {
	port   string   // empty: all
	hosts  []string // none: any
	method string   // empty: any
	paths  []string // none: any
}

// unsaid is a part of a route that a policy cannot say.
type unsaid struct {
	route, field, what string
	whole              bool // of that rule nothing is said but the port
}

// maxCalls is how many classes of requests to one Service are told apart. Beyond these what routes call is not known.
const maxCalls = 256

// callsOf finds what the routes of a gateway that count call of a backend.
func (m *maker) callsOf(g *gateway, b *backend) *calls {
	c := &calls{}
	for _, f := range m.follow() {
		if f.gateway != g {
			continue
		}
		switch {
		case slices.Contains(f.hidden, b.key):
			c.why = fmt.Sprintf("%s leads there by a route of a namespace that does not consent", f)
		case f.why == "":
			m.calledBy(f, b, c)
		case !f.decided && slices.Contains(f.reach, b.key):
			c.awaits = f.String()
		}
	}
	if c.list = least(c.list); len(c.list) > maxCalls {
		c.list, c.why = nil, fmt.Sprintf("its routes tell %d classes of requests apart, and %d are looked at", len(c.list), maxCalls)
	}
	return c
}

// calledBy adds what one route calls of a backend.
func (m *maker) calledBy(f *followed, b *backend, c *calls) {
	hosts := hostsOf(f, c)
	for i, r := range rulesOf(f.route) {
		for j := range r.to {
			to := &r.to[j]
			if !isService(to.ref) || f.refers(to.ref) != b.key || b.key.Namespace != f.key.Namespace && !m.granted(f.kind, f.key.Namespace, b.key) {
				continue
			}
			at := fmt.Sprintf("spec.rules[%d]", i)
			port := ""
			if to.ref.Port != nil {
				port = strconv.Itoa(int(*to.ref.Port))
			}
			if r.raw { // bytes, of which nothing is seen
				c.list = append(c.list, calling{port: port})
				continue
			}
			if opaque(b.service, to.ref.Port) {
				c.rest = append(c.rest, unsaid{f.String(), at, "what a request is, as the Service's port is not of HTTP by its name or appProtocol, and the waypoint reads none there", true})
				c.list = append(c.list, calling{port: port})
				continue
			}
			w := rewriting{hosts: hosts}
			if to.copies {
				w.hosts = nil // the copy may have another
			}
			if what := w.apply(f, slices.Concat(r.filters, to.filters)); what != "" {
				c.rest = append(c.rest, unsaid{f.String(), at + ".filters", what, true})
				c.list = append(c.list, calling{port: port})
				continue
			}
			list := matchesOf(f, &r)
			for k := range list {
				field := fmt.Sprintf("%s.matches[%d]", at, k)
				if f.by != nil {
					field = at // they are another's
				}
				for _, what := range list[k].leaves {
					c.rest = append(c.rest, unsaid{f.String(), field, what, false})
				}
				paths, what := w.paths(&list[k])
				if what != "" {
					c.rest = append(c.rest, unsaid{f.String(), field, what, false})
				}
				c.list = append(c.list, calling{port, w.hosts, list[k].method, paths})
			}
		}
	}
}

// opaque says whether a port of a Service is said to speak what a waypoint does not read. Where none is said, it looks at what comes.
func opaque(s *corev1.Service, number *gatewayv1.PortNumber) bool {
	return slices.ContainsFunc(s.Spec.Ports, func(p corev1.ServicePort) bool {
		name, _, _ := strings.Cut(p.Name, "-")
		if p.AppProtocol != nil {
			name = *p.AppProtocol
		}
		return (number == nil || p.Port == *number) && slices.Contains([]string{"tcp", "tls", "https", "mongo", "mysql", "redis", "kubernetes.io/wss"}, strings.ToLower(name))
	})
}

// keepsHost names the gateways that are known to leave the Host of a request as the client has sent it.
var keepsHost = [...]string{"istio", "kgateway", "envoy-gateway"}

// hostsOf are the hosts that a waypoint sees of a route's requests: with a port, as clients may write it, and without. None: any.
func hostsOf(f *followed, c *calls) (list []string) {
	top := f
	for top.by != nil {
		top = top.by
	}
	names := hostnames(top.route)
	if len(names) == 0 {
		return nil
	}
	if !slices.Contains(keepsHost[:], f.gateway.vendor.Name) {
		c.rest = append(c.rest, unsaid{top.String(), "spec.hostnames", fmt.Sprintf("its hosts, as it is not known that %s leaves Host as it comes", f.gateway.vendor.Name), false})
		return nil
	}
	for _, name := range names {
		if strings.Contains(name, "*") { // which no policy has with a port behind it
			c.rest = append(c.rest, unsaid{top.String(), "spec.hostnames", "its hosts, as one begins with *", false})
			return nil
		}
		list = append(list, asHost(name)...)
	}
	return unique(list)
}

// asHost is a host as policies have it: without a port, and with any.
func asHost(name string) []string { return []string{name, name + ":*"} }

func hostnames(r *route) (names []string) {
	switch o := r.object.(type) {
	case *gatewayv1.HTTPRoute:
		for _, h := range o.Spec.Hostnames {
			names = append(names, string(h))
		}
	case *unstructured.Unstructured:
		list, _, err := unstructured.NestedStringSlice(o.Object, "spec", "hostnames")
		if err != nil {
			return []string{"*"} // what is not as it should be is not read
		}
		names = list
	}
	return names
}

// rule is one of a route, of any kind.
type rule struct {
	raw     bool // of connections
	matches []match
	filters []gatewayv1.HTTPRouteFilter
	to      []target
}

// target is where a rule sends to, or copies.
type target struct {
	ref     *gatewayv1.BackendObjectReference
	filters []gatewayv1.HTTPRouteFilter
	copies  bool
}

// match is what a rule asks of a request, as far as a policy can.
type match struct {
	method string // empty: any
	path   string // empty: any
	kind   gatewayv1.PathMatchType
	leaves []string // what it asks beside
}

// Kinds of paths of gRPC: all that is under one, or that ends with it.
const (
	underPath  gatewayv1.PathMatchType = "Under"
	suffixPath gatewayv1.PathMatchType = "Suffix"
)

// rulesOf are those of a route.
func rulesOf(r *route) (list []rule) {
	switch o := r.object.(type) {
	case *gatewayv1.HTTPRoute:
		for i := range o.Spec.Rules {
			is := &o.Spec.Rules[i]
			one := rule{filters: is.Filters}
			for j := range is.Matches {
				one.matches = append(one.matches, matchOf(&is.Matches[j]))
			}
			for j := range is.BackendRefs {
				one.to = append(one.to, target{&is.BackendRefs[j].BackendObjectReference, is.BackendRefs[j].Filters, false})
			}
			list = append(list, one.mirrored())
		}
	case *unstructured.Unstructured:
		is := &gatewayv1.GRPCRoute{} // the others have a part of that
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, is); err != nil {
			return nil // nor is it followed anywhere
		}
		for i := range is.Spec.Rules {
			of := &is.Spec.Rules[i]
			one := rule{raw: r.kind != "GRPCRoute", filters: asHTTP(of.Filters)}
			for j := range of.Matches {
				one.matches = append(one.matches, matchOfGRPC(&of.Matches[j]))
			}
			if len(one.matches) == 0 {
				one.matches = []match{{method: "POST", kind: gatewayv1.PathMatchPathPrefix}}
			}
			for j := range of.BackendRefs {
				one.to = append(one.to, target{&of.BackendRefs[j].BackendObjectReference, asHTTP(of.BackendRefs[j].Filters), false})
			}
			list = append(list, one.mirrored())
		}
	}
	return list
}

// mirrored adds the places that a rule's filters copy requests to.
func (r rule) mirrored() rule {
	add := func(filters []gatewayv1.HTTPRouteFilter) {
		for i := range filters {
			if to := filters[i].RequestMirror; to != nil {
				r.to = append(r.to, target{&to.BackendRef, nil, true})
			}
		}
	}
	add(r.filters)
	for _, to := range r.to[:len(r.to):len(r.to)] {
		add(to.filters)
	}
	return r
}

// asHTTP are filters of a GRPCRoute, as an HTTPRoute has them.
func asHTTP(filters []gatewayv1.GRPCRouteFilter) (list []gatewayv1.HTTPRouteFilter) {
	for i := range filters {
		f := &filters[i]
		list = append(list, gatewayv1.HTTPRouteFilter{Type: gatewayv1.HTTPRouteFilterType(f.Type), RequestHeaderModifier: f.RequestHeaderModifier, RequestMirror: f.RequestMirror})
	}
	return list
}

func matchOf(is *gatewayv1.HTTPRouteMatch) match {
	one := match{kind: gatewayv1.PathMatchPathPrefix}
	if is.Method != nil {
		one.method = string(*is.Method)
	}
	if p := is.Path; p != nil {
		if p.Type != nil {
			one.kind = *p.Type
		}
		if p.Value != nil {
			one.path = *p.Value
		}
	}
	if len(is.Headers) > 0 {
		one.leaves = append(one.leaves, "the headers that it asks for")
	}
	if len(is.QueryParams) > 0 {
		one.leaves = append(one.leaves, "the query that it asks for")
	}
	return one
}

func matchOfGRPC(is *gatewayv1.GRPCRouteMatch) match {
	one := match{method: "POST", kind: gatewayv1.PathMatchPathPrefix}
	if len(is.Headers) > 0 {
		one.leaves = append(one.leaves, "the headers that it asks for")
	}
	if is.Method == nil {
		return one
	}
	var service, name string
	if is.Method.Service != nil {
		service = *is.Method.Service
	}
	if is.Method.Method != nil {
		name = *is.Method.Method
	}
	switch {
	case is.Method.Type != nil && *is.Method.Type != gatewayv1.GRPCMethodMatchExact:
		one.kind = gatewayv1.PathMatchRegularExpression
	case service != "" && name != "":
		one.kind, one.path = gatewayv1.PathMatchExact, "/"+service+"/"+name
	case service != "":
		one.kind, one.path = underPath, "/"+service
	case name != "":
		one.kind, one.path = suffixPath, "/"+name
	}
	return one
}

// anything is what a rule without matches takes.
func anything() []match { return []match{{kind: gatewayv1.PathMatchPathPrefix}} }

// matchesOf are those of a rule. Of a route that another delegates to it is told what that one asks for before it does so, as it is the vendor's affair what
// the two make together, and nothing comes there that the first does not take.
func matchesOf(f *followed, r *rule) []match {
	if f.by == nil {
		if len(r.matches) == 0 {
			return anything()
		}
		return r.matches
	}
	top := f
	for top.by != nil {
		top = top.by
	}
	var list []match
	for _, r := range rulesOf(top.route) {
		if !slices.ContainsFunc(r.to, func(to target) bool {
			_, is := choice(top.gateway.vendor.Delegation, to.ref, top.key.Namespace)
			return is && !to.copies
		}) {
			continue
		}
		if len(r.matches) == 0 {
			return anything()
		}
		for _, one := range r.matches {
			list = append(list, match{path: one.path, kind: one.kind, leaves: []string{"what it is delegated for beyond the path of the first route"}})
		}
	}
	return list
}

// rewriting is what filters make of a request before the waypoint sees it.
type rewriting struct {
	hosts        []string // none: any
	full, prefix *string  // what the path becomes
}

// apply adds filters of a rule, and of those that delegate to its route. It says what of them cannot be said, so that the rule's port is all that is.
func (w *rewriting) apply(f *followed, filters []gatewayv1.HTTPRouteFilter) (what string) {
	for by := f.by; by != nil; by = by.by {
		for _, r := range rulesOf(by.route) {
			if slices.ContainsFunc(r.filters, rewrites) {
				return fmt.Sprintf("what filters of %s, which delegates to it, make of a request", by)
			}
		}
	}
	for i := range filters {
		is := &filters[i]
		switch {
		case !rewrites(*is):
		case is.URLRewrite != nil && f.by == nil:
			if h := is.URLRewrite.Hostname; h != nil {
				w.hosts = asHost(string(*h))
			}
			if p := is.URLRewrite.Path; p != nil {
				w.full, w.prefix = p.ReplaceFullPath, p.ReplacePrefixMatch
				if w.full == nil && w.prefix == nil {
					return "what its filter URLRewrite makes of a path"
				}
			}
		default:
			return fmt.Sprintf("what its filter %s makes of a request", is.Type)
		}
	}
	return ""
}

// rewrites says whether a filter may change what a waypoint sees of a request: its host, method or path.
func rewrites(f gatewayv1.HTTPRouteFilter) bool {
	switch f.Type {
	case gatewayv1.HTTPRouteFilterRequestMirror, gatewayv1.HTTPRouteFilterResponseHeaderModifier, gatewayv1.HTTPRouteFilterRequestRedirect, gatewayv1.HTTPRouteFilterCORS:
		return false // what is redirected goes nowhere
	case gatewayv1.HTTPRouteFilterRequestHeaderModifier:
		h := f.RequestHeaderModifier
		if h == nil {
			return true
		}
		special := func(name string) bool { return strings.EqualFold(name, "host") || strings.HasPrefix(name, ":") }
		return slices.ContainsFunc(slices.Concat(h.Set, h.Add), func(h gatewayv1.HTTPHeader) bool { return special(string(h.Name)) }) || slices.ContainsFunc(h.Remove, special)
	}
	return true
}

// Telling are the filters of a route by which a plan tells what waypoints see of its requests, where copies go, and which headers are written, with no more in them
// than that needs.
func Telling(filters []gatewayv1.HTTPRouteFilter) (list []gatewayv1.HTTPRouteFilter) {
	for i := range filters {
		f := &filters[i]
		switch {
		case f.RequestMirror != nil, f.URLRewrite != nil, f.RequestHeaderModifier != nil, f.ExtensionRef != nil, f.ExternalAuth != nil:
			list = append(list, *f)
		case rewrites(*f):
			list = append(list, gatewayv1.HTTPRouteFilter{Type: f.Type})
		}
	}
	return list
}

// paths are those of a match, as policies have them; none: any. what of it cannot be said, and is left open.
func (w *rewriting) paths(is *match) (list []string, what string) {
	path, kind := is.path, is.kind
	switch {
	case w.full != nil:
		path, kind = *w.full, gatewayv1.PathMatchExact
	case w.prefix != nil && path != "" && kind != gatewayv1.PathMatchPathPrefix:
		return nil, "what its filter URLRewrite makes of a path that is no prefix"
	case w.prefix != nil:
		path = cmp.Or(*w.prefix, "/")
	}
	switch {
	case path == "" && kind != gatewayv1.PathMatchRegularExpression:
		return nil, ""
	case kind == gatewayv1.PathMatchExact && plain(path):
		return []string{path}, ""
	case kind == underPath && plain(path):
		return []string{path + "/*"}, ""
	case kind == suffixPath && plain(path):
		return []string{"*" + path}, ""
	case kind == gatewayv1.PathMatchPathPrefix:
		bare := strings.TrimRight(path, "/")
		if bare == "" {
			return nil, ""
		}
		if plain(bare) {
			return []string{bare, bare + "/*"}, ""
		}
	case kind == gatewayv1.PathMatchRegularExpression:
		return nil, "its path, which is a regular expression"
	}
	return nil, fmt.Sprintf("its path %q, of which a policy may make another", path)
}

// plain says whether a path means in a policy what it means in a route: it has nothing that a policy reads as a pattern, and nothing that proxies write otherwise.
func plain(path string) bool {
	if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "*{}%?#\\;") || strings.Contains(path, "//") {
		return false
	}
	return !slices.ContainsFunc(strings.Split(path, "/"), func(part string) bool { return part == "." || part == ".." })
}

// least are calls in order, each once, without those that another has in it: of the same port, host and method with any path, or of the port alone. Those that
// differ in their paths are one.
func least(list []calling) (all []calling) {
	type class struct{ port, hosts, method string }
	of := func(c *calling) class { return class{c.port, strings.Join(c.hosts, ","), c.method} }
	by := map[class]*calling{}
	var order []class
	for i := range list {
		c := list[i]
		is, known := by[of(&c)]
		switch {
		case !known:
			c.paths = slices.Clone(c.paths)
			by[of(&c)] = &c
			order = append(order, of(&c))
		case len(c.paths) == 0:
			is.paths = nil
		case len(is.paths) > 0:
			is.paths = unique(append(is.paths, c.paths...))
		}
	}
	for _, key := range order {
		c := by[key]
		within := slices.ContainsFunc(order, func(o class) bool {
			x := by[o]
			return o != key && len(x.paths) == 0 && (x.port == "" || x.port == c.port) && (len(x.hosts) == 0 || o.hosts == key.hosts) && (x.method == "" || x.method == c.method)
		})
		if !within {
			all = append(all, *c)
		}
	}
	slices.SortFunc(all, func(a, b calling) int {
		return cmp.Or(cmp.Compare(a.port, b.port), cmp.Compare(strings.Join(a.hosts, ","), strings.Join(b.hosts, ",")), cmp.Compare(a.method, b.method))
	})
	return all
}

// operations are calls as a policy has them, to some ports of the Service.
func operations(list []calling, ports []string) (all []*securityapi.Rule_To) {
	for i := range list {
		c := &list[i]
		its := ports
		if c.port != "" {
			if its = nil; slices.Contains(ports, c.port) {
				its = []string{c.port}
			}
		}
		if len(its) == 0 {
			continue
		}
		op := &securityapi.Operation{Ports: its, Hosts: c.hosts, Paths: c.paths}
		if c.method != "" {
			op.Methods = []string{c.method}
		}
		all = append(all, &securityapi.Rule_To{Operation: op})
	}
	return all
}
