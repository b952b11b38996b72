package route

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/hbone"
)

// truth is a file of testdata: what is there in all its cases, and the cases.
type truth struct {
	World world
	Cases []truthCase
}

type world struct {
	Services  []yamlService
	Workloads []yamlWorkload
}

// truthCase is one dial and all that may come of it.
type truthCase struct {
	Name string
	Rule string // that it stands for
	Dial string
	Key  string // of affinity
	From struct {
		Namespace, Network, IP, Domain string
		Ingress, FailOpen, Passthrough bool
		OnDemand                       bool
	}
	With    world    // besides
	Without []string // of the world: namespace/name
	Unknown bool     // istiod has not answered for what is not there
	Want    []string // any order; each line is a way, "error: part of it" or "asks: name"
}

// yamlService is a Service; Name is namespace/name. Ports are "80:8080", or "80" where workloads have targets of their own. Gateways are
// "namespace/name:port", "10.0.0.1:port" or "network/10.0.0.1:port".
type yamlService struct {
	Name, Host, Waypoint string
	VIPs, Ranges, Ports  []string
	SANs                 []string
	Weighted             []string // gateway and weight
	Prefer               []Scope
	Families             Families
	Strict, Unhealthy, Passthrough,
	Ingress, Canonical, Private bool
}

// yamlWorkload is a workload of the tunnel HBONE; Name is namespace/name.
type yamlWorkload struct {
	Name, SA, TD, Network, Gateway, Waypoint string
	IPs                                      []string
	Of                                       []string // namespace/name of Services, with ports of its own: "shop/cart 81:9081"
	At                                       string   // region/zone/subzone/node/cluster
	Tunnel                                   *Tunnel
	Capacity                                 uint32
	Unhealthy, HostNetwork, AnyPort          bool
}

func splitName(name string) (ns, short string) {
	ns, short, _ = strings.Cut(name, "/")
	return ns, short
}

func hostOf(name string) string {
	ns, short := splitName(name)
	return short + "." + ns + ".svc.cluster.local"
}

func port(text string) uint16 {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		panic(err)
	}
	return uint16(n)
}

func ports(list []string) (out []Port) {
	for _, p := range list {
		service, target, own := strings.Cut(p, ":")
		q := Port{Service: port(service)}
		if own {
			q.Target = port(target)
		}
		out = append(out, q)
	}
	return out
}

func netAddr(text string) NetAddr {
	network, ip, ok := strings.Cut(text, "/")
	if !ok {
		network, ip = "", text
	}
	return NetAddr{network, netip.MustParseAddr(strings.Trim(ip, "[]"))}
}

func gateway(text string) *Gateway {
	if text == "" {
		return nil
	}
	at := strings.LastIndex(text, ":")
	g := &Gateway{Port: port(text[at+1:])}
	ns, short := splitName(text[:at])
	if _, err := netip.ParseAddr(strings.Trim(short, "[]")); err == nil || short == "" {
		g.Addr = netAddr(text[:at])
	} else {
		g.Host = Host{ns, hostOf(text[:at])}
	}
	return g
}

func (y *yamlService) service() *Service {
	s := &Service{
		Ports: ports(y.Ports), SANs: y.SANs, Prefer: y.Prefer, Families: y.Families, Strict: y.Strict, AllowUnhealthy: y.Unhealthy,
		Passthrough: y.Passthrough, IngressUseWaypoint: y.Ingress, Canonical: y.Canonical, Private: y.Private, Waypoint: gateway(y.Waypoint),
	}
	s.Namespace, s.Name = splitName(y.Name)
	if s.Hostname = y.Host; s.Hostname == "" {
		s.Hostname = hostOf(y.Name)
	}
	for _, v := range y.VIPs {
		s.Addresses = append(s.Addresses, netAddr(v))
	}
	for _, r := range y.Ranges {
		s.Ranges = append(s.Ranges, NetPrefix{Prefix: netip.MustParsePrefix(r)})
	}
	for _, w := range y.Weighted {
		ref, weight, _ := strings.Cut(w, " ")
		n, err := strconv.ParseUint(weight, 10, 32)
		if err != nil {
			panic(err)
		}
		s.Weighted = append(s.Weighted, Weighted{*gateway(ref), uint32(n)})
	}
	return s
}

