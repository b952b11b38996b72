package programmed

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Service is one that is looked for.
type Service struct {
	Namespace, Name string
	// Addresses are its own, IPs. None: it is headless.
	Addresses []string
	// Pods are the IPs of those that it selects.
	Pods []string
}

// Sends says where a gateway sends to for a Service.
type Sends string

// The answers.
const (
	Unclear   Sends = "unclear"   // Way.Why says why
	Nothing   Sends = "nothing"   // it has an upstream for it that leads nowhere, or none
	ToAddress Sends = "address"   // to the Service's own address, which leads through its waypoint
	ToName    Sends = "name"      // to its DNS name, which is resolved to that
	ToPods    Sends = "pods"      // to pods of it, past its waypoint
	Mixed     Sends = "mixed"     // to its address for a part, and to pods or others for the rest
	Elsewhere Sends = "elsewhere" // to addresses that are neither
)

// Way is where one proxy sends to for a Service.
type Way struct {
	Sends Sends
	// Why tells more: of Unclear always, of the others where there is something to tell.
	Why string
	// Upstreams are the names of those that are for it, and To where they lead, as host:port, each once and in order. There are MaxTold of each at most.
	Upstreams, To []string
}

// MaxTold is how many names and addresses a Way has.
const MaxTold = 8

// Names knows the upstreams of a Service by their names: a text with {namespace}, {name} and {port}, and with * for anything. Empty: names tell nothing, and
// addresses have to.
type Names string

// pattern is n as a regular expression, whose groups are named.
func (n Names) pattern() (*regexp.Regexp, error) {
	text := regexp.QuoteMeta(string(n))
	for _, r := range [][2]string{
		{`\{namespace\}`, `(?P<namespace>[a-z0-9-]+)`}, {`\{name\}`, `(?P<name>[a-z0-9-]+)`}, {`\{port\}`, `[0-9]+`}, {`\*`, `.*`},
	} {
		text = strings.ReplaceAll(text, r[0], r[1])
	}
	p, err := regexp.Compile("^" + text + "$")
	if err == nil && (p.SubexpIndex("namespace") < 0 || p.SubexpIndex("name") < 0) {
		err = fmt.Errorf("%q does not tell a Service by {namespace} and {name}", n)
	}
	return p, err
}

// Ways says where a proxy sends to for each Service, in their order. By addresses alone, Services are told apart by pods that no other of them has: let those
// that may share pods be among them.
func (p *Proxy) Ways(names Names, services []Service) ([]Way, error) {
	of, err := p.whose(names, services)
	if err != nil {
		return nil, err
	}
	shared := map[string][]int{} // Services by the addresses of their pods
	for i := range services {
		for _, ip := range services[i].Pods {
			shared[plain(ip)] = append(shared[plain(ip)], i)
		}
	}
	ways := make([]Way, len(services))
	for i := range services {
		ways[i] = services[i].way(of[i])
		if ways[i].Sends != Nothing || len(of[i]) > 0 || names != "" {
			continue
		}
		for _, ip := range services[i].Pods {
			if with := shared[plain(ip)]; len(with) > 1 {
				other := &services[with[(slices.Index(with, i)+1)%len(with)]]
				ways[i] = Way{Sends: Unclear, Why: fmt.Sprintf("nothing leads to its address, and its pods are those of Service %s/%s too: the gateway's own names do not tell whom it sends to them for", other.Namespace, other.Name)}
				break
			}
		}
	}
	return ways, nil
}

