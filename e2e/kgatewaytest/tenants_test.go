package kgatewaytest

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/e2e/checktest"
	"github.com/isthmus-mesh/isthmus/e2e/jwttest"
	"github.com/isthmus-mesh/isthmus/e2e/story/apps"
)

// tenants is a gateway in the mesh, two Services of one pod behind a waypoint, a route to each, and a workload of the mesh that calls.
var tenants = `
{apiVersion: v1, kind: Namespace, metadata: {name: EDGE}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: SHOP, labels: {istio.io/dataplane-mode: ambient}}}
---` + apps.OrdersObjects("SHOP", "") + `
{apiVersion: v1, kind: Service, metadata: {name: office, namespace: SHOP}, spec: {selector: {app: orders}, ports: [{name: http, port: 80, targetPort: 8080}]}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: inside, namespace: SHOP}}
---
apiVersion: v1
kind: Pod
metadata: {name: inside, namespace: SHOP, labels: {app: inside}}
spec:
  serviceAccountName: inside
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 0
  containers: [{name: inside, image: inside, args: [SHOP], readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: shared, namespace: SHOP, labels: {istio.io/waypoint-for: service}}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
{apiVersion: gateway.networking.k8s.io/v1beta1, kind: ReferenceGrant, metadata: {name: routes, namespace: SHOP}, spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: EDGE}], to: [{group: "", kind: Service}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: http, namespace: EDGE}
spec: {gatewayClassName: kgateway, infrastructure: {labels: {istio.io/dataplane-mode: ambient}}, listeners: [{name: http, port: 8080, protocol: HTTP}]}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: orders, namespace: EDGE}, spec: {parentRefs: [{name: http}], hostnames: [orders], rules: [{backendRefs: [{name: orders, namespace: SHOP, port: 80}]}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: office, namespace: EDGE}, spec: {parentRefs: [{name: http}], hostnames: [office], rules: [{backendRefs: [{name: office, namespace: SHOP, port: 80}]}]}}
`

// edgeRules are what the gateway asks on the route to orders: a token, whose claim becomes a header, and no more requests than LIMIT an hour.
const edgeRules = `
apiVersion: gateway.kgateway.dev/v1alpha1
kind: GatewayExtension
metadata: {name: users, namespace: EDGE}
spec:
  jwt:
    providers:
    - name: users
      issuer: https://users.example.com
      forwardToken: true
      claimsToHeaders: [{name: tenant, header: x-tenant-id}]
      jwks: {local: {inline: 'JWKS'}}
---
apiVersion: gateway.kgateway.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: users, namespace: EDGE}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: orders}]
  jwtAuth: {extensionRef: {name: users}}
  rateLimit: {local: {tokenBucket: {maxTokens: LIMIT, tokensPerFill: 1, fillInterval: 1h}}}
`

