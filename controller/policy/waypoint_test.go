package policy

import (
	"net/netip"
	"testing"
)

const op = "{to: [{operation: {"

// Each case names what authorization semantics it is about.
func TestAtWaypoint(t *testing.T) {
	const gw = "cluster.local/ns/edge/sa/gateway"
	path := func(s string) func(*Request) { return func(r *Request) { r.Path = Of(s) } }
	hostIs := func(s string) func(*Request) { return func(r *Request) { r.Host = Of(s) } }
	send := func(name string, values ...string) func(*Request) {
		return func(r *Request) { r.Headers = map[string]Values[Header]{name: Of(Header(values))} }
	}
	tcp := func(r *Request) { r.Protocol = Of(TCP) }
	deny := func(what string) string { return ruled("DENY", what) }
	paths := func(list string) string { return deny(op + "paths: [" + list + "]}}]}") }
	when := func(key, values string) string {
		return deny("{when: [{key: '" + key + "', values: [" + values + "]}]}")
	}
	for name, tt := range map[string]struct {
		example
		change func(*Request)
	}{
		// Attachment.
		"a namespace's policy is not enforced":    {example{"{metadata: {namespace: istio-system}, spec: {action: DENY, rules: [{}]}}", "allow: no policy asks"}, nil},
		"a selector's is not enforced":            {example{"{spec: {action: DENY, rules: [{}], selector: {matchLabels: {app: orders}}}}", "allow: no policy asks"}, nil},
		"for the waypoint":                        {example{"{spec: {action: DENY, rules: [{}], targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: waypoint}]}}", "deny"}, nil},
		"for another waypoint":                    {example{"{spec: {action: DENY, rules: [{}], targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: other}]}}", "allow"}, nil},
		"for another Service":                     {example{"{spec: {action: DENY, rules: [{}], targetRefs: [{kind: Service, name: other}]}}", "allow"}, nil},
		"for a Service of another namespace":      {example{"{metadata: {namespace: other}, spec: {action: DENY, rules: [{}], targetRefs: [{kind: Service, name: orders}]}}", "allow"}, nil},
		"for all waypoints":                       {example{"{metadata: {namespace: istio-system}, spec: {action: DENY, rules: [{}], targetRefs: [{kind: GatewayClass, group: gateway.networking.k8s.io, name: istio-waypoint}]}}", "deny"}, nil},
		"for all waypoints, not from the root":    {example{"{spec: {action: DENY, rules: [{}], targetRefs: [{kind: GatewayClass, group: gateway.networking.k8s.io, name: istio-waypoint}]}}", "allow"}, nil},
		"a ServiceEntry is no Service":            {example{"{spec: {action: DENY, rules: [{}], targetRefs: [{kind: ServiceEntry, group: networking.istio.io, name: orders}]}}", "allow"}, nil},
		"the older targetRef":                     {example{"{spec: {action: DENY, rules: [{}], targetRef: {kind: Service, name: orders}}}", "deny"}, nil},
		"dry run decides nothing":                 {example{"{metadata: {annotations: {istio.io/dry-run: 'true'}}, spec: {action: ALLOW}}", "allow: no policy asks"}, nil},
		"AUDIT decides nothing":                   {example{ruled("AUDIT", "{}"), "allow: no policy asks"}, nil},
		"an ALLOW without rules denies all":       {example{"{spec: {action: ALLOW}}", "deny: no ALLOW policy matches (AuthorizationPolicy shop/a)"}, nil},
		"CUSTOM asks somebody":                    {example{"{spec: {action: CUSTOM, provider: {name: mine}, rules: [{}]}}", "depends on external authorizer"}, nil},
		"CUSTOM that does not match":              {example{"{spec: {action: CUSTOM, provider: {name: mine}, rules: [" + op + "paths: [/x]}}]}]}}", "allow"}, nil},
		"CUSTOM does not matter before a DENY":    {example{"{spec: {action: CUSTOM, provider: {name: mine}, rules: [{}]}}\n---\n" + deny("{}"), "deny: a DENY policy matches"}, nil},
		"9: CUSTOM by nobody denies":              {example{"{spec: {action: CUSTOM, provider: {name: gone}, rules: [{}]}}", "deny: an external authorizer decides (AuthorizationPolicy shop/a rules[0])"}, nil},
		"CUSTOM by two":                           {example{"{spec: {action: CUSTOM, provider: {name: mine}, rules: [{}]}}\n---\n{spec: {action: CUSTOM, provider: {name: too}, rules: [" + op + "paths: [/x]}}]}]}}", "depends on external authorizer"}, nil},
		"a source without identity does not come": {example{"{spec: {}}", "deny: only identities of the mesh are taken"}, outside},

		// Sources.
		"the client's principal":                   {example{deny("{from: [{source: {principals: [" + gw + "]}}]}"), "deny"}, nil},
		"5: an alias":                              {example{deny("{from: [{source: {principals: [old.td/ns/edge/sa/gateway]}}]}"), "deny"}, nil},
		"5: another domain":                        {example{deny("{from: [{source: {principals: [other.td/ns/edge/sa/gateway]}}]}"), "allow"}, nil},
		"a suffix":                                 {example{deny("{from: [{source: {principals: ['*/sa/gateway']}}]}"), "deny"}, nil},
		"5: a * in a namespace":                    {example{deny("{from: [{source: {namespaces: ['e*e']}}]}"), "deny"}, nil},
		"5: a * in a principal":                    {example{deny("{from: [{source: {principals: ['cluster.local/ns/*/sa/gateway']}}]}"), "allow"}, nil},
		"5: spiffe://":                             {example{deny("{from: [{source: {principals: ['spiffe://" + gw + "']}}]}"), "allow"}, nil},
		"a namespace is whole":                     {example{deny("{from: [{source: {namespaces: [edg]}}]}"), "allow"}, nil},
		"an account":                               {example{deny("{from: [{source: {serviceAccounts: [edge/gateway]}}]}"), "deny"}, nil},
		"an account of the policy's own namespace": {example{deny("{from: [{source: {serviceAccounts: [gateway]}}]}"), "allow"}, nil},
		"when source.serviceAccount":               {example{when("source.serviceAccount", "edge/gateway"), "deny"}, nil},
		"trustDomains":                             {example{deny("{from: [{source: {trustDomains: [cluster.local]}}]}"), "deny"}, nil},
		"trustDomains of others":                   {example{deny("{from: [{source: {trustDomains: [other.td]}}]}"), "allow"}, nil},
		"an empty source is any":                   {example{deny("{from: [{source: {}}]}"), "deny"}, nil},
		"1: ipBlocks never match, DENY":            {example{deny("{from: [{source: {ipBlocks: [0.0.0.0/0]}}]}"), "allow"}, nil},
		"1: ipBlocks never match, ALLOW":           {example{ruled("ALLOW", "{from: [{source: {ipBlocks: [0.0.0.0/0]}}]}"), "deny"}, nil},
		"1: notIpBlocks always match":              {example{deny("{from: [{source: {notIpBlocks: [0.0.0.0/0]}}]}"), "deny"}, nil},
		"1: source.ip too":                         {example{when("source.ip", "10.244.1.5"), "allow"}, nil},
		"1: remoteIpBlocks are of X-Forwarded-For": {example{deny("{from: [{source: {remoteIpBlocks: [192.0.2.0/24]}}]}"), "deny"}, func(r *Request) { r.RemoteIP = addr("192.0.2.7") }},
		"1: or of the source without":              {example{deny("{from: [{source: {remoteIpBlocks: [10.244.1.0/24]}}]}"), "deny"}, nil},
		"1: which is another":                      {example{deny("{from: [{source: {remoteIpBlocks: [192.0.2.0/24]}}]}"), "allow"}, nil},
		"1: without, and a source of who knows":    {example{deny("{from: [{source: {remoteIpBlocks: [192.0.2.0/24]}}]}"), "depends on client address"}, func(r *Request) { r.SourceIP = Values[netip.Addr]{} }},
		"remoteIpBlocks of who knows":              {example{deny("{from: [{source: {remoteIpBlocks: [192.0.2.0/24]}}]}"), "depends on client address"}, func(r *Request) { r.RemoteIP = Values[netip.Addr]{} }},

		// Operations.
		"7: the Service's port":        {example{deny(op + `ports: ["80"]}}]}`), "deny"}, nil},
		"7: not the pod's":             {example{deny(op + `ports: ["8080"]}}]}`), "allow"}, nil},
		"7: the Service's address":     {example{when("destination.ip", "10.96.0.7"), "deny"}, nil},
		"7: there is no server name":   {example{when("connection.sni", "'*'"), "allow"}, nil},
		"a method":                     {example{deny(op + "methods: [GET]}}]}"), "deny"}, nil},
		"12: in lower case it is none": {example{deny(op + "methods: [get]}}]}"), "allow"}, nil},
		"6: GET does not cover HEAD":   {example{deny(op + "methods: [GET]}}]}"), "allow"}, func(r *Request) { r.Method = Of("HEAD") }},
		"a host":                       {example{deny(op + "hosts: [orders.shop]}}]}"), "deny"}, nil},
		"12: hosts ignore case":        {example{deny(op + "hosts: [Orders.SHOP]}}]}"), "deny"}, hostIs("ORDERS.shop")},
		"6: hosts keep their port":     {example{deny(op + "hosts: [orders.shop]}}]}"), "allow"}, hostIs("orders.shop:80")},
		"9: a host with its port":      {example{deny(op + "hosts: ['orders.shop:80']}}]}"), "deny"}, hostIs("orders.shop:80")},
		"a host's suffix":              {example{deny(op + "hosts: ['*.shop']}}]}"), "deny"}, nil},
		"notHosts":                     {example{deny(op + "notHosts: [orders.shop]}}]}"), "allow"}, nil},

		// Paths.
		"a path":                           {example{paths("/admin"), "deny"}, path("/admin")},
		"6: //admin passes":                {example{paths("/admin"), "allow"}, path("//admin")},
		"6: /admin/ passes":                {example{paths("/admin"), "allow"}, path("/admin/")},
		"6: /admin;x passes":               {example{paths("/admin"), "allow"}, path("/admin;x")},
		"6: /ADMIN passes":                 {example{paths("/admin"), "allow"}, path("/ADMIN")},
		"6: /admin%2Fx passes":             {example{paths("/admin"), "allow"}, path("/admin%2Fx")},
		"11: /./admin is caught":           {example{paths("/admin"), "deny"}, path("/./admin")},
		"11: /a/../admin is caught":        {example{paths("/admin"), "deny"}, path("/a/../admin")},
		"11: /%61dmin is caught":           {example{paths("/admin"), "deny"}, path("/%61dmin")},
		"11: /admin?x=1 is caught":         {example{paths("/admin"), "deny"}, path("/admin?x=1")},
		"11: /admin/* is not /admin":       {example{paths("/admin/*"), "allow"}, path("/admin")},
		"11: /admin/{**} is not /admin":    {example{paths("'/admin/{**}'"), "allow"}, path("/admin")},
		"11: /admin/{**} is below":         {example{paths("'/admin/{**}'"), "deny"}, path("/admin/a/b")},
		"11: /{**} is all":                 {example{paths("'/{**}'"), "deny"}, path("/")},
		"11: /{*} is one segment":          {example{paths("'/{*}'"), "deny"}, path("/admin")},
		"11: /{*} is not /admin/":          {example{paths("'/{*}'"), "allow"}, path("/admin/")},
		"a template between":               {example{paths("'/a/{*}/c'"), "deny"}, path("/a/b/c")},
		"a template between, of two":       {example{paths("'/a/{*}/c'"), "allow"}, path("/a/b/b/c")},
		"a backslash":                      {example{paths("/admin"), "deny"}, path(`/x\..\admin`)},
		"a path of what Envoy may rewrite": {example{paths("/admin"), "depends on path"}, path("/adm|in")},
		"a bad escape":                     {example{paths("/admin"), "depends on path"}, path("/admin%zz")},
		"notPaths":                         {example{deny(op + "notPaths: [/orders/*]}}]}"), "allow"}, nil},
		"any path":                         {example{paths("/admin"), "depends on path (AuthorizationPolicy shop/a rules[0].to[0].operation.paths)"}, func(r *Request) { r.Path = Values[string]{} }},
		"one of two paths":                 {example{paths("/admin"), "depends on path"}, func(r *Request) { r.Path = Of("/admin", "/b") }},
		"one of two paths, both":           {example{paths("/admin*"), "deny"}, func(r *Request) { r.Path = Of("/admin", "/admin/b") }},

		// Headers.
		"a header":                   {example{when("request.headers[x-tenant]", "gold"), "deny"}, send("x-tenant", "gold")},
		"12: its name ignores case":  {example{when("request.headers[X-Tenant]", "gold"), "deny"}, send("x-tenant", "gold")},
		"12: one value with a comma": {example{when("request.headers[x-tenant]", "gold"), "allow"}, send("x-tenant", "gold,silver")},
		"12: a doubled one is each of its values, or both joined": {example{when("request.headers[x-tenant]", "gold"), "depends on header"}, send("x-tenant", "gold", "silver")},
		"12: a doubled one of which nothing fits":                 {example{when("request.headers[x-tenant]", "iron"), "allow"}, send("x-tenant", "gold", "silver")},
		"12: a doubled one that fits in both ways":                {example{when("request.headers[x-tenant]", "gold*"), "deny"}, send("x-tenant", "gold", "silver")},
		"12: * is an empty one too":                               {example{when("request.headers[x-tenant]", "'*'"), "deny"}, send("x-tenant", "")},
		"12: * is not an absent one":                              {example{when("request.headers[x-tenant]", "'*'"), "allow"}, nil},
		"a header of who knows":                                   {example{when("request.headers[x-tenant]", "gold"), "depends on header"}, func(r *Request) { r.NoOtherHeaders = false }},
		"notValues hold for an absent one":                        {example{deny("{when: [{key: 'request.headers[x]', notValues: [z]}]}"), "deny"}, nil},
		":authority":                                              {example{when("request.headers[:authority]", "orders.shop"), "deny"}, nil},
		"a condition nobody knows":                                {example{when("no.such", "x"), "allow"}, nil},
		"Envoy's metadata":                                        {example{when("experimental.envoy.filters.a[b]", "x"), "depends on condition that is not understood"}, nil},

		// Other protocols.
		"a DENY of HTTP on a TCP port denies all":     {example{paths("/admin"), "deny"}, tcp},
		"an ALLOW of HTTP on a TCP port admits none":  {example{ruled("ALLOW", op+"methods: [GET]}}]}"), "deny"}, tcp},
		"what both have is enforced":                  {example{deny("{from: [{source: {namespaces: [edge]}}]}"), "deny"}, tcp},
		"a port of who knows what":                    {example{paths("/admin"), "depends on protocol"}, func(r *Request) { r.Protocol = Values[Protocol]{} }},
		"a port of who knows what, where all is said": {example{deny("{}"), "deny"}, func(r *Request) { r.Protocol = Values[Protocol]{} }},

		// Values that are none.
		"a port that is none, in an ALLOW":  {example{ruled("ALLOW", op+`ports: [http, "80"]}}]}`), "deny"}, nil},
		"a port that is none, in a DENY":    {example{deny(op + `ports: [http, "81"]}}]}`), "allow"}, nil},
		"only ports that are none, in DENY": {example{deny(op + "ports: [http]}}]}"), "deny"}, nil},

		// Tokens.
		"requestPrincipals without RequestAuthentication": {example{deny("{from: [{source: {requestPrincipals: ['*']}}]}"), "allow"}, func(r *Request) { r.Token = Of(Token{Claims: map[string]any{"iss": "a", "sub": "b"}}) }},
	} {
		t.Run(name, func(t *testing.T) {
			r := fromGateway()
			if tt.change != nil {
				tt.change(&r)
			}
			m := toService(objects(t, tt.policies))
			m.TrustDomainAliases, m.Providers = []string{"old.td"}, []string{"mine", "too"}
			tt.check(t, New(m).Waypoint(shopWay, orders).Decide(&r))
		})
	}
}