// whose are the upstreams of each Service.
func (p *Proxy) whose(names Names, services []Service) ([][]*Upstream, error) {
	of := make([][]*Upstream, len(services))
	if names != "" {
		pattern, err := names.pattern()
		if err != nil {
			return nil, err
		}
		at := map[[2]string]int{}
		for i := range services {
			at[[2]string{services[i].Namespace, services[i].Name}] = i
		}
		for i := range p.Upstreams {
			m := pattern.FindStringSubmatch(p.Upstreams[i].Name)
			if m == nil {
				continue
			}
			if j, is := at[[2]string{m[pattern.SubexpIndex("namespace")], m[pattern.SubexpIndex("name")]}]; is {
				of[j] = append(of[j], &p.Upstreams[i])
			}
		}
		return of, nil
	}
	owner := map[string]int{} // of an address or a name; -1: more than one has it
	own := func(key string, i int) {
		if is, taken := owner[key]; taken && is != i {
			i = -1
		}
		owner[key] = i
	}
	for i := range services {
		for _, ip := range slices.Concat(services[i].Addresses, services[i].Pods) {
			own(plain(ip), i)
		}
	}
	for i := range p.Upstreams { // which may be for several Services: to each what is its own
		parts := map[int]*Upstream{}
		for _, a := range p.Upstreams[i].To {
			j, is := owner[plain(a.Host)]
			if !is {
				j, is = named(a.Host, services)
			}
			if !is || j < 0 {
				continue
			}
			if parts[j] == nil {
				parts[j] = &Upstream{Name: p.Upstreams[i].Name}
				of[j] = append(of[j], parts[j])
			}
			parts[j].To = append(parts[j].To, a)
		}
	}
	return of, nil
}

// named is the Service that a DNS name is of.
func named(host string, services []Service) (int, bool) {
	i := slices.IndexFunc(services, func(s Service) bool { return s.isName(host) })
	return i, i >= 0
}

// isName says whether host is its DNS name: with .svc behind it at least, or its namespace.
func (s *Service) isName(host string) bool {
	own := s.Name + "." + s.Namespace
	return host == own || host == own+".svc" || strings.HasPrefix(host, own+".svc.")
}

// plain is an IP address in the one form that is compared, or a text as it is.
func plain(ip string) string {
	if a, err := netip.ParseAddr(ip); err == nil {
		return a.Unmap().String()
	}
	return ip
}

// way judges the upstreams of a Service.
func (s *Service) way(of []*Upstream) Way {
	w := Way{Sends: Nothing}
	has := func(list []string, ip string) bool {
		return slices.ContainsFunc(list, func(o string) bool { return plain(o) == plain(ip) })
	}
	kinds := map[Sends]bool{}
	for _, u := range of {
		w.Upstreams = append(w.Upstreams, u.Name)
		for _, a := range u.To {
			text := net.JoinHostPort(a.Host, strconv.Itoa(a.Port))
			if a.Via != "" && a.Via != text {
				text += " via " + a.Via
			}
			w.To = append(w.To, text)
			switch {
			case has(s.Addresses, a.Host):
				kinds[ToAddress] = true
			case has(s.Pods, a.Host):
				kinds[ToPods] = true
			case s.isName(a.Host):
				kinds[ToName] = true
			default:
				kinds[Elsewhere] = true
			}
		}
	}
	w.Upstreams, w.To = told(w.Upstreams), told(w.To)
	switch {
	case len(of) == 0:
		w.Why = "it has nothing for it"
	case len(kinds) == 0:
		w.Why = "what it has for it leads nowhere"
	case (kinds[ToAddress] || kinds[ToName]) && (kinds[ToPods] || kinds[Elsewhere]):
		w.Sends = Mixed
	default:
		for _, k := range []Sends{ToAddress, ToName, ToPods, Elsewhere} {
			if kinds[k] {
				w.Sends = k
				break
			}
		}
	}
	return w
}

// told is a list for people: in order, each once, MaxTold at most.
func told(list []string) []string {
	slices.SortFunc(list, func(a, b string) int { return cmp.Compare(a, b) })
	list = slices.Compact(list)
	return slices.Clip(list[:min(len(list), MaxTold)])
}

// Together are the ways of several proxies as those of one, by service: they differ where proxies that are gone, or have not taken the newest yet, are told of.
func Together(all [][]Way) []Way {
	ways := slices.Clone(all[0])
	for _, more := range all[1:] {
		for i := range more {
			w := &ways[i]
			if w.Sends != more[i].Sends {
				w.Sends, w.Why = Mixed, ""
			}
			w.Upstreams, w.To = told(slices.Concat(w.Upstreams, more[i].Upstreams)), told(slices.Concat(w.To, more[i].To))
		}
	}
	return ways
}
