package policytest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	securityapi "istio.io/api/security/v1beta1"
	typev1beta1 "istio.io/api/type/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/controller/policy"
	"github.com/isthmus-mesh/isthmus/controller/policy/policytest"
	"github.com/isthmus-mesh/isthmus/e2e/envoyshim"
	"github.com/isthmus-mesh/isthmus/e2e/jwttest"
	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/e2e/mesh/meshtest"
	"github.com/isthmus-mesh/isthmus/e2e/node"
	"github.com/isthmus-mesh/isthmus/e2e/programs"
	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/identity/istioca"
)

const issuer = "https://idp.example"

// requestWords are what policies at the waypoint are made of.
var requestWords = policytest.Words{
	Principals: []string{"cluster.local/ns/one/sa/x", "old.example/ns/one/sa/z", "*/sa/x", "cluster.local/ns/one/*", "*", "spiffe://cluster.local/ns/one/sa/x", "cluster.local/ns/*/sa/x"},
	Namespaces: []string{"one", "two", "o*", "*", "*wo", "t*o", "on"},
	Accounts:   []string{"one/x", "x", "two/x", "one/z"},
	Domains:    []string{"cluster.local", "old.example", "other.example"},
	Blocks:     []string{"192.0.2.0/24", "192.0.2.1", "198.51.100.0/24", "0.0.0.0/0", "10.96.81.0/30", "10.244.0.0/16"},
	Ports:      []string{"80", "8080"},
	Methods:    []string{"GET", "POST", "*", "P*", "*T", "get", "HEAD"},
	Paths:      []string{"/a", "/a*", "*/b", "*", "/{*}", "/a/{**}", "/{*}/b", "/{**}", "/A", "/admin", "/a/{*}/c"},
	Hosts:      []string{"h.example", "*", "*.example", "h*", "H.EXAMPLE", "h.example:80"},
	Subjects:   []string{issuer + "/s", issuer + "/*", "*", "*/s", issuer + "/t", "other/s", issuer + "/s*"},
	Texts:      []string{"v", "*", "v*", "*w", "v,w"},
	Keys: []string{"source.ip", "remote.ip", "source.namespace", "source.principal", "destination.ip", "destination.port", "connection.sni", "request.auth.principal",
		"request.headers[x-h]", "request.headers[X-H]", "request.headers[:authority]", "request.auth.claims[g]", "request.auth.claims[scope]", "request.auth.claims[n][m]",
		"request.auth.claims[num]", "request.auth.audiences", "source.serviceAccount", "source.trustDomain"},
	Often: 6,
}

const waypointWorld = `
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: one}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: two}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop, labels: {istio.io/waypoint-for: service}}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
`

const meshConfig = envoyshim.MeshConfig + "trustDomainAliases: [old.example]\n"

const services = 6

func serviceIP(i int) string { return fmt.Sprintf("10.96.81.%d", i+1) }

// proxy is a real waypoint in front of Services without pods: whom it allows it answers 503.
type proxy struct {
	*testing.T
	m       *mesh.Mesh
	pod     *corev1.Pod
	dialers map[string]*hbone.Dialer // by source
	tokens  map[string]policy.Values[policy.Token]
	sent    map[string]string // tokens as they are sent
	jwks    string
	round   int
	tunnels map[string]*tunnel
}

// tunnel is a connection through which one request after the other goes.
type tunnel struct {
	net.Conn
	r *bufio.Reader
}