func TestTokensAtWaypoint(t *testing.T) {
	const authn = `{kind: RequestAuthentication, metadata: {namespace: shop, name: r}, spec: {targetRefs: [{kind: Service, name: orders}], jwtRules: [
  {issuer: "https://idp", audiences: [orders], spaceDelimitedClaims: [teams], forwardOriginalToken: true}]}}`
	good := func(more ...any) Values[Token] {
		claims := map[string]any{"iss": "https://idp", "sub": "ann", "aud": "orders"}
		for i := 0; i < len(more); i += 2 {
			if claims[more[i].(string)] = more[i+1]; more[i+1] == nil {
				delete(claims, more[i].(string))
			}
		}
		return Of(Token{Claims: claims})
	}
	deny := func(what string) string { return ruled("DENY", what) }
	when := func(key string) string { return deny("{when: [{key: '" + key + "', values: [gold]}]}") }
	for name, tt := range map[string]struct {
		policy string
		token  Values[Token]
		want   string
	}{
		"8: no token passes":                     {deny("{from: [{source: {requestPrincipals: ['*']}}]}"), Absent[Token](), "allow"},
		"13: and nothing asks for one":           {"{spec: {selector: {matchLabels: {app: x}}}}", Absent[Token](), "allow: no policy asks"},
		"8: a bad one is refused":                {"{spec: {selector: {matchLabels: {app: x}}}}", Of(Token{Claims: map[string]any{"iss": "https://idp", "aud": "orders"}, Bad: true}), "deny: the token is refused (RequestAuthentication shop/r jwtRules)"},
		"8: one of a foreign issuer is refused":  {"{spec: {selector: {matchLabels: {app: x}}}}", Of(Token{Claims: map[string]any{"iss": "https://other"}}), "deny: the token is refused"},
		"8: before an ALLOW":                     {ruled("ALLOW", "{}"), Of(Token{Claims: map[string]any{"iss": "https://other"}}), "deny: the token is refused"},
		"one for another audience is refused":    {ruled("ALLOW", "{}"), good("aud", "other"), "deny: the token is refused"},
		"13: aud as a list":                      {ruled("ALLOW", "{}"), good("aud", []any{"x", "orders"}), "allow"},
		"a token that nobody knows":              {ruled("ALLOW", "{}"), Values[Token]{}, "depends on token"},
		"a token of which little is known":       {ruled("ALLOW", "{}"), Of(Token{Partial: true}), "depends on token"},
		"8: * needs iss and sub":                 {deny("{from: [{source: {requestPrincipals: ['*']}}]}"), good(), "deny: a DENY"},
		"8: * without sub":                       {deny("{from: [{source: {requestPrincipals: ['*']}}]}"), good("sub", nil), "allow"},
		"issuer and subject":                     {deny("{from: [{source: {requestPrincipals: ['https://idp/ann']}}]}"), good(), "deny: a DENY"},
		"issuer and any subject":                 {deny("{from: [{source: {requestPrincipals: ['https://idp/*']}}]}"), good(), "deny: a DENY"},
		"issuer and a subject's prefix":          {deny("{from: [{source: {requestPrincipals: ['https://idp/a*']}}]}"), good(), "deny: a DENY"},
		"an issuer's suffix":                     {deny("{from: [{source: {requestPrincipals: ['*idp/ann']}}]}"), good(), "deny: a DENY"},
		"another subject":                        {deny("{from: [{source: {requestPrincipals: ['https://idp/bob']}}]}"), good(), "allow"},
		"notRequestPrincipals without a token":   {deny("{from: [{source: {notRequestPrincipals: ['*']}}]}"), Absent[Token](), "deny: a DENY"},
		"a claim":                                {when("request.auth.claims[tier]"), good("tier", "gold"), "deny: a DENY"},
		"a claim that is a list":                 {when("request.auth.claims[tier]"), good("tier", []any{"x", "gold"}), "deny: a DENY"},
		"8: a number never matches":              {when("request.auth.claims[tier]"), good("tier", float64(7)), "allow"},
		"8: true never matches":                  {deny("{when: [{key: 'request.auth.claims[tier]', values: ['true']}]}"), good("tier", true), "allow"},
		"a claim in a claim":                     {when("request.auth.claims[a][b]"), good("a", map[string]any{"b": "gold"}), "deny: a DENY"},
		"a claim in a claim that is not there":   {when("request.auth.claims[a][b]"), good("a", "gold"), "allow"},
		"13: claims[a.b] is one key":             {when("request.auth.claims[a.b]"), good("a.b", "gold"), "deny: a DENY"},
		"13: scope is split":                     {when("request.auth.claims[scope]"), good("scope", "silver gold"), "deny: a DENY"},
		"13: others are not":                     {when("request.auth.claims[groups]"), good("groups", "silver gold"), "allow"},
		"13: but by spaceDelimitedClaims":        {when("request.auth.claims[teams]"), good("teams", "silver gold"), "deny: a DENY"},
		"audiences":                              {deny("{when: [{key: request.auth.audiences, values: [orders]}]}"), good(), "deny: a DENY"},
		"presenter":                              {deny("{when: [{key: request.auth.presenter, values: [app]}]}"), good("azp", "app"), "deny: a DENY"},
		"a claim that may be there":              {when("request.auth.claims[tier]"), Of(Token{Claims: map[string]any{"iss": "https://idp", "aud": "orders"}, Partial: true}), "depends on token"},
		"a token that is elsewhere":              {when("request.auth.claims[tier]"), Of(Token{Claims: map[string]any{"iss": "https://idp", "aud": "orders", "tier": "gold"}, Elsewhere: true}), "depends on token"},
		"EJ03: a token that the edge would take": {ruled("ALLOW", "{from: [{source: {namespaces: [edge]}}]}"), Of(Token{Claims: map[string]any{"iss": "https://second"}}), "deny: the token is refused"},
	} {
		t.Run(name, func(t *testing.T) {
			r := fromGateway()
			r.Token = tt.token
			m := toService(objects(t, tt.policy+"\n---\n"+authn))
			example{tt.policy, tt.want}.check(t, New(m).Waypoint(shopWay, orders).Decide(&r))
		})
	}
}

