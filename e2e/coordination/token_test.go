package coordination

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/e2e/jwttest"
)

// issuer signs tokens.
type issuer struct {
	name, jwks string
	key        *jwttest.Key
}

// newIssuer makes an issuer with a key of its own.
func (s *stage) newIssuer(name string) *issuer {
	s.Helper()
	key, err := jwttest.NewKey(name)
	if err != nil {
		s.Fatal(err)
	}
	jwks, err := key.JWKS()
	if err != nil {
		s.Fatal(err)
	}
	return &issuer{"https://" + name + ".example.com", jwks, key}
}

// token is one for a tenant.
func (s *stage) token(by *issuer, tenant string) string {
	s.Helper()
	token, err := by.key.Sign(map[string]any{"iss": by.name, "sub": "ann", "tenant": tenant, "exp": time.Now().Add(time.Hour).Unix()})
	if err != nil {
		s.Fatal(err)
	}
	return token
}

// tokenRules is a RequestAuthentication of the shop's Service of its name, or with at "edge" of Istio's ingress gateway. more is what its rules have
// besides, with a comma before it.
func tokenRules(at, name, more string, by ...*issuer) string {
	namespace, target := "shop", `{kind: Service, group: "", name: `+name+`}`
	if at == "edge" {
		namespace, target = "edge", "{kind: Gateway, group: gateway.networking.k8s.io, name: ingress}"
	}
	var rules []string
	for _, i := range by {
		rules = append(rules, fmt.Sprintf("{issuer: %q, jwks: '%s'%s}", i.name, i.jwks, more))
	}
	return fmt.Sprintf(`
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: %s, namespace: %s}
spec: {targetRefs: [%s], jwtRules: [%s]}
---`, name, namespace, target, strings.Join(rules, ", "))
}

// forwarded has a rule pass the token on.
const forwarded = ", forwardOriginalToken: true"

// tokenIsTaken is B7 and EJ01: the edge checks the token and takes it away, and the mesh asks for it.
func tokenIsTaken(s *stage) {
	users := s.newIssuer("users")
	plain := request{by: "ingress", service: "s07", path: "/07"}
	ann := plain.bearing(s.token(users, "acme"))
	s.has(tokenRules("mesh", "s07", forwarded, users))
	s.has(policyAt("waypoint", "a07", "s07", "action: ALLOW, rules: [{from: [{source: {requestPrincipals: ["+users.name+"/*]}}]}]"))
	s.gets(plain, http.StatusForbidden)
	s.gets(ann, http.StatusOK) // an edge that looks at no token passes it on

	s.has(tokenRules("edge", "s07", "", users))
	s.gets(ann, http.StatusForbidden)
	s.check.Found(s.T, v1alpha1.SeverityError, "ISM500", "RequestAuthentication edge/s07", "AuthorizationPolicy shop/a07", "forwardOriginalToken: true")

	s.apply(tokenRules("edge", "s07", forwarded, users))
	s.gets(ann, http.StatusOK)
	if r := s.seen(ann, http.StatusOK); r.Principal != users.name+"/ann" || r.Policy != "shop/a07" {
		s.Errorf("the waypoint has logged %+v", r)
	}
	s.gets(plain, http.StatusForbidden)
	s.check.Silent(s.T, "RequestAuthentication edge/s07", "ISM500")
}

// issuersDiffer is EJ03: whoever has a token of an issuer that the edge takes and the mesh does not know is refused, though no policy asks for tokens.
func issuersDiffer(s *stage) {
	users, partners := s.newIssuer("users"), s.newIssuer("partners")
	plain := request{by: "ingress", service: "s08", path: "/08"}
	user, partner := plain.bearing(s.token(users, "acme")), plain.bearing(s.token(partners, "acme"))
	s.has(tokenRules("edge", "s08", forwarded, users, partners))
	s.gets(partner, http.StatusOK)
	s.has(tokenRules("mesh", "s08", forwarded, users))
	s.gets(partner, http.StatusUnauthorized)
	s.gets(user, http.StatusOK)
	s.gets(plain, http.StatusOK)
	s.check.Found(s.T, v1alpha1.SeverityError, "ISM501", "RequestAuthentication shop/s08", partners.name)

	s.apply(tokenRules("mesh", "s08", forwarded, users, partners))
	s.gets(partner, http.StatusOK)
	s.gets(user, http.StatusOK)
	s.check.Silent(s.T, "RequestAuthentication shop/s08", "ISM501")
}