func newProxy(t *testing.T) *proxy {
	set, err := programs.Ensure(t.Context(), programs.All(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	image, err := envoyshim.Image(set)
	if set.Path(programs.Envoy) == "" {
		t.Skip(err) // with CI=true Ensure has failed
	}
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{T: t, dialers: map[string]*hbone.Dialer{}, tunnels: map[string]*tunnel{}}
	p.m = meshtest.New(t, mesh.Options{Quick: true, MeshConfig: meshConfig, Images: map[string]node.Image{programs.ProxyImage: image}})
	p.apply(waypointWorld)
	for i := range services + 1 { // the last is for settled
		p.apply(fmt.Sprintf("{apiVersion: v1, kind: Service, metadata: {name: s%d, namespace: shop, labels: {istio.io/use-waypoint: waypoint}}, spec: {clusterIP: %s, ports: [{name: http, port: 80}]}}", i, serviceIP(i)))
	}
	p.pod = p.waypoint()
	at := netip.AddrPortFrom(netip.MustParseAddr(p.pod.Status.PodIP), 15008)
	for _, name := range []string{"one/x", "one/z", "two/x"} {
		p.dialers[name] = p.dialer(name, at)
	}
	p.makeTokens()
	return p
}

func (p *proxy) apply(yaml string) {
	p.Helper()
	if err := p.m.Apply(p.Context(), yaml); err != nil {
		p.Fatal(err)
	}
}

// waypoint waits for the waypoint's pod.
func (p *proxy) waypoint() *corev1.Pod {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.Context(), time.Minute)
	defer cancel()
	for ; ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
		var pods corev1.PodList
		if err := p.m.Client().List(ctx, &pods, client.InNamespace("shop"), client.MatchingLabels{"gateway.networking.k8s.io/gateway-name": "waypoint"}); err != nil {
			p.Fatal(err)
		}
		if len(pods.Items) != 1 {
			continue
		}
		pod, err := p.m.Node.WaitReady(ctx, "shop", pods.Items[0].Name)
		if err != nil {
			p.Fatalf("%v\n%s", err, p.m.Node.Tail("shop", pods.Items[0].Name, "istio-proxy", 40))
		}
		return pod
	}
	p.Fatal("there is no waypoint")
	return nil
}

// dialer dials the waypoint as a service account, ns/name, for what is addressed.
func (p *proxy) dialer(name string, at netip.AddrPort) *hbone.Dialer {
	p.Helper()
	ns, sa, _ := strings.Cut(name, "/")
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		return p.m.NS.DialContext(ctx, network, address)
	}
	source, err := istioca.New(p.Context(), istioca.Config{
		Addresses: []string{p.m.Istiod.CA.String()}, Roots: func() ([]byte, error) { return p.m.RootPEM, nil }, Token: token(p.T, p.m, ns, sa),
		ID: sourceID(name), DialContext: dial,
	})
	if err != nil {
		p.Fatal(err)
	}
	p.Cleanup(func() { source.Close() })
	d := &hbone.Dialer{Identity: source, NetDial: dial, Resolver: hbone.ResolverFunc(func(_ context.Context, _, address string) (hbone.Route, error) {
		return hbone.Route{Hops: []hbone.Hop{{Kind: hbone.HopWaypoint, Addr: at, Authority: address, Peers: []spiffeid.ID{spiffeid.RequireFromString("spiffe://cluster.local/ns/shop/sa/waypoint")}}}}, nil
	})}
	p.Cleanup(func() { d.Close() })
	return d
}

func sourceID(name string) spiffeid.ID {
	ns, sa, _ := strings.Cut(name, "/")
	return spiffeid.RequireFromString("spiffe://cluster.local/ns/" + ns + "/sa/" + sa)
}

// makeTokens makes tokens of a key of ours, and one that only looks so.
func (p *proxy) makeTokens() {
	key, err := jwttest.NewKey("k")
	if err != nil {
		p.Fatal(err)
	}
	if p.jwks, err = key.JWKS(); err != nil {
		p.Fatal(err)
	}
	later := float64(time.Now().Add(24 * time.Hour).Unix())
	p.tokens, p.sent = map[string]policy.Values[policy.Token]{"": policy.Absent[policy.Token]()}, map[string]string{}
	add := func(name string, claims map[string]any, bad bool) {
		if p.sent[name], err = key.Sign(claims); err != nil {
			p.Fatal(err)
		}
		if bad {
			p.sent[name] = p.sent[name][:len(p.sent[name])-12] + "AAAAAAAAAAAA"
		}
		p.tokens[name] = policy.Of(policy.Token{Claims: claims, Bad: bad || claims["exp"] != later})
	}
	add("plain", map[string]any{"iss": issuer, "sub": "s", "exp": later}, false)
	add("rich", map[string]any{"iss": issuer, "sub": "t", "exp": later, "g": []any{"v", "w"}, "scope": "v w", "n": map[string]any{"m": "v"}, "num": float64(7), "aud": []any{"v"}}, false)
	add("text", map[string]any{"iss": issuer, "sub": "s2", "exp": later, "g": "v", "scope": "v", "n": "v", "num": "v", "aud": "vv"}, false)
	add("foreign", map[string]any{"iss": "other", "sub": "s", "exp": later}, false)
	add("expired", map[string]any{"iss": issuer, "sub": "s", "exp": float64(1700000000)}, false)
	add("forged", map[string]any{"iss": issuer, "sub": "s", "exp": later}, true)
}

