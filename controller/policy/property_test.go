package policy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	securityapi "istio.io/api/security/v1beta1"
	typev1beta1 "istio.io/api/type/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/isthmus-mesh/isthmus/controller/policy/policytest"
)

// The world that random policies and requests are made of. It is small, so that they meet.
var (
	words = policytest.Words{
		Principals: []string{"cluster.local/ns/a/sa/x", "cluster.local/ns/b/sa/x", "old.td/ns/a/sa/x", "*/sa/x", "cluster.local/ns/a/*", "*", "*a/sa/x", "x"},
		Namespaces: []string{"a", "b", "a*", "*", "*b"},
		Accounts:   []string{"a/x", "x", "b/x", "a/y"},
		Domains:    []string{"cluster.local", "old.td", "*"},
		Blocks:     []string{"10.0.0.0/24", "10.0.0.1", "2001:db8::/32", "10.0.0.0/8", "nonsense"},
		Ports:      []string{"80", "81", "8080", "http"},
		Methods:    []string{"GET", "*", "P*", "*T", "get"},
		Paths:      []string{"/a", "/a*", "*/b", "*", "/{*}", "/a/{**}", "/{*}/b", "/{**}", "/A"},
		Hosts:      []string{"h", "*", "*.h", "h*", "X.h"},
		Subjects:   []string{"i/s", "i/*", "*", "*/s", "i/t", "other/s", "i/s*"},
		Texts:      []string{"v", "*", "v*", "*w"},
		Keys: []string{keySourceIP, keyRemoteIP, keyNamespace, keyPrincipal, keyDestIP, keyDestPort, keySNI, keyRequestPrincipal, keyHeaders + "[h]", keyClaims + "[g]",
			keyClaims + "[scope]", keyClaims + "[n][m]", keyAccount, keyDomain, keyEnvoyFilter + "x[y]", "nonsense"},
	}
	someSources = []spiffeid.ID{
		id("cluster.local/ns/a/sa/x"), id("cluster.local/ns/a/sa/y"), id("cluster.local/ns/b/sa/x"), id("old.td/ns/a/sa/x"), id("cluster.local/odd/a/form"),
	}
	someAddrs   = []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.1.1"), netip.MustParseAddr("::ffff:10.0.0.1"), netip.MustParseAddr("2001:db8::1")}
	somePorts   = []uint16{80, 81, 8080}
	someMethods = []string{"GET", "POST", "get"}
	somePaths   = []string{"/", "/a", "/a/b", "//a", "/a/", "/a?b", "/x/../a", "/%61", "/a%2fb", "/a|b", "/A", "/a/b/c"}
	someHosts   = []string{"h", "H", "h:80", "x.h"}
	someHeaders = []Header{{""}, {"v"}, {"v,w"}, {"w"}, {"v", "w"}}
	someTokens  = []Token{
		{Claims: map[string]any{"iss": "i", "sub": "s"}}, {Claims: map[string]any{"iss": "i", "sub": "t", "g": []any{"v", "w"}}}, {Claims: map[string]any{"iss": "other", "sub": "s"}},
		{Claims: map[string]any{"iss": "i", "sub": "s"}, Bad: true}, {Claims: map[string]any{"iss": "i", "sub": "s", "g": "v", "scope": "v w", "n": map[string]any{"m": "v"}}},
	}
)

func randomMesh(rng *rand.Rand) Mesh {
	m := Mesh{TrustDomainAliases: []string{"old.td"}, PathNormalization: Normalization(rng.IntN(4)), Providers: []string{"p"}}
	for i := range 1 + rng.IntN(5) {
		p := &securityv1.AuthorizationPolicy{}
		p.Namespace, p.Name = "shop", fmt.Sprint(i)
		p.Spec.Action = policytest.Pick(rng, []securityapi.AuthorizationPolicy_Action{
			securityapi.AuthorizationPolicy_ALLOW, securityapi.AuthorizationPolicy_ALLOW, securityapi.AuthorizationPolicy_DENY, securityapi.AuthorizationPolicy_CUSTOM,
		})
		if p.Spec.Action == securityapi.AuthorizationPolicy_CUSTOM {
			p.Spec.ActionDetail = &securityapi.AuthorizationPolicy_Provider{Provider: &securityapi.AuthorizationPolicy_ExtensionProvider{Name: policytest.Pick(rng, []string{"p", "p", "q"})}}
		}
		for range rng.IntN(4) {
			p.Spec.Rules = append(p.Spec.Rules, words.Rule(rng))
		}
		m.AuthorizationPolicies = append(m.AuthorizationPolicies, p)
	}
	if rng.IntN(2) == 0 {
		p := &securityv1.RequestAuthentication{}
		p.Namespace, p.Name = "shop", "tokens"
		p.Spec.TargetRefs = []*typev1beta1.PolicyTargetReference{{Kind: KindService, Name: "orders"}}
		p.Spec.JwtRules = []*securityapi.JWTRule{{Issuer: "i"}}
		m.RequestAuthentications = append(m.RequestAuthentications, p)
	}
	if rng.IntN(3) == 0 {
		p := &securityv1.PeerAuthentication{}
		p.Namespace, p.Name = "shop", "peers"
		p.Spec.Mtls = &securityapi.PeerAuthentication_MutualTLS{Mode: securityapi.PeerAuthentication_MutualTLS_STRICT}
		m.PeerAuthentications = append(m.PeerAuthentications, p)
	}
	return m
}

