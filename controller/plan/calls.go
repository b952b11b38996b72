package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	securityapi "istio.io/api/security/v1beta1"
	corev1 "k8s.io/api/core/v1"
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
