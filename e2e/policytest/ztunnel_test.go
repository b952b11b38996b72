package policytest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	securityapi "istio.io/api/security/v1beta1"
	typev1beta1 "istio.io/api/type/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/controller/policy"
	"github.com/isthmus-mesh/isthmus/controller/policy/policytest"
	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/e2e/mesh/meshtest"
	"github.com/isthmus-mesh/isthmus/hbone/authz"
	"github.com/isthmus-mesh/isthmus/hbone/wds"
)

// words are for both kinds of conditions: those that ztunnel does not know must come out as istiod leaves them out.
var words = policytest.Words{
	Principals: []string{"cluster.local/ns/one/sa/x", "cluster.local/ns/two/sa/x", "old.example/ns/one/sa/x", "*/sa/x", "cluster.local/ns/one/*", "*", "spiffe://cluster.local/ns/one/sa/x"},
	Namespaces: []string{"one", "two", "o*", "*", "*wo", "t*o"},
	Accounts:   []string{"one/x", "x", "two/x", "one/y"},
	Domains:    []string{"cluster.local", "old.example"},
	Blocks:     []string{"10.0.0.0/24", "10.0.0.1", "2001:db8::/32", "10.0.0.0/8", "10.244.90.0/25"},
	Ports:      []string{"80", "81", "8080"},
	Methods:    []string{"GET"},
	Paths:      []string{"/a", "/b*"},
	Hosts:      []string{"h"},
	Texts:      []string{"v"},
	Keys: []string{"source.ip", "source.namespace", "source.principal", "destination.ip", "destination.port", "source.ip", "source.namespace", "destination.port", "remote.ip",
		"request.headers[h]", "request.auth.claims[g]", "source.serviceAccount", "source.trustDomain", "connection.sni"},
	Often: 5,
}

// workload is one that istiod knows and that policies are for.
type workload struct {
	policy.Workload
	ip   netip.Addr
	asks *wds.Authorizer
}

// istiod is a mesh with workloads in two namespaces, and with the policies of the moment.
type istiod struct {
	*testing.T
	m         *mesh.Mesh
	workloads []workload
	token     func(context.Context) (string, error)
	client    *wds.Client
	mark      *wds.Authorizer // it waits for policies that are listed
	round     int
}

const (
	root     = "istio-system"
	markPod  = "10.244.91.1"
	entryFor = `
{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: %s, namespace: %s, labels: {%s}, annotations: {ambient.istio.io/redirection: enabled}}, spec: {address: %s, serviceAccount: x, labels: {%[3]s}}}
`
)

func newIstiod(t *testing.T) *istiod {
	m := meshtest.New(t, mesh.Options{Quick: true, MeshConfig: "rootNamespace: istio-system\ndefaultConfig: {proxyMetadata: {ISTIO_META_ENABLE_HBONE: \"true\"}}\ntrustDomainAliases: [old.example]\n"})
	s := &istiod{T: t, m: m}
	apply := func(yaml string) {
		t.Helper()
		if err := m.Apply(t.Context(), yaml); err != nil {
			t.Fatal(err)
		}
	}
	for _, ns := range []string{"one", "two", "mark"} {
		apply("{apiVersion: v1, kind: Namespace, metadata: {name: " + ns + ", labels: {istio.io/dataplane-mode: ambient}}}")
	}
	s.token = token(t, m, "one", "gateway")
	s.client = s.connect()
	for i, w := range []policy.Workload{
		{Namespace: "one", Labels: map[string]string{"app": "a", "tier": "front"}}, {Namespace: "one", Labels: map[string]string{"app": "b", "tier": "back"}},
		{Namespace: "two", Labels: map[string]string{"app": "a", "tier": "back"}}, {Namespace: "two", Labels: map[string]string{"app": "c"}},
	} {
		ip := netip.AddrFrom4([4]byte{10, 244, 90, byte(1 + 100*i%256)})
		var labels []string
		for k, v := range w.Labels {
			labels = append(labels, k+": "+v)
		}
		apply(fmt.Sprintf(entryFor, fmt.Sprintf("w%d", i), w.Namespace, strings.Join(labels, ", "), ip))
		s.workloads = append(s.workloads, workload{w, ip, lenient(s.client, ip)})
	}
	apply(fmt.Sprintf(entryFor, "mark", "mark", "app: mark", markPod))
	s.mark = s.client.Authorizer(netip.MustParseAddr(markPod))
	return s
}

