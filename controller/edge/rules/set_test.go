package rules_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	godiff "github.com/google/go-cmp/cmp"

	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/edge/rules"
)

// at gives the objects and fields of the rules at a place of a file's gateway, those of one concern.
func at(t *testing.T, file string, p rules.Place, concern func(*rules.Rule) bool) string {
	t.Helper()
	raw, err := os.ReadFile("testdata/" + file + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	in, _, _ := strings.Cut(string(raw), divider)
	vendor, gateway, routes, w := read(t, in)
	var got []string
	for _, r := range rules.Of(vendor, gateway, routes, w).At(gateway.Ref, p) {
		if concern(r) {
			got = append(got, r.Object.String()+" "+r.Field)
		}
	}
	return strings.Join(got, "\n")
}

func TestNarrowerRulesReplaceWiderOnes(t *testing.T) {
	shop := rules.Ref{Group: "gateway.networking.k8s.io", Kind: "HTTPRoute", Namespace: "shop", Name: "shop"}
	orders := rules.Ref{Kind: "Service", Namespace: "shop", Name: "orders"}
	jwt := func(r *rules.Rule) bool { return r.JWT != nil || strings.HasSuffix(r.Field, "jwtAuth") }
	auth := func(r *rules.Rule) bool { return r.ExtAuth != nil }
	timeout := func(r *rules.Rule) bool { return r.Timeout != nil && r.Timeout.Request > 0 }
	pay := rules.Ref{Group: "gateway.networking.k8s.io", Kind: "HTTPRoute", Namespace: "shop", Name: "pay"}
	ips := func(r *rules.Rule) bool { return r.IPs != nil }
	cors := func(r *rules.Rule) bool { return r.CORS != nil }
	forwarded := func(r *rules.Rule) bool { return r.Forwarded != nil }
	early := func(r *rules.Rule) bool { return r.Headers != nil && r.Headers.Early }
	tls := func(r *rules.Rule) bool { return r.TLS != nil }
	rewrite := func(r *rules.Rule) bool { return r.Rewrite != nil }
	basic := func(r *rules.Rule) bool { return r.Credentials != nil && r.Credentials.Kind == rules.Basic }
	for _, c := range []struct {
		name, file string
		place      rules.Place
		concern    func(*rules.Rule) bool
		want       string
	}{
		{"of a rule before the route", "kgateway", rules.Place{Route: shop, Section: "rules[0]"}, jwt, "GatewayExtension shop/users spec.jwt"},
		{
			"of the route before the Gateway, where it switches off", "kgateway", rules.Place{Route: shop, Section: "rules[1]"}, jwt,
			"TrafficPolicy shop/by-label spec.jwtAuth",
		},
		{"other fields of the wider stay", "kgateway", rules.Place{Route: shop, Section: "rules[0]"}, ips, "TrafficPolicy gw/all spec.acl"},
		{"and of the narrower", "kgateway", rules.Place{Route: shop, Section: "rules[0]"}, cors, "TrafficPolicy shop/by-label spec.cors"},
		{"what is usual holds where nothing else is said", "kgateway", rules.Place{Route: shop, Section: "rules[0]"}, forwarded, "  "},
		{
			"and not where something is", "kgateway", rules.Place{Listener: "https", Route: shop}, forwarded,
			"ListenerPolicy gw/strip spec.perPort[0].listener.httpSettings",
		},
		{"a listener is not another", "kgateway", rules.Place{Listener: "https", Route: shop}, early, ""},
		{
			"a listener is itself", "kgateway", rules.Place{Listener: "http", Route: shop}, early,
			"ListenerPolicy gw/strip spec.default.httpSettings.earlyRequestHeaderModifier",
		},
		{"of a Service", "kgateway", rules.Place{Route: shop, Section: "rules[0]", Service: orders}, tls, "BackendConfigPolicy shop/orders spec.tls"},
		{
			"of a port of a Service", "gateway-api", rules.Place{Service: orders, Ports: []string{"https", "443"}}, tls,
			"BackendTLSPolicy shop/orders spec",
		},
		{"of another port", "gateway-api", rules.Place{Service: orders, Ports: []string{"http", "80"}}, tls, ""},
		{
			"a backend of a rule is in the rule", "gateway-api", rules.Place{Route: shop, Section: "rules[0].backendRefs[0]"}, rewrite,
			"HTTPRoute shop/shop spec.rules[0].backendRefs[0].filters[0].urlRewrite\nHTTPRoute shop/shop spec.rules[0].filters[0].urlRewrite",
		},
		{"the next rule is not", "gateway-api", rules.Place{Route: shop, Section: "rules[1]"}, rewrite, ""},
		{
			"a policy that may be meant for elsewhere replaces nothing, and one that merges not what it lacks",
			"envoy-gateway", rules.Place{Route: shop, Section: "rules[0]"}, jwt,
			"SecurityPolicy elsewhere/far spec.jwt\nSecurityPolicy gw/all spec.jwt",
		},
		{
			"a policy that merges is itself", "envoy-gateway", rules.Place{Route: shop, Section: "rules[0]"}, basic,
			"SecurityPolicy shop/shop spec.basicAuth",
		},
		{
			"one that overrides is before the narrower", "agentgateway", rules.Place{Listener: "https", Route: shop}, jwt,
			"AgentgatewayPolicy gw/jwt spec.traffic.jwtAuthentication",
		},
		{
			"on another listener it is not", "agentgateway", rules.Place{Listener: "http", Route: shop}, jwt,
			"AgentgatewayPolicy shop/shop spec.traffic.jwtAuthentication",
		},
		{
			"all of Istio hold together", "istio", rules.Place{}, jwt,
			"RequestAuthentication gw/by-ref spec.jwtRules\nRequestAuthentication istio-system/everywhere spec.jwtRules",
		},
		{"one without mergeType replaces the wider as a whole", "envoy-gateway", rules.Place{Route: pay, Section: "rules[0]"}, auth, ""},
		{"one with it does not", "envoy-gateway", rules.Place{Route: shop, Section: "rules[0]"}, auth, "SecurityPolicy gw/all spec.extAuth"},
		{
			"a policy that is a filter is of its rule", "kgateway", rules.Place{Route: shop, Section: "rules[1]"}, timeout,
			"TrafficPolicy shop/by-filter spec.timeouts",
		},
		{"and of no other", "kgateway", rules.Place{Route: shop, Section: "rules[0]"}, timeout, "TrafficPolicy shop/by-label spec.timeouts"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := at(t, c.file, c.place, c.concern)
			if d := godiff.Diff(c.want, got); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
		})
	}
}