// policies are those of one round, with the Service of each.
func (p *proxy) policies(rng *rand.Rand) (o objects) {
	o.mesh = policy.Mesh{TrustDomainAliases: []string{"old.example"}, Providers: []string{}}
	service := func(i int) []*typev1beta1.PolicyTargetReference {
		return []*typev1beta1.PolicyTargetReference{{Kind: "Service", Name: fmt.Sprintf("s%d", i)}}
	}
	create := func(c client.Object) bool {
		err := p.m.Client().Create(p.Context(), c)
		if err == nil {
			o.there = append(o.there, c)
		}
		return err == nil
	}
	for i := range services {
		for j := range 1 + rng.IntN(3) {
			a := &securityv1.AuthorizationPolicy{}
			a.Namespace, a.Name, a.Spec.TargetRefs = "shop", fmt.Sprintf("p%d-%d", i, j), service(i)
			a.Spec.Action = policytest.Pick(rng, []securityapi.AuthorizationPolicy_Action{
				securityapi.AuthorizationPolicy_ALLOW, securityapi.AuthorizationPolicy_ALLOW, securityapi.AuthorizationPolicy_DENY, securityapi.AuthorizationPolicy_DENY, securityapi.AuthorizationPolicy_AUDIT,
			})
			for range 1 + rng.IntN(4) {
				a.Spec.Rules = append(a.Spec.Rules, requestWords.Rule(rng))
			}
			if rng.IntN(12) == 0 {
				a.Annotations = map[string]string{"istio.io/dry-run": "true"}
			}
			if create(a) {
				o.mesh.AuthorizationPolicies = append(o.mesh.AuthorizationPolicies, a)
			}
		}
		if rng.IntN(2) == 0 {
			continue
		}
		r := &securityv1.RequestAuthentication{}
		r.Namespace, r.Name, r.Spec.TargetRefs = "shop", fmt.Sprintf("r%d", i), service(i)
		r.Spec.JwtRules = []*securityapi.JWTRule{{Issuer: issuer, Jwks: p.jwks, ForwardOriginalToken: true}}
		if create(r) {
			o.mesh.RequestAuthentications = append(o.mesh.RequestAuthentications, r)
		}
	}
	return o
}

// normalize sets what becomes of paths, a round this and a round that.
func (p *proxy) normalize(round int) policy.Normalization {
	p.Helper()
	ways := []struct {
		name string
		is   policy.Normalization
	}{{"BASE", policy.Base}, {"NONE", policy.None}, {"MERGE_SLASHES", policy.MergeSlashes}, {"DECODE_AND_MERGE_SLASHES", policy.DecodeAndMergeSlashes}}
	way := ways[round%len(ways)]
	config := &corev1.ConfigMap{}
	if err := p.m.Client().Get(p.Context(), client.ObjectKey{Namespace: root, Name: "istio"}, config); err != nil {
		p.Fatal(err)
	}
	config.Data["mesh"] = meshConfig + "pathNormalization: {normalization: " + way.name + "}\n"
	if err := p.m.Client().Update(p.Context(), config); err != nil {
		p.Fatal(err)
	}
	return way.is
}

// asked is a request and what it is to a policy.
type asked struct {
	service      int
	source, text string
	method       string
	policy.Request
}