// A preflight request of CORS is asked for no token, and policies see none.
func TestPreflight(t *testing.T) {
	const authn = `{kind: RequestAuthentication, metadata: {namespace: shop, name: r}, spec: {targetRefs: [{kind: Service, name: orders}], jwtRules: [{issuer: "https://idp"}]}}`
	policy := ruled("DENY", "{from: [{source: {requestPrincipals: ['*']}}]}")
	point := New(toService(objects(t, policy+"\n---\n"+authn))).Waypoint(shopWay, orders)
	r := fromGateway()
	r.Method = Of("OPTIONS")
	for _, tt := range []struct {
		what, want string
		headers    map[string]Values[Header]
		all        bool
	}{
		{"another OPTIONS", "deny: the token is refused", nil, true},
		{"a preflight", "allow", map[string]Values[Header]{"origin": Of(Header{"https://x"}), "access-control-request-method": Of(Header{"GET"})}, true},
		{"perhaps a preflight", "depends on token", map[string]Values[Header]{"origin": Of(Header{"https://x"})}, false},
	} {
		t.Run(tt.what, func(t *testing.T) {
			r.Token, r.Headers, r.NoOtherHeaders = Of(Token{Claims: map[string]any{"iss": "https://other"}}), tt.headers, tt.all
			example{policy, tt.want}.check(t, point.Decide(&r))
		})
	}
	r.Token = Of(Token{Claims: map[string]any{"iss": "https://idp", "sub": "ann"}})
	example{policy, "depends on token"}.check(t, point.Decide(&r))
}