func (y *yamlWorkload) workload() *Workload {
	w := &Workload{
		UID: "Kubernetes//Pod/" + y.Name, ServiceAccount: y.SA, TrustDomain: y.TD, Network: y.Network, Tunnel: TunnelHBONE, Capacity: y.Capacity,
		Unhealthy: y.Unhealthy, HostNetwork: y.HostNetwork, AnyPort: y.AnyPort, Waypoint: gateway(y.Waypoint), NetworkGateway: gateway(y.Gateway),
	}
	w.Namespace, w.Name = splitName(y.Name)
	if y.Tunnel != nil {
		w.Tunnel = *y.Tunnel
	}
	for _, ip := range y.IPs {
		w.Addresses = append(w.Addresses, netip.MustParseAddr(ip))
	}
	if at := strings.Split(y.At, "/"); len(at) == 5 {
		w.Locality = Locality{at[0], at[1], at[2], at[3], at[4]}
	}
	for _, of := range y.Of {
		fields := strings.Fields(of)
		ns, host := splitName(fields[0])
		if !strings.Contains(host, ".") {
			host = hostOf(fields[0])
		}
		w.Services = append(w.Services, Member{Host{ns, host}.Key(), ports(fields[1:])})
	}
	return w
}

func (w *world) into(t *Table) {
	for i := range w.Services {
		t.SetService(w.Services[i].service())
	}
	for i := range w.Workloads {
		t.SetWorkload(w.Workloads[i].workload())
	}
}

// line is a route as the files have it.
func line(r hbone.Route) string {
	if len(r.Hops) == 0 {
		return "direct " + r.Direct.String()
	}
	var hops []string
	for _, h := range r.Hops {
		var ids []string
		for _, id := range h.Peers {
			ids = append(ids, strings.TrimPrefix(id.String(), "spiffe://"))
		}
		text := fmt.Sprintf("%s %s at %s for %s as %s", h.Kind, h.Name, h.Addr, h.Authority, strings.Join(ids, " or "))
		for _, f := range h.Header {
			text += " with " + f.Name + "=" + f.Value
		}
		hops = append(hops, text)
	}
	return strings.Join(hops, " > ")
}

// outcomes is all that comes of a dial.
func (c *truthCase) outcomes(m *Table) []string {
	src := Source{
		Namespace: c.From.Namespace, Network: c.From.Network, Domain: c.From.Domain, Ingress: c.From.Ingress, FailOpen: c.From.FailOpen,
		Passthrough: c.From.Passthrough, OnDemand: c.From.OnDemand,
	}
	if c.From.IP != "" {
		src.IP = netip.MustParseAddr(c.From.IP)
	}
	found := map[string]bool{}
	w, err := m.Ways(src, c.Dial, func(string) bool { return !c.Unknown })
	for range 300 {
		var r hbone.Route
		if w != nil {
			r, err = w.Pick(c.Key)
		}
		final, isFinal := errors.AsType[*Error](err)
		if missing, ok := errors.AsType[*MissingError](err); ok {
			for _, name := range missing.Names {
				found["asks: "+name] = true
			}
		} else if isFinal {
			found["error: "+final.Why] = true
		} else if err != nil {
			found["of another kind: "+err.Error()] = true
		} else {
			found[line(r)] = true
		}
	}
	var list []string
	for o := range found {
		list = append(list, o)
	}
	slices.Sort(list)
	return list
}

// matches compares what came with what was wanted; of an error a part is enough.
func matches(got, want []string) bool {
	if len(got) != len(want) {
		return false
	}
	for _, w := range want {
		part, isError := strings.CutPrefix(w, "error: ")
		if !slices.ContainsFunc(got, func(g string) bool {
			return g == w || isError && strings.HasPrefix(g, "error: ") && strings.Contains(g, part)
		}) {
			return false
		}
	}
	return true
}

func readTruth(t *testing.T, file string) (all truth) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(b, &all); err != nil {
		t.Fatal(file, err)
	}
	return all
}

// What ztunnel's rules say, case by case.
func TestTruth(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	common := readTruth(t, "testdata/world.yaml").World
	total := 0
	for _, file := range files {
		all := readTruth(t, file)
		total += len(all.Cases)
		for _, c := range all.Cases {
			t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml")+"/"+c.Name, func(t *testing.T) {
				if c.Rule == "" || len(c.Want) == 0 {
					t.Fatal("it names no rule, or wants nothing")
				}
				m := NewTable()
				common.into(m)
				all.World.into(m)
				c.With.into(m)
				for _, name := range c.Without {
					ns, _ := splitName(name)
					m.Remove(Host{ns, hostOf(name)}.Key())
					m.Remove("Kubernetes//Pod/" + name)
				}
				if got := c.outcomes(m.Snapshot()); !matches(got, c.Want) {
					t.Errorf("%s\nrule: %s\ngot\n  %s\nwant\n  %s", c.Dial, c.Rule, strings.Join(got, "\n  "), strings.Join(c.Want, "\n  "))
				}
			})
		}
	}
	if total < 120 {
		t.Errorf("only %d cases are there", total)
	}
}
