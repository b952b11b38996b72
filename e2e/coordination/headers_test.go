package coordination

import (
	"net/http"
	"slices"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// tenant is the header that the edge writes.
const tenant = "X-Tenant-Id"

// forgedInside is EH01: the mesh trusts a header that the edge writes, whoever sends it. The controller pins it to the gateway, and takes that back; the
// user has the policy name the gateway.
func forgedInside(s *stage) {
	users := s.newIssuer("users")
	outside, inside := request{by: "ingress", service: "s09"}, request{by: "other", service: "s09"}
	s.has(tokenRules("edge", "s09", forwarded+`, outputClaimToHeaders: [{header: x-tenant-id, claim: tenant}]`, users))
	s.has(policyAt("waypoint", "a09", "s09", `action: ALLOW, rules: [{when: [{key: "request.headers[x-tenant-id]", values: [acme]}]}, {to: [{operation: {paths: ["/open*"]}}]}]`))
	acme, evil := outside.bearing(s.token(users, "acme")), outside.bearing(s.token(users, "evil"))
	s.gets(acme, http.StatusOK)
	s.gets(evil, http.StatusForbidden)
	s.gets(evil.with(tenant, "acme"), http.StatusForbidden) // the edge replaces it
	s.gets(inside, http.StatusForbidden)
	s.gets(inside.with(tenant, "acme"), http.StatusOK)
	f := s.check.Found(s.T, v1alpha1.SeverityError, "ISM511", "AuthorizationPolicy shop/a09", ingressID)

	open := request{by: "other", service: "s09", path: "/open"}
	s.gets(open.with(tenant, "acme"), http.StatusOK)
	e := s.joins(ambientEdge(ofIngress, "s09")+"  authorization: {mode: Pair, pair: {headers: Pin}}\n", v1alpha1.ReasonWaiting) // other Services have the pods too: no lock
	if i := slices.IndexFunc(e.Status.Findings, func(f v1alpha1.Finding) bool { return f.Code == v1alpha1.FindingNotPinned }); i >= 0 {
		s.Errorf("the header is not pinned: %+v", e.Status.Findings[i])
	}
	for _, h := range []http.Header{{tenant: {"acme"}}, {"x-tenant-id": {"acme"}}, {"X-TENANT-ID": {"acme"}}, {tenant: {"acme", "acme"}}, {tenant: {""}}} {
		inside.header, open.header = h, h
		s.gets(inside, http.StatusForbidden)
		s.gets(open, http.StatusForbidden) // whoever sends it is refused, whatever else lets him in
	}
	inside.header, open.header = nil, nil
	s.gets(open, http.StatusOK)
	s.gets(open.with("X_Tenant_Id", "acme"), http.StatusOK) // another header, by which nobody gets in
	s.gets(inside.with("X_Tenant_Id", "acme"), http.StatusForbidden)
	s.gets(acme, http.StatusOK)
	s.gets(acme.with(tenant, "evil").with(tenant, "evil"), http.StatusOK) // the edge replaces both
	for _, forged := range []request{evil.with(tenant, "acme"), evil.with(tenant, "acme").with(tenant, "acme"), evil.with("X_Tenant_Id", "acme")} {
		s.gets(forged, http.StatusForbidden)
	}
	lower := evil.with("x", "y")
	lower.header["x-tenant-id"] = []string{"acme"}
	s.gets(lower, http.StatusForbidden)
	s.leaves()
	s.gets(inside.with(tenant, "acme"), http.StatusOK)
	s.gets(open.with(tenant, "acme"), http.StatusOK)

	s.check.Mend(s.T, f)
	s.gets(inside.with(tenant, "acme"), http.StatusForbidden)
	s.gets(acme, http.StatusOK)
	s.check.Silent(s.T, "AuthorizationPolicy shop/a09", "ISM511")
}

// forgedOutside is EH02: one route of a gateway writes the header, another lets a client's own pass, and it arrives under the gateway's identity.
func forgedOutside(s *stage) {
	const writes = "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-tenant-id, value: acme}]}}"
	s.apply(route("s10", "ingress", "s10", writes))
	open := route("open-s10", "ingress", "s10", "")
	s.has(open)
	s.has(policyAt("waypoint", "a10", "s10", `action: ALLOW, rules: [{`+callers(ingressID)+`, when: [{key: "request.headers[x-tenant-id]", values: [acme]}]}]`))
	written, unwritten := request{by: "ingress", service: "s10"}, request{by: "ingress", service: "open"}
	s.gets(written, http.StatusOK)
	s.gets(written.with(tenant, "evil"), http.StatusOK) // the edge replaces it
	s.gets(request{by: "other", service: "s10"}.with(tenant, "acme"), http.StatusForbidden)
	s.gets(unwritten, http.StatusForbidden)
	s.gets(unwritten.with(tenant, "acme"), http.StatusOK)
	s.check.Found(s.T, v1alpha1.SeverityError, "ISM510", "HTTPRoute shop/open-s10", "AuthorizationPolicy shop/a10", "RequestHeaderModifier")

	s.apply(route("open-s10", "ingress", "s10", "{type: RequestHeaderModifier, requestHeaderModifier: {remove: [x-tenant-id]}}"))
	s.gets(unwritten.with(tenant, "acme"), http.StatusForbidden)
	s.gets(written, http.StatusOK)
	s.check.Silent(s.T, "HTTPRoute shop/open-s10", "ISM510")
}

// passesOn has Envoy Gateway do what the gate that plays its gateway does.
const passesOn = `
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: ClientTrafficPolicy
metadata: {name: passes-on, namespace: edge}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: web}]
  clientIPDetection: {xForwardedFor: {numTrustedHops: 1, disableXForwardedForAppend: true}}
`

// chosenAddress is EH06 and EH07: a waypoint takes the client's address from the last X-Forwarded-For, which whoever sends writes, and a gateway that appends
// nothing passes on what its clients write.
func chosenAddress(s *stage) {
	const header, office = "X-Forwarded-For", "192.0.2.7"
	block := "remoteIpBlocks: [192.0.2.0/24]"
	inside, ingress, web := request{by: "other", service: "s11"}, request{by: "ingress", service: "s11"}, request{by: "web", service: "s11"}
	s.has(policyAt("waypoint", "a11", "s11", "action: ALLOW, rules: [{from: [{source: {"+block+"}}]}]"))
	s.gets(inside, http.StatusForbidden)
	s.gets(inside.with(header, office), http.StatusOK)
	s.gets(ingress.with(header, office), http.StatusForbidden) // it appends who has called it
	s.check.Found(s.T, v1alpha1.SeverityError, "ISM226", "AuthorizationPolicy shop/a11", "principal")

	s.apply(policyAt("waypoint", "a11", "s11", "action: ALLOW, rules: [{from: [{source: {"+block+", principals: ["+ingressID+", "+webID+"]}}]}]"))
	s.gets(inside.with(header, office), http.StatusForbidden)
	s.check.Silent(s.T, "AuthorizationPolicy shop/a11", "ISM226")
	s.gets(ingress.with(header, office), http.StatusForbidden)
	s.has(passesOn)
	s.gets(web.with(header, office), http.StatusOK)
	s.check.Found(s.T, v1alpha1.SeverityError, "ISM515", "AuthorizationPolicy shop/a11", "Gateway edge/web")

	s.apply(policyAt("waypoint", "a11", "s11", "action: ALLOW, rules: [{from: [{source: {"+block+", principals: ["+ingressID+"]}}]}]"))
	s.gets(web.with(header, office), http.StatusForbidden)
	s.check.Silent(s.T, "AuthorizationPolicy shop/a11", "ISM515", "ISM226")
}