// tenantRule is what the mesh makes of the header.
const tenantRule = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: tenants, namespace: SHOP}
spec:
  targetRefs: [{kind: Service, group: "", name: orders}]
  action: ALLOW
  rules: [{to: [{operation: {paths: [/orders/*]}}], when: [{key: "request.headers[x-tenant-id]", values: [acme]}]}]
`

// plenty is a limit that nobody comes to, few one that is soon used up.
const plenty, few = 100000, 12

// office is an address that clients like to have.
const office = "192.0.2.7"

// opens waits until both Services are reached through the waypoint.
func (s *site) opens() {
	s.t.Helper()
	for _, pod := range []string{s.proxy().Name, "inside"} {
		ns := s.edge
		if pod == "inside" {
			ns = s.shop
		}
		if err := s.mesh.Node.WaitCaptured(s.t.Context(), ns, pod, true); err != nil {
			s.t.Fatal(err)
		}
	}
	s.leads("orders", 80, s.vip("orders"))
	s.leads("office", 80, s.vip("office"))
}

// outside and within are requests to a Service by the gateway, and by the workload inside.
func (s *site) outside(service string) request {
	return request{to: s.proxy().Status.PodIP, host: service, path: "/" + service + "/outside"}
}

func (s *site) within(service string) request {
	return request{to: s.pod(s.shop, "app", "inside").Status.PodIP, host: service, path: "/" + service + "/inside"}
}

// limited waits until the gateway's Envoy has a bucket of so many requests on the route. A new bucket is full.
func (s *site) limited(limit int) {
	s.t.Helper()
	has := regexp.MustCompile(fmt.Sprintf(`"max_tokens":\s*%d\b`, limit))
	s.wait(fmt.Sprintf("the gateway's limit is %d", limit), func() string {
		text, err := s.ask(s.proxy(), proxyContainer, "http://127.0.0.1:19000/config_dump")
		if err != nil {
			return err.Error()
		}
		if !has.MatchString(text) {
			return "Envoy has another"
		}
		return ""
	})
}

// once sends a request once, has it answered so, and is the line of the waypoint's log about it.
func (s *site) once(r request, status int) (peer, policy string, allowed bool) {
	s.t.Helper()
	r.path += fmt.Sprintf("/%d", time.Now().UnixNano())
	if is, _, err := s.send(r); is != status || err != nil {
		s.t.Fatalf("%s is answered with %d, %v; want %d", r.path, is, err, status)
	}
	lines := s.logged(r.path, true)
	return lines[0].Peer, lines[0].Policy, lines[0].Allowed
}

// claimsBecomeHeaders is a story of both sides: the gateway checks tokens, writes their claim into a header and limits requests, in that order, and the mesh lets
// in by the header. A workload inside that writes the header has neither shown a token nor is counted.
func (s *site) claimsBecomeHeaders(check *checktest.Asker) {
	const tenant = "X-Tenant-Id"
	key, err := jwttest.NewKey("users")
	if err != nil {
		s.t.Fatal(err)
	}
	other, err := jwttest.NewKey("users")
	if err != nil {
		s.t.Fatal(err)
	}
	jwks, err := key.JWKS()
	if err != nil {
		s.t.Fatal(err)
	}
	token := func(by *jwttest.Key, tenant string) string {
		text, err := by.Sign(map[string]any{"iss": "https://users.example.com", "sub": "ann", "tenant": tenant, "exp": time.Now().Add(time.Hour).Unix()})
		if err != nil {
			s.t.Fatal(err)
		}
		return text
	}
	limit := func(n int) {
		s.apply(strings.NewReplacer("JWKS", jwks, "LIMIT", fmt.Sprint(n)).Replace(edgeRules))
		s.limited(n)
	}
	edge, within := s.outside("orders"), s.within("orders")
	acme, evil := edge.bearing(token(key, "acme")), edge.bearing(token(key, "evil"))
	bad := edge.bearing(token(other, "acme"))
	gateway, stranger := "spiffe://cluster.local/ns/"+s.edge+"/sa/"+s.gateway, "spiffe://cluster.local/ns/"+s.shop+"/sa/inside"

	// The token is checked, the header is the token's, whatever the client sends, and the token comes along.
	s.gets(edge, http.StatusOK)
	limit(plenty)
	s.gets(edge, http.StatusUnauthorized)
	s.gets(edge.with(tenant, "acme"), http.StatusUnauthorized)
	s.gets(bad, http.StatusUnauthorized)
	for _, r := range []struct {
		request
		tenant string
	}{{acme, "acme"}, {evil, "evil"}, {evil.with(tenant, "acme"), "evil"}, {evil.with("x-tenant-id", "acme").with(tenant, "acme"), "evil"}} {
		seen := s.gets(r.request, http.StatusOK)
		if got := seen.Header.Values(tenant); !slices.Equal(got, []string{r.tenant}) {
			s.t.Errorf("the backend has seen %s %q; want %q alone", tenant, got, r.tenant)
		}
		if !slices.Equal(seen.Header.Values("Authorization"), r.header.Values("Authorization")) {
			s.t.Errorf("the backend has seen %q, want the client's token", seen.Header.Values("Authorization"))
		}
	}

	// The mesh lets in by the header.
	s.apply(tenantRule)
	s.gets(evil, http.StatusForbidden)
	s.gets(evil.with(tenant, "acme"), http.StatusForbidden)
	s.gets(acme, http.StatusOK)
	if peer, policy, _ := s.once(acme, http.StatusOK); peer != gateway || policy != s.shop+"/tenants" {
		s.t.Errorf("the waypoint has let %s in by %q", peer, policy)
	}
	if peer, _, allowed := s.once(evil, http.StatusForbidden); peer != gateway || allowed {
		s.t.Errorf("the waypoint was to refuse %s: allowed %v", peer, allowed)
	}
	s.gets(edge.with(tenant, "acme"), http.StatusUnauthorized)
	s.gets(within, http.StatusForbidden)

	// What the gateway refuses is not counted; what the mesh refuses is.
	limit(few)
	s.counts("bad tokens, before", bad, 2*few, http.StatusUnauthorized)
	s.counts("no token", edge, 2*few, http.StatusUnauthorized)
	s.counts("a tenant whom the mesh refuses", evil, few/3, http.StatusForbidden)
	s.counts("a tenant whom the mesh lets in", acme, few-few/3, http.StatusOK)
	s.counts("that tenant, above the limit", acme, few, http.StatusTooManyRequests)
	s.counts("the other tenant, above the limit", evil, few, http.StatusTooManyRequests)
	s.counts("bad tokens, above the limit", bad, few, http.StatusUnauthorized)

	// Inside, whoever writes the header is in, without a token and without end.
	s.counts("a workload inside that writes the header", within.with(tenant, "acme"), 2*few, http.StatusOK)
	if peer, policy, _ := s.once(within.with(tenant, "acme"), http.StatusOK); peer != stranger || policy != s.shop+"/tenants" {
		s.t.Errorf("the waypoint has let %s in by %q", peer, policy)
	}
	s.counts("the tenant outside, meanwhile", acme, 1, http.StatusTooManyRequests)
	object := "AuthorizationPolicy " + s.shop + "/tenants"
	f := check.Found(s.t, v1alpha1.SeverityError, "ISM511", object, gateway[len("spiffe://"):])
	check.Found(s.t, v1alpha1.SeverityWarning, "ISM518", "TrafficPolicy "+s.edge+"/users", object, "x-tenant-id: acme", "Service "+s.shop+"/orders")

	check.Mend(s.t, f)
	s.gets(within.with(tenant, "acme"), http.StatusForbidden)
	check.Silent(s.t, object, "ISM511")
	check.Silent(s.t, "TrafficPolicy "+s.edge+"/users", "ISM518")
	s.counts("the tenant outside, mended", acme, 1, http.StatusTooManyRequests)
	limit(few + 1)
	s.counts("the tenant outside, by a new bucket", acme, few+1, http.StatusOK)
	s.counts("and above the limit", acme, 1, http.StatusTooManyRequests)
	limit(plenty)
	s.gets(acme, http.StatusOK)
	s.gets(evil, http.StatusForbidden)
}

// officeRule lets an address in, and those whose identities PRINCIPALS are.
const officeRule = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: office, namespace: SHOP}
spec:
  targetRefs: [{kind: Service, group: "", name: office}]
  action: ALLOW
  rules: [{from: [{source: {remoteIpBlocks: [BLOCK]PRINCIPALS}}]}]
`

// listenerRule is what people set about clients' addresses.
const listenerRule = `
apiVersion: gateway.kgateway.dev/v1alpha1
kind: ListenerPolicy
metadata: {name: addresses, namespace: EDGE}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: http}]
  default: {httpSettings: {SETTINGS}}
`

// clientsChooseAddresses is a story of clients' addresses: the waypoint takes the last of X-Forwarded-For. kgateway appends who has called it, until it is told not
// to, in so many words or by useRemoteAddress: false.
func (s *site) clientsChooseAddresses(check *checktest.Asker) {
	const header = "X-Forwarded-For"
	edge, within := s.outside("office"), s.within("office")
	rule := func(block, principals string) string {
		return strings.NewReplacer("BLOCK", block, "PRINCIPALS", principals).Replace(officeRule)
	}
	object, pinned := "AuthorizationPolicy "+s.shop+"/office", ", principals: [cluster.local/ns/EDGE/sa/http]"

	// As it comes, kgateway appends.
	sent := s.gets(edge.with(header, office), http.StatusOK).Header.Get(header)
	list := strings.Split(sent, ",")
	client := strings.TrimSpace(list[len(list)-1])
	if list[0] != office || len(list) != 2 || client == office {
		s.t.Fatalf("the backend has seen %s %q; want what the client has sent, and its address", header, sent)
	}
	s.apply(rule("192.0.2.0/24", ""))
	s.gets(within, http.StatusForbidden)
	s.gets(within.with(header, office), http.StatusOK) // who is inside has no gateway to append anything
	s.gets(edge.with(header, office), http.StatusForbidden)
	check.Found(s.t, v1alpha1.SeverityError, "ISM226", object, "principal")

	s.apply(rule("192.0.2.0/24", pinned))
	s.gets(within.with(header, office), http.StatusForbidden)
	check.Silent(s.t, object, "ISM226", "ISM515", "ISM516")
	s.apply(rule(client+"/32", pinned))
	s.gets(edge.with(header, office), http.StatusOK) // by its own address
	s.apply(rule("192.0.2.0/24", pinned))
	s.gets(edge.with(header, office), http.StatusForbidden)

	// What ListenerPolicy has about it. Each is seen to be in force, as answers go to and fro.
	for _, set := range []struct {
		settings string
		chosen   bool   // clients choose the address
		code     string // found then
	}{
		{"skipXFFAppend: true", true, "ISM515"},
		{"xffNumTrustedHops: 1", false, "ISM516"}, // the address of the balancer is appended, and compared
		{"useRemoteAddress: false", true, "ISM515"},
		{"useRemoteAddress: false, skipXFFAppend: false", false, ""},
		{"useRemoteAddress: false, xffTrustedCIDRs: [10.0.0.0/8]", true, "ISM515"},
		{"useRemoteAddress: true", false, ""},
	} {
		s.apply(strings.Replace(listenerRule, "SETTINGS", set.settings, 1))
		status, severity := http.StatusForbidden, v1alpha1.SeverityWarning
		if set.chosen {
			status, severity = http.StatusOK, v1alpha1.SeverityError
		}
		s.gets(edge.with(header, office), status)
		s.t.Logf("%s: a client that sends the address gets %d", set.settings, status)
		for _, code := range []string{"ISM515", "ISM516"} {
			if code == set.code {
				check.Found(s.t, severity, code, object, "Gateway "+s.edge+"/http")
			} else {
				check.Silent(s.t, object, code)
			}
		}
	}
	s.gets(within.with(header, office), http.StatusForbidden)
}