func TestATokenThatIsPutBackIsForwarded(t *testing.T) {
	raw, err := os.ReadFile("testdata/agentgateway.yaml")
	if err != nil {
		t.Fatal(err)
	}
	in, _, _ := strings.Cut(string(raw), divider)
	vendor, gateway, routes, w := read(t, in)
	set := rules.Of(vendor, gateway, routes, w)
	orders := rules.Ref{Kind: "Service", Namespace: "shop", Name: "orders"}
	for port, want := range map[string]rules.Answer{"80": rules.Yes, "81": rules.No} {
		list := set.At(gateway.Ref, rules.Place{Route: routes[0].Ref, Section: "rules[0]", Service: orders, Ports: []string{port}})
		found := false
		for _, r := range list {
			if r.JWT != nil {
				found = true
				if got := r.JWT.Providers[0].Forwards(list); got != want {
					t.Errorf("port %s: %v, want %v", port, got, want)
				}
			}
		}
		if !found {
			t.Errorf("port %s: no rule asks for a token", port)
		}
	}
}

func TestWhoseRulesAreRead(t *testing.T) {
	unread := []string{"istio-agentgateway", "haproxytech", "haproxy-ingress", "apisix", "cilium", "caddy", "custom"}
	for _, v := range append(edge.Vendors(), edge.Custom()) {
		if got := rules.Known(v.Name); got == slices.Contains(unread, v.Name) {
			t.Errorf("%s: %v", v.Name, got)
		}
	}
	if rules.Known("") || len(rules.Kinds("haproxytech")) != len(rules.Kinds("custom")) {
		t.Error("nobody's rules are somebody's")
	}
}

func TestKinds(t *testing.T) {
	all, one := rules.Kinds(), rules.Kinds("kgateway")
	if len(all) <= len(one) || len(one) < 5 {
		t.Errorf("%d kinds, %d of kgateway", len(all), len(one))
	}
	has := func(kind string) bool {
		for _, k := range one {
			if k.Kind == kind && k.Version != "" && k.Group != "" {
				return true
			}
		}
		return false
	}
	for kind, want := range map[string]bool{"TrafficPolicy": true, "GatewayExtension": true, "BackendTLSPolicy": true, "SecurityPolicy": false} {
		if has(kind) != want {
			t.Errorf("kgateway reads %s: %v", kind, has(kind))
		}
	}
}