// connect makes a client of istiod's.
func (s *istiod) connect() *wds.Client {
	s.Helper()
	c, err := wds.New(wds.Config{
		Addresses: []string{s.m.Istiod.XDS.String()}, Roots: func() ([]byte, error) { return s.m.RootPEM, nil }, Token: s.token, Policies: true,
		Node: wds.Node{IP: netip.MustParseAddr("10.244.9.9"), Pod: "gateway-1", Namespace: "one", ServiceAccount: "gateway"},
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return s.m.NS.DialContext(ctx, network, address)
		},
	})
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { c.Close() })
	return c
}

// lenient decides as ztunnel does, also without policies that are listed and not there.
func lenient(c *wds.Client, ip netip.Addr) *wds.Authorizer {
	a := c.Authorizer(ip)
	a.Lenient = true
	return a
}

// objects are policies in the order in which they were made.
type objects struct {
	mesh  policy.Mesh
	there []client.Object
}

// make makes policies of one round; those that the API refuses are left out.
func (s *istiod) make(rng *rand.Rand) (o objects) {
	o.mesh = policy.Mesh{TrustDomainAliases: []string{"old.example"}}
	places := []string{"one", "two", root}
	selector := func() *typev1beta1.WorkloadSelector {
		return &typev1beta1.WorkloadSelector{MatchLabels: policytest.Pick(rng, []map[string]string{{"app": "a"}, {"app": "b"}, {"tier": "back"}, {"app": "a", "tier": "back"}, {}})}
	}
	for i := range 3 + rng.IntN(8) {
		p := &securityv1.AuthorizationPolicy{}
		p.Namespace, p.Name = policytest.Pick(rng, places), fmt.Sprintf("p%d", i)
		p.Spec.Action = policytest.Pick(rng, []securityapi.AuthorizationPolicy_Action{
			securityapi.AuthorizationPolicy_ALLOW, securityapi.AuthorizationPolicy_ALLOW, securityapi.AuthorizationPolicy_DENY, securityapi.AuthorizationPolicy_DENY, securityapi.AuthorizationPolicy_AUDIT,
		})
		for range rng.IntN(4) {
			p.Spec.Rules = append(p.Spec.Rules, words.Rule(rng))
		}
		switch rng.IntN(8) {
		case 0, 1, 2:
			p.Spec.Selector = selector()
		case 3:
			p.Spec.TargetRefs = []*typev1beta1.PolicyTargetReference{{Kind: "Service", Name: "a"}}
		case 4:
			p.Annotations = map[string]string{"istio.io/dry-run": policytest.Pick(rng, []string{"true", "false", "yes"})}
		}
		if s.create(p) {
			o.mesh.AuthorizationPolicies, o.there = append(o.mesh.AuthorizationPolicies, p), append(o.there, p)
		}
	}
	modes := []securityapi.PeerAuthentication_MutualTLS_Mode{0, 1, 2, 3}
	mtls := func() *securityapi.PeerAuthentication_MutualTLS {
		return &securityapi.PeerAuthentication_MutualTLS{Mode: policytest.Pick(rng, modes)}
	}
	// One a level: which of two is older takes seconds to show.
	for _, ns := range places {
		for _, own := range []bool{false, true} {
			if rng.IntN(3) != 0 {
				continue
			}
			p := &securityv1.PeerAuthentication{}
			p.Namespace, p.Name = ns, "wide"
			p.Spec.Mtls = mtls()
			if own {
				p.Name, p.Spec.Selector = "own", &typev1beta1.WorkloadSelector{MatchLabels: map[string]string{"app": policytest.Pick(rng, []string{"a", "b", "c"})}}
				p.Spec.PortLevelMtls = map[uint32]*securityapi.PeerAuthentication_MutualTLS{}
				for range rng.IntN(3) {
					p.Spec.PortLevelMtls[uint32(policytest.Pick(rng, []int{80, 81, 8080}))] = mtls()
				}
			}
			if s.create(p) {
				o.mesh.PeerAuthentications, o.there = append(o.mesh.PeerAuthentications, p), append(o.there, p)
			}
		}
	}
	return o
}