func TestHeadersThatTokensWrite(t *testing.T) {
	const authn = `{kind: RequestAuthentication, metadata: {namespace: shop, name: r}, spec: {targetRefs: [{kind: Service, name: orders}], jwtRules: [
  {issuer: "https://idp", outputClaimToHeaders: [{header: X-Tenant, claim: tenant}]}]}}`
	for header, want := range map[string]string{"x-tenant": "depends", "authorization": "depends", "x-other": "deny: a DENY"} {
		r := fromGateway()
		r.Token = Of(Token{Claims: map[string]any{"iss": "https://idp", "sub": "ann"}})
		r.Headers = map[string]Values[Header]{header: Of(Header{"gold"})}
		policy := ruled("DENY", "{when: [{key: 'request.headers["+header+"]', values: [gold]}]}")
		point := New(toService(objects(t, policy+"\n---\n"+authn))).Waypoint(shopWay, orders)
		example{policy, want}.check(t, point.Decide(&r))
		r.Token = Absent[Token]()
		example{policy, "deny: a DENY"}.check(t, point.Decide(&r))
	}
}

func TestNormalization(t *testing.T) {
	const unknown = "?"
	for sent, want := range map[string][4]string{ // Base, None, MergeSlashes, DecodeAndMergeSlashes
		"/":            {"/", "/", "/", "/"},
		"/a/b?c=/../d": {"/a/b", "/a/b", "/a/b", "/a/b"},
		"/a//b":        {"/a//b", "/a//b", "/a/b", "/a/b"},
		"//a":          {"//a", "//a", "/a", "/a"},
		"/a//":         {"/a//", "/a//", "/a/", "/a/"},
		"/a/./b/../c":  {"/a/c", "/a/./b/../c", "/a/c", "/a/c"},
		"/a/..":        {"/", "/a/..", "/", "/"},
		"/a/.":         {"/a/", "/a/.", "/a/", "/a/"},
		"/../a":        {"/a", "/../a", "/a", "/a"},
		"/a//../b":     {"/a/b", "/a//../b", "/a/b", "/a/b"},
		"/%2e%2E/a":    {"/a", "/%2e%2E/a", "/a", "/a"},
		"/a%2fb":       {"/a%2fb", "/a%2fb", "/a%2fb", "/a/b"},
		"/a%5Cb":       {"/a%5Cb", "/a%5Cb", "/a%5Cb", "/a/b"},
		"/a%2F..%2Fb":  {"/a%2F..%2Fb", "/a%2F..%2Fb", "/a%2F..%2Fb", "/b"},
		`/a\b`:         {"/a/b", `/a\b`, "/a/b", "/a/b"},
		"/%41%7e%20":   {"/A~%20", "/%41%7e%20", "/A~%20", "/A~%20"},
		"/%252e":       {"/%252e", "/%252e", "/%252e", "/%252e"},
		"/.a/..b/c..":  {"/.a/..b/c..", "/.a/..b/c..", "/.a/..b/c..", "/.a/..b/c.."},
		"/a|b":         {unknown, "/a|b", unknown, unknown},
		"/a%":          {unknown, "/a%", unknown, unknown},
		"/a%0":         {unknown, "/a%0", unknown, unknown},
		"/a#b":         {unknown, unknown, unknown, unknown},
		"*":            {unknown, "*", unknown, unknown},
		"/a b":         {unknown, unknown, unknown, unknown},
	} {
		for i, want := range want {
			got, ok := Normalization(i).normal(sent)
			if !ok {
				got = unknown
			}
			if got != want {
				t.Errorf("normalization %d of %s: %s, want %s", i, sent, got, want)
			}
		}
	}
}