func (p *proxy) request(rng *rand.Rand) asked {
	method := policytest.Pick(rng, []string{"GET", "GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS"})
	path := policytest.Pick(rng, []string{"/", "/a", "/a/b", "//a", "/a/", "/a?b", "/x/../a", "/./a", "/%61", "/a%2fb", "/a%2Fb", "/A", "/a/b/c", "/a;x", "/a//b", "/admin", "/a%5Cb", "//a/../b", "/a/b//c", "/%2E/a", "/%2e%2e/admin", "/a/..", "/b", "/a\\b"})
	host := policytest.Pick(rng, []string{"h.example", "H.example", "h.example:80", "x.h.example", "other"})
	a := asked{service: rng.IntN(services), source: policytest.Pick(rng, []string{"one/x", "one/z", "two/x"}), method: method}
	ip := netip.MustParseAddr(serviceIP(a.service))
	a.Request = policy.Request{
		Source: policy.Of(sourceID(a.source)), SourceIP: policy.Of(netip.MustParseAddr("10.244.0.1")), ServiceIP: policy.Of(ip), ServicePort: policy.Of(uint16(80)), Protocol: policy.Of(policy.HTTP), Method: policy.Of(method),
		Path: policy.Of(path), Host: policy.Of(host), NoOtherHeaders: true, Headers: map[string]policy.Values[policy.Header]{}, RemoteIP: policy.Absent[netip.Addr](),
	}
	text := method + " " + path + " HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 0\r\n"
	switch rng.IntN(5) {
	case 0:
		a.Headers["x-h"], text = policy.Of(policy.Header{"v"}), text+"X-h: v\r\n"
	case 1:
		a.Headers["x-h"], text = policy.Of(policy.Header{"v", "w"}), text+"x-H: v\r\nx-h: w\r\n"
	case 2:
		a.Headers["x-h"], text = policy.Of(policy.Header{"v,w"}), text+"x-h: v,w\r\n"
	case 3:
		a.Headers["x-h"], text = policy.Of(policy.Header{""}), text+"x-h:\r\n"
	}
	switch rng.IntN(3) {
	case 0:
		a.RemoteIP, text = policy.Of(netip.MustParseAddr("192.0.2.1")), text+"X-Forwarded-For: 192.0.2.1\r\n"
	case 1:
		a.RemoteIP, text = policy.Of(netip.MustParseAddr("198.51.100.7")), text+"X-Forwarded-For: 192.0.2.1, 198.51.100.7\r\n"
	}
	name := policytest.Pick(rng, []string{"", "", "plain", "rich", "text", "foreign", "expired", "forged"})
	if a.Token = p.tokens[name]; name != "" {
		text += "Authorization: Bearer " + p.sent[name] + "\r\n"
	}
	a.text = text + "\r\n"
	return a
}

// ask sends a request, and returns the status.
func (p *proxy) ask(a asked) (int, error) {
	key := fmt.Sprint(a.source, " ", a.service)
	for fresh := false; ; fresh = true {
		t := p.tunnels[key]
		if t == nil {
			ctx, cancel := context.WithTimeout(p.Context(), 15*time.Second)
			conn, err := p.dialers[a.source].DialContext(ctx, "tcp", serviceIP(a.service)+":80")
			cancel()
			if err != nil {
				return 0, err
			}
			t, fresh = &tunnel{conn, bufio.NewReader(conn)}, true
			p.tunnels[key] = t
		}
		status, err := t.ask(a)
		if err == nil {
			return status, nil
		}
		t.Close()
		if delete(p.tunnels, key); fresh {
			return 0, err
		}
	}
}

func (t *tunnel) ask(a asked) (int, error) {
	t.SetDeadline(time.Now().Add(15 * time.Second))
	if _, err := io.WriteString(t, a.text); err != nil {
		return 0, err
	}
	res, err := http.ReadResponse(t.r, &http.Request{Method: a.method})
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return 0, err
	}
	if res.Close {
		t.Close()
	}
	return res.StatusCode, nil
}

// renew ends all tunnels: what comes next is decided by the configuration of now.
func (p *proxy) renew() {
	for _, t := range p.tunnels {
		t.Close()
	}
	clear(p.tunnels)
}