func (s *istiod) create(o client.Object) bool {
	err := s.m.Client().Create(s.Context(), o)
	if err != nil {
		s.Logf("left out: %v", err)
	}
	return err == nil
}

func (s *istiod) remove(list []client.Object) {
	s.Helper()
	for _, o := range list {
		if err := s.m.Client().Delete(s.Context(), o); err != nil {
			s.Fatal(err)
		}
	}
}

// settled waits until istiod has told of all AuthorizationPolicies that were made before: of one that is made now, and that a workload lists.
func (s *istiod) settled() {
	s.Helper()
	s.round++
	name := fmt.Sprintf("mark-%d", s.round)
	mark := "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: " + name + ", namespace: mark}, spec: {selector: {matchLabels: {app: mark}}, action: ALLOW, rules: [{}]}}"
	if err := s.m.Apply(s.Context(), mark); err != nil {
		s.Fatal(err)
	}
	ip := netip.MustParseAddr(markPod)
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		w, err := s.client.Workload(s.Context(), ip)
		if err != nil || !slices.Contains(w.Policies, "mark/"+name) {
			continue
		}
		if d := s.mark.Decide(s.Context(), authz.Conn{Dest: netip.AddrPortFrom(ip, 80)}); !d.Missing {
			if err := s.m.Delete(s.Context(), mark); err != nil {
				s.Fatal(err)
			}
			return
		}
	}
	s.Fatal("istiod does not tell of a policy")
}

// question is a connection.
type question struct {
	w    int
	conn authz.Conn
}

func (s *istiod) question(rng *rand.Rand) question {
	q := question{w: rng.IntN(len(s.workloads))}
	if id := policytest.Pick(rng, []string{"", "cluster.local/ns/one/sa/x", "cluster.local/ns/one/sa/y", "cluster.local/ns/two/sa/x", "old.example/ns/one/sa/x", "cluster.local/ns/three/sa/x"}); id != "" {
		q.conn.Source = spiffeid.RequireFromString("spiffe://" + id)
	}
	q.conn.SourceAddr = netip.MustParseAddr(policytest.Pick(rng, []string{"10.0.0.1", "10.0.0.2", "10.9.0.1", "192.0.2.1", "2001:db8::7"}))
	q.conn.Dest = netip.AddrPortFrom(s.workloads[q.w].ip, policytest.Pick(rng, []uint16{80, 81, 8080, 9090}))
	return q
}

func (q *question) request() policy.Request {
	r := policy.Request{Source: policy.Absent[spiffeid.ID](), SourceIP: policy.Of(q.conn.SourceAddr), WorkloadIP: policy.Of(q.conn.Dest.Addr()), WorkloadPort: policy.Of(q.conn.Dest.Port())}
	if !q.conn.Source.IsZero() {
		r.Source = policy.Of(q.conn.Source)
	}
	return r
}