// class is what is known of an attribute that may be one of list; one is one of what it may be. Absent is what is not there, if it may be.
func class[T any](rng *rand.Rand, list []T, absent bool) (v Values[T], one func() Values[T]) {
	mayBe := list
	switch rng.IntN(4) {
	case 0: // unknown
	case 1:
		mayBe = []T{policytest.Pick(rng, list), policytest.Pick(rng, list)}
		if v = Of(mayBe...); absent && rng.IntN(2) == 0 {
			v = v.OrAbsent()
		} else {
			absent = false
		}
	case 2:
		if absent {
			return Absent[T](), func() Values[T] { return Absent[T]() }
		}
		fallthrough
	default:
		mayBe = []T{policytest.Pick(rng, list)}
		v, absent = Of(mayBe...), false
	}
	return v, func() Values[T] {
		if absent && rng.IntN(4) == 0 {
			return Absent[T]()
		}
		return Of(policytest.Pick(rng, mayBe))
	}
}

// randomRequest is a class of requests, and one picks from it.
func randomRequest(rng *rand.Rand) (Request, func() Request) {
	var r Request
	source, ones := class(rng, someSources, true)
	sourceIP, oneIP := class(rng, someAddrs, false)
	destIP, oneDest := class(rng, someAddrs, false)
	port, onePort := class(rng, somePorts, false)
	protocol, oneProtocol := class(rng, []Protocol{HTTP, TCP}, false)
	method, oneMethod := class(rng, someMethods, false)
	path, onePath := class(rng, somePaths, false)
	host, oneHost := class(rng, someHosts, false)
	header, oneHeader := class(rng, someHeaders, true)
	remote, oneRemote := class(rng, someAddrs, true)
	token, oneToken := class(rng, someTokens, true)
	r = Request{Source: source, SourceIP: sourceIP, ServiceIP: destIP, WorkloadIP: destIP, ServicePort: port, WorkloadPort: port, Protocol: protocol, Method: method, Path: path, Host: host,
		Headers: map[string]Values[Header]{"h": header}, RemoteIP: remote, Token: token}
	return r, func() Request {
		dest, port := oneDest(), onePort()
		return Request{Source: ones(), SourceIP: oneIP(), ServiceIP: dest, WorkloadIP: dest, ServicePort: port, WorkloadPort: port, Protocol: oneProtocol(), Method: oneMethod(), Path: onePath(),
			Host: oneHost(), Headers: map[string]Values[Header]{"h": oneHeader()}, NoOtherHeaders: true, RemoteIP: oneRemote(), Token: oneToken()}
	}
}

// Allow and Deny hold for every request of a class, whatever is unknown of it. Depends of a class of one is only for what nobody can know.
func TestVerdictsHoldForEveryRequestOfAClass(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	seen := map[Verdict]int{}
	const rounds = 2_000
	for range rounds {
		m := randomMesh(rng)
		set := New(m)
		l4 := set.Ztunnel(Workload{Namespace: "shop"})
		l7 := New(toService(m)).Waypoint(shopWay, orders)
		path := Path{Waypoint: l7, WaypointSource: Of(someSources[1]), WaypointIP: Of(someAddrs[1]), Workload: l4}
		for range 3 {
			r, one := randomRequest(rng)
			for name, decide := range map[string]func(*Request) Verdict{
				"ztunnel":  func(r *Request) Verdict { return l4.Decide(r).Verdict },
				"waypoint": func(r *Request) Verdict { return l7.Decide(r).Verdict },
				"path":     func(r *Request) Verdict { return path.Decide(r).Verdict },
			} {
				verdict := decide(&r)
				seen[verdict]++
				for range 12 {
					if c := one(); verdict != Depends && decide(&c) != verdict {
						t.Fatalf("%s: %s for %+v, but %s for %+v\nby %v", name, verdict, r, decide(&c), c, m.AuthorizationPolicies)
					}
				}
			}
		}
	}
	for v := range verdictNames {
		if seen[Verdict(v)] < rounds/10 {
			t.Errorf("%v: the cases are too much alike", seen)
		}
	}
}

// What the index finds decides as a look at all rules does.
func TestIndexFindsAll(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 2_000 {
		m := randomMesh(rng)
		points := []*Point{New(m).Ztunnel(Workload{Namespace: "shop"})}
		points = append(points, New(toService(m)).Waypoint(shopWay, orders))
		r, _ := randomRequest(rng)
		for _, p := range points {
			found := p.Decide(&r)
			for _, e := range []*engine{p.http, p.tcp} {
				for _, s := range []*ruleset{&e.custom, &e.deny, &e.allow} {
					s.byDim, s.rest = [dims][]int32{}, nil
					for i := range s.rules {
						s.rest = append(s.rest, int32(i))
					}
				}
			}
			if all := p.Decide(&r); all.Verdict != found.Verdict || all.On != found.On {
				t.Fatalf("%v by index, %v by all rules, for %+v by %v", found, all, r, m.AuthorizationPolicies)
			}
		}
	}
}

// The order of policies changes which is named, and nothing else.
func TestOrderDoesNotMatter(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for range 2_000 {
		m := toService(randomMesh(rng))
		r, _ := randomRequest(rng)
		first := New(m).Waypoint(shopWay, orders).Decide(&r)
		m.AuthorizationPolicies = slices.Clone(m.AuthorizationPolicies)
		rng.Shuffle(len(m.AuthorizationPolicies), func(i, j int) {
			m.AuthorizationPolicies[i], m.AuthorizationPolicies[j] = m.AuthorizationPolicies[j], m.AuthorizationPolicies[i]
		})
		if second := New(m).Waypoint(shopWay, orders).Decide(&r); first.Verdict != second.Verdict {
			t.Fatalf("%v, then %v", first, second)
		}
	}
}