// settled waits until the waypoint has a policy that is made now.
func (p *proxy) settled() {
	p.Helper()
	p.round++
	path := fmt.Sprintf("/mark-%d", p.round)
	mark := fmt.Sprintf("{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: mark, namespace: shop}, spec: {targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: waypoint}], action: DENY, rules: [{to: [{operation: {paths: [%s]}}]}]}}", path)
	p.apply(mark)
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		p.renew()
		status, err := p.ask(asked{service: services, source: "one/x", method: "GET", text: "GET " + path + " HTTP/1.1\r\nHost: h\r\n\r\n"})
		if err == nil && status == http.StatusForbidden {
			p.renew()
			return
		}
	}
	p.Fatalf("the waypoint does not get a policy\n%s", p.m.Node.Tail("shop", p.pod.Name, "istio-proxy", 20))
}

// The evaluator at a waypoint decides as a real waypoint does.
func TestAtWaypointAsEnvoyHasIt(t *testing.T) {
	p := newProxy(t)
	rng := rand.New(rand.NewPCG(*seed, 2))
	total, allowed, open, refused, by := 0, 0, 0, 0, 0
	for round := range *rounds {
		o := p.policies(rng)
		o.mesh.PathNormalization = p.normalize(round)
		p.settled()
		points := waypoints(o.mesh)
		o.mesh.PathNormalization = (o.mesh.PathNormalization + 2) % 4
		others := waypoints(o.mesh)
		for range 2500 {
			a := p.request(rng)
			d := points[a.service].Decide(&a.Request)
			total++
			if others[a.service].Decide(&a.Request).Verdict != d.Verdict {
				by++
			}
			if d.Verdict == policy.Depends {
				open++
				continue
			}
			why, status := p.agree(a, d)
			switch {
			case why != "":
				p.show(o, a, why, round)
				return
			case status == http.StatusBadRequest:
				refused++
			case d.Verdict == policy.Allow:
				allowed++
			}
		}
		for _, c := range o.there {
			if err := p.m.Client().Delete(t.Context(), c); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("%d requests in %d sets of policies: %d allowed, %d depend, %d were no requests to Envoy, %d are decided by how paths are normalized", total, *rounds, allowed, open, refused, by)
	if decided := total - open - refused; decided < total*3/4 || allowed < decided/10 || allowed > decided*9/10 || by == 0 {
		t.Error("the cases are too much alike")
	}
}

// waypoints are the enforcement points of all services.
func waypoints(m policy.Mesh) []*policy.Point {
	set := policy.New(m)
	list := make([]*policy.Point, services)
	for i := range list {
		list[i] = set.Waypoint(policy.Target{Kind: policy.KindGateway, Namespace: "shop", Name: "waypoint"}, policy.Target{Kind: policy.KindService, Namespace: "shop", Name: fmt.Sprintf("s%d", i)})
	}
	return list
}

// agree asks the waypoint. It may not have all of a new configuration at once, so that it is asked again for a while.
func (p *proxy) agree(a asked, d policy.Decision) (why string, status int) {
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		status, err := p.ask(a)
		denied := status == http.StatusForbidden || status == http.StatusUnauthorized
		switch {
		case err == nil && (status == http.StatusBadRequest || denied == (d.Verdict == policy.Deny)):
			return "", status
		case time.Now().After(end):
			return fmt.Sprintf("%v says the evaluator, %d, %v says the waypoint, to %s of service s%d:\n%s", d, status, err, a.source, a.service, a.text), status
		}
		p.renew()
	}
}

func (p *proxy) show(o objects, a asked, why string, round int) {
	name := fmt.Sprintf("s%d", a.service)
	var left []string
	for _, c := range o.mesh.AuthorizationPolicies {
		if slices.ContainsFunc(c.Spec.TargetRefs, func(r *typev1beta1.PolicyTargetReference) bool { return r.Name == name }) {
			b, _ := yaml.Marshal(&c.Spec)
			left = append(left, c.Name+":\n"+string(b))
		}
	}
	for _, c := range o.mesh.RequestAuthentications {
		if c.Spec.TargetRefs[0].Name == name {
			left = append(left, c.Name+" asks for tokens\n")
		}
	}
	p.Errorf("seed %d, round %d: %s\n%s", *seed, round, why, strings.Join(left, "---\n"))
}