// differs finds a question on which they do not agree.
func (s *istiod) differs(o policy.Mesh, questions []question) (q question, why string, allowed, unsure int) {
	set := policy.New(o)
	points := make([]*policy.Point, len(s.workloads))
	for i, w := range s.workloads {
		points[i] = set.Ztunnel(w.Workload)
	}
	for _, q := range questions {
		r := q.request()
		ours, theirs := points[q.w].Decide(&r), s.workloads[q.w].asks.Decide(s.Context(), q.conn)
		if ours.Verdict == policy.Depends && ours.On == policy.OnUnreadable {
			unsure++ // what istiod makes of PeerAuthentications that came in one second depends on their order
			continue
		}
		if ours.Verdict == policy.Depends || (ours.Verdict == policy.Allow) != theirs.Allow || theirs.Missing {
			return q, fmt.Sprintf("%v says the evaluator, %+v say istiod's policies, for %+v at %+v", ours, theirs, q.conn, s.workloads[q.w].Workload), 0, 0
		}
		if theirs.Allow {
			allowed++
		}
	}
	return question{}, "", allowed, unsure
}

// agree waits a moment for agreement: PeerAuthentications may come later than what settled waits for.
func (s *istiod) agree(o policy.Mesh, questions []question) (q question, why string, allowed, unsure int) {
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if q, why, allowed, unsure = s.differs(o, questions); why == "" {
			break
		}
	}
	return q, why, allowed, unsure
}

// The evaluator at ztunnel decides as the policies do that istiod sends.
func TestAtZtunnelAsIstiodHasIt(t *testing.T) {
	s := newIstiod(t)
	rng := rand.New(rand.NewPCG(*seed, 1))
	asked, allowed, unsure := 0, 0, 0
	for round := range *rounds {
		o := s.make(rng)
		s.settled()
		questions := make([]question, 2500)
		for i := range questions {
			questions[i] = s.question(rng)
		}
		q, why, yes, perhaps := s.agree(o.mesh, questions)
		if why != "" {
			s.smallest(o, q, why, round)
			return
		}
		asked, allowed, unsure = asked+len(questions), allowed+yes, unsure+perhaps
		s.remove(o.there)
	}
	t.Logf("%d questions, %d allowed, %d depend on the order of PeerAuthentications, in %d sets of policies", asked, allowed, unsure, *rounds)
	if allowed < asked/10 || allowed > asked*9/10 || unsure > asked/10 {
		t.Errorf("%d of %d are allowed: the cases are too much alike", allowed, asked)
	}
}

// smallest takes policies away as long as they do not agree, and shows what is left.
func (s *istiod) smallest(o objects, q question, why string, round int) {
	ip, fresh := s.workloads[q.w].ip, s.connect()
	why += fmt.Sprintf("\na new client says %+v", lenient(fresh, ip).Decide(s.Context(), q.conn))
	for name, c := range map[string]*wds.Client{"the old one": s.client, "the new one": fresh} {
		if w, err := c.Workload(s.Context(), ip); err == nil {
			why += fmt.Sprintf("\n%s has it list %v; without leniency: %+v", name, w.Policies, c.Authorizer(ip).Decide(s.Context(), q.conn))
		}
	}
	first := why
	for _, one := range slices.Clone(o.there) {
		without := o.mesh
		without.AuthorizationPolicies = slices.DeleteFunc(slices.Clone(o.mesh.AuthorizationPolicies), func(p *securityv1.AuthorizationPolicy) bool { return client.Object(p) == one })
		without.PeerAuthentications = slices.DeleteFunc(slices.Clone(o.mesh.PeerAuthentications), func(p *securityv1.PeerAuthentication) bool { return client.Object(p) == one })
		s.remove([]client.Object{one})
		s.settled()
		if _, still, _, _ := s.agree(without, []question{q}); still != "" {
			o.mesh = without
			continue
		}
		one.SetResourceVersion("")
		s.create(one)
		s.settled()
	}
	var left []string
	for _, p := range o.mesh.AuthorizationPolicies {
		p.ManagedFields = nil
		b, _ := yaml.Marshal(p)
		left = append(left, string(b))
	}
	for _, p := range o.mesh.PeerAuthentications {
		p.ManagedFields = nil
		b, _ := yaml.Marshal(p)
		left = append(left, string(b))
	}
	s.Errorf("seed %d, round %d: %s\n%s", *seed, round, first, strings.Join(left, "---\n"))
}
