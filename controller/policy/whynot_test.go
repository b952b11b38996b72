package policy

import (
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	securityapi "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
)

func TestWhyNot(t *testing.T) {
	const gw = "cluster.local/ns/edge/sa/gateway"
	const exactly = ", to operation methods GET, paths /orders/1, hosts orders.shop, ports 80"
	every := func(r *Request) { r.Method, r.Path, r.Host = Values[string]{}, Values[string]{}, Values[string]{} }
	anyGET := func(r *Request) { r.Path, r.Host = Values[string]{}, Values[string]{} }
	for name, tt := range map[string]struct {
		policies string
		want     []string
		change   func(*Request)
	}{
		"what is allowed":                                      {ruled("ALLOW", "{}"), nil, nil},
		"an ALLOW without the source":                          {ruled("ALLOW", "{from: [{source: {principals: [other]}}]}"), []string{"add " + gw + " to rules[0].from[0].source.principals of AuthorizationPolicy shop/a"}, every},
		"an ALLOW that lets the source do more than was asked": {ruled("ALLOW", "{from: [{source: {principals: [other]}}]}"), []string{"add to AuthorizationPolicy shop/a a rule: from source principals " + gw + exactly}, nil},
		"a rule for just what was asked": {ruled("ALLOW", op+"methods: [GET], paths: [/orders/1], hosts: [Orders.shop]}}], from: [{source: {principals: [other]}}]}"),
			[]string{"add " + gw + " to rules[0].from[0].source.principals of AuthorizationPolicy shop/a"}, nil},
		"a rule for more paths than was asked": {ruled("ALLOW", op+"methods: [POST], paths: [/orders*], hosts: [orders.shop]}}], from: [{source: {principals: ["+gw+"]}}]}"),
			[]string{"add to AuthorizationPolicy shop/a a rule: from source principals " + gw + exactly}, nil},
		"a rule that asks for what was not said": {ruled("ALLOW", op+"methods: [POST], paths: [/orders*]}}], from: [{source: {principals: ["+gw+"]}}]}"),
			[]string{"add GET to rules[0].to[0].operation.methods of AuthorizationPolicy shop/a"}, anyGET},
		"a DENY of what is known, and an ALLOW and a DENY of what is not": {ruled("DENY", "{}") + "\n---\n" + ruled("ALLOW", op+"methods: [GET]}}]}") + "\n---\n" + ruled("DENY", op+"paths: [/admin]}}]}"),
			[]string{"add " + gw + " to rules[0].from[].source.notPrincipals of AuthorizationPolicy shop/a"}, every},
		"the nearest of two rules": {ruled("ALLOW", op+"paths: [/x], methods: [POST]}}]}, "+op+"methods: [POST]}}], from: [{source: {principals: ["+gw+"]}}]}"),
			[]string{"add GET to rules[1].to[0].operation.methods of AuthorizationPolicy shop/a"}, anyGET},
		"nothing near":           {ruled("ALLOW", "{from: [{source: {principals: [other]}}], to: [{operation: {methods: [POST]}}]}"), []string{"add to AuthorizationPolicy shop/a a rule: from source principals " + gw + exactly}, nil},
		"an ALLOW without rules": {"{spec: {}}", []string{"add to AuthorizationPolicy shop/a a rule: from source principals " + gw + exactly}, nil},
		"a DENY of the source":   {ruled("DENY", "{from: [{source: {namespaces: [edge]}}]}"), []string{"add " + gw + " to rules[0].from[0].source.notPrincipals of AuthorizationPolicy shop/a"}, nil},
		"a DENY of all":          {ruled("DENY", "{}"), []string{"add " + gw + " to rules[0].from[].source.notPrincipals of AuthorizationPolicy shop/a"}, nil},
		"a DENY, and an ALLOW":   {ruled("DENY", "{}") + "\n---\n" + ruled("ALLOW", "{from: [{source: {namespaces: [x]}}]}"), []string{"add " + gw + " to rules[0].from[].source.notPrincipals of AuthorizationPolicy shop/a", "add to AuthorizationPolicy shop/b a rule: from source principals " + gw + exactly}, nil},
		"what the neighbours of the source may not do either": {ruled("ALLOW", op+"methods: [POST]}}], from: [{source: {namespaces: [edge]}}]}"),
			[]string{"add to AuthorizationPolicy shop/a a rule: from source principals " + gw + exactly}, nil},
		"what others are named for too": {ruled("ALLOW", op+"methods: [POST]}}], from: [{source: {principals: ["+gw+", other]}}]}"),
			[]string{"add to AuthorizationPolicy shop/a a rule: from source principals " + gw + exactly}, nil},
		"one of two sources is another": {ruled("ALLOW", op+"methods: [POST]}}], from: [{source: {principals: ["+gw+"]}}, {source: {principals: [other]}}]}"),
			[]string{"add to AuthorizationPolicy shop/a a rule: from source principals " + gw + exactly}, nil},
		"its namesake of another trust domain is named too": {ruled("ALLOW", op+"methods: [POST]}}], from: [{source: {principals: ["+gw+", partner.example/ns/edge/sa/gateway]}}]}"),
			[]string{"add to AuthorizationPolicy shop/a a rule: from source principals " + gw + exactly}, nil},
		"nobody":                       {ruled("ALLOW", "{from: [{source: {principals: [other]}}]}"), []string{"bring the source into the mesh: it has no identity"}, outside},
		"a provider that is not there": {"{spec: {action: CUSTOM, provider: {name: x}, rules: [{}]}}", []string{"name an extension provider in AuthorizationPolicy shop/a that the mesh has"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := fromGateway()
			if tt.change != nil {
				tt.change(&r)
			}
			m := toService(objects(t, tt.policies))
			m.Providers = []string{}
			var got []string
			for _, c := range New(m).Waypoint(shopWay, orders).WhyNot(&r) {
				got = append(got, c.String())
			}
			if strings.Join(got, "\n") != strings.Join(tt.want, "\n") {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestWhyNotKnowsTheNamesOfTheMesh: at a waypoint, aliases of the mesh's trust domain are one with it.
func TestWhyNotKnowsTheNamesOfTheMesh(t *testing.T) {
	r := fromGateway()
	r.Path, r.Host = Values[string]{}, Values[string]{}
	m := toService(objects(t, ruled("ALLOW", op+"methods: [POST]}}], from: [{source: {principals: [old.example/ns/edge/sa/gateway]}}]}")))
	m.TrustDomainAliases = []string{"old.example"}
	got := New(m).Waypoint(shopWay, orders).WhyNot(&r)
	if len(got) != 1 || got[0].String() != "add GET to rules[0].to[0].operation.methods of AuthorizationPolicy shop/a" {
		t.Errorf("got %v", got)
	}
}

// Who makes the change that is named is allowed.
func TestWhyNotIsEnough(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	tried, narrowed := 0, 0
	for range 4_000 {
		m := randomMesh(rng)
		m.Providers, m.RequestAuthentications = nil, nil
		_, one := randomRequest(rng)
		r := one()
		r.Protocol = Of(HTTP)
		for _, waypoint := range []bool{false, true} {
			at := func() *Point { return New(m).Ztunnel(Workload{Namespace: "shop"}) }
			if waypoint {
				toService(m)
				at = func() *Point { return New(m).Waypoint(shopWay, orders) }
			}
			point := at()
			changes := point.WhyNot(&r)
			if len(changes) == 0 || slices.ContainsFunc(changes, func(c Change) bool { return c.Advice != "" }) {
				continue
			}
			tried++
			narrow := !slices.ContainsFunc(changes, func(c Change) bool { return c.Careful != "" })
			if narrow {
				narrowed++
			}
			before := m
			m.AuthorizationPolicies = nil
			for _, p := range before.AuthorizationPolicies {
				p = p.DeepCopy()
				for _, c := range changes {
					if refOf(kindAuthorizationPolicy, p) == c.Policy {
						apply(t, p, c)
					}
				}
				m.AuthorizationPolicies = append(m.AuthorizationPolicies, p)
			}
			if d := at().Decide(&r); d.Verdict == Deny {
				t.Fatalf("%v is not enough: %v for %+v\nby %v", changes, d, r, before.AuthorizationPolicies)
			}
			for range 4 {
				_, other := randomRequest(rng)
				o := other()
				if len(o.Source.list) != 1 || len(r.Source.list) == 1 && o.Source.list[0].Path() == r.Source.list[0].Path() { // the mesh may have several names
					continue
				}
				if d := at().Decide(&o); d.Verdict == Allow && point.Decide(&o).Verdict == Deny {
					t.Fatalf("%v lets in another: %+v\nby %v", changes, o, before.AuthorizationPolicies)
				}
			}
			for range 4 {
				_, other := randomRequest(rng)
				o := other()
				o.Source = r.Source
				if narrow && !asked(&r, &o, waypoint) && at().Decide(&o).Verdict == Allow && point.Decide(&o).Verdict == Deny {
					t.Fatalf("%v lets in more than was asked: %+v for %+v\nby %v", changes, o, r, before.AuthorizationPolicies)
				}
			}
			m = before
		}
	}
	if tried < 500 || narrowed < 100 {
		t.Errorf("only %d cases, and %d for the request alone", tried, narrowed)
	}
}

// asked says whether one request has the asked method, path, host and, if it is asked for, port.
func asked(r, one *Request, waypoint bool) bool {
	seen := func(v Values[string]) (list []string) {
		for _, text := range v.list {
			if normal, ok := MergeSlashes.normal(text); ok {
				text = normal
			}
			list = append(list, strings.ToLower(text))
		}
		return list
	}
	among := func(r, one Values[string]) bool { return !r.known || slices.Equal(seen(r), seen(one)) }
	port := slices.Equal(r.WorkloadPort.list, one.WorkloadPort.list)
	if waypoint {
		port = slices.Equal(r.ServicePort.list, one.ServicePort.list)
	}
	return among(r.Method, one.Method) && among(r.Path, one.Path) && among(r.Host, one.Host) && (!r.PortAsked || port)
}

var fieldPath = regexp.MustCompile(`^rules\[(\d+)\]\.(from|to)\[(\d*)\]\.(?:source|operation)\.(\w+)$`)

// apply adds a value to a field.
func apply(t *testing.T, p *securityv1.AuthorizationPolicy, c Change) {
	t.Helper()
	if c.Field == fieldRules {
		rule := &securityapi.Rule{From: []*securityapi.Rule_From{{Source: &securityapi.Source{Principals: []string{c.Value}}}}}
		if len(c.To.fields()) > 0 {
			to := &securityapi.Operation{}
			for _, f := range c.To.fields() {
				*operationField(to, f.name) = []string{f.value}
			}
			rule.To = []*securityapi.Rule_To{{Operation: to}}
		}
		p.Spec.Rules = append(p.Spec.Rules, rule)
		return
	}
	at := fieldPath.FindStringSubmatch(c.Field)
	if at == nil {
		t.Fatalf("there is no field %s", c.Field)
	}
	i, _ := strconv.Atoi(at[1])
	rule := p.Spec.Rules[i]
	if at[3] == "" {
		if len(rule.From) == 0 {
			rule.From = append(rule.From, &securityapi.Rule_From{Source: &securityapi.Source{}})
		}
		for _, from := range rule.From {
			from.Source.NotPrincipals = append(from.Source.NotPrincipals, c.Value)
		}
		return
	}
	j, _ := strconv.Atoi(at[3])
	var source securityapi.Source
	var operation securityapi.Operation
	s, o := &source, &operation
	if at[2] == "from" {
		s = rule.From[j].Source
	} else {
		o = rule.To[j].Operation
	}
	field := map[string]*[]string{
		"principals": &s.Principals, "notPrincipals": &s.NotPrincipals, "namespaces": &s.Namespaces, "serviceAccounts": &s.ServiceAccounts, "trustDomains": &s.TrustDomains,
		"ipBlocks": &s.IpBlocks, "methods": &o.Methods, "hosts": &o.Hosts, "paths": &o.Paths, "ports": &o.Ports,
	}[at[4]]
	if field == nil {
		t.Fatalf("there is no field %s", c.Field)
	}
	*field = append(*field, c.Value)
}

// TestWhyNotSaysWhatElse: what a change opens besides what was asked about is said.
func TestWhyNotSaysWhatElse(t *testing.T) {
	for name, tt := range map[string]struct {
		policies, want string
		change         func(*Request)
	}{
		"everything was asked about": {"{spec: {}}", "", func(*Request) {}},
		"only the method was":        {"{spec: {}}", "not asked about: path, host. Each that this rule takes is let through", func(r *Request) { r.Path, r.Host = Values[string]{}, Values[string]{} }},
		"nothing was": {"{spec: {}}", "the rule lets through every request of cluster.local/ns/edge/sa/gateway",
			func(r *Request) { r.Method, r.Path, r.Host = Values[string]{}, Values[string]{}, Values[string]{} }},
		"a rule that is for more": {ruled("ALLOW", op+"methods: [POST], paths: [/orders*]}}], from: [{source: {principals: [cluster.local/ns/edge/sa/gateway]}}]}"),
			"not asked about: path, host. Each that rules[0] of AuthorizationPolicy shop/a takes is let through", func(r *Request) { r.Path, r.Host = Values[string]{}, Values[string]{} }},
		"a path that no policy can name": {"{spec: {}}", "no policy here can name the asked path. Each that this rule takes is let through", func(r *Request) { r.Path = Of("/a*b") }},
		"a DENY of more": {ruled("DENY", op+"methods: [GET]}}]}"),
			"rules[0] of AuthorizationPolicy shop/a then denies cluster.local/ns/edge/sa/gateway nothing at all, not this request alone", func(*Request) {}},
	} {
		t.Run(name, func(t *testing.T) {
			r := fromGateway()
			tt.change(&r)
			got := New(toService(objects(t, tt.policies))).Waypoint(shopWay, orders).WhyNot(&r)
			if len(got) != 1 || got[0].Careful != tt.want {
				t.Errorf("got %+v, want %q", got, tt.want)
			}
		})
	}
}
