package envoyshim_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/e2e/envoyshim/accesslog"
	"github.com/isthmus-mesh/isthmus/e2e/jwttest"
)

const issuer = "https://issuer.example.com"

// tokens is a RequestAuthentication with a set of keys, and a policy that wants one of their tokens.
func tokens(jwks string) string {
	return `
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: shop}
spec:
  targetRefs: [{kind: Service, group: "", name: orders}]
  jwtRules: [{issuer: "` + issuer + `", forwardOriginalToken: true, jwks: '` + jwks + `'}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: members, namespace: shop}
spec:
  targetRefs: [{kind: Service, group: "", name: orders}]
  action: ALLOW
  rules:
  - from: [{source: {principals: [cluster.local/ns/edge/sa/ingress-istio], requestPrincipals: ["` + issuer + `/*"]}}]
    to: [{operation: {paths: [/members*]}}]
    when: [{key: "request.auth.claims[group]", values: [staff]}]
`
}

// decidesByToken sends tokens through gateway and waypoint; the waypoint decides by caller and claims.
func decidesByToken(t *testing.T, s shopMesh, gateway, waypoint *corev1.Pod) {
	key, err := jwttest.NewKey("k")
	if err != nil {
		t.Fatal(err)
	}
	jwks, err := key.JWKS()
	if err != nil {
		t.Fatal(err)
	}
	s.apply(t, tokens(jwks))
	for _, c := range []struct {
		name, path, token, principal string
		status                       int
	}{
		{"a token of the right group", "/members/1", jwt(t, key, "ann", "staff"), issuer + "/ann", http.StatusOK},
		{"a token of another group", "/members/2", jwt(t, key, "bob", "guests"), issuer + "/bob", http.StatusForbidden},
		{"no token", "/members/3", "", "", http.StatusForbidden},
		{"a broken token", "/members/4", "x.y.z", "", http.StatusUnauthorized},
	} {
		t.Run(c.name, func(t *testing.T) {
			// Envoy's threads take a new configuration one after the other: a first answer may be of the old one.
			eventually(t, func() error {
				if err := s.asks(t, gateway, c.path, c.token, c.status); err != nil {
					return err
				}
				list := accesslog.Requests(s.log(t, waypoint))
				if !slices.ContainsFunc(list, func(r accesslog.Request) bool {
					return r.Path == c.path && r.Status == c.status && r.Peer == ingressID && r.Principal == c.principal &&
						(r.Policy == "shop/members") == (c.status == http.StatusOK)
				}) {
					return fmt.Errorf("not logged for caller %s with %q: %+v", ingressID, c.principal, list)
				}
				return nil
			})
		})
	}
}

// asks sends a GET with a token through the gateway.
func (s shopMesh) asks(t *testing.T, gateway *corev1.Pod, path, token string, status int) error {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+gateway.Status.PodIP+path, nil)
	if err != nil {
		return err
	}
	req.Host = "orders.example.com"
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := s.client().Do(req)
	if err != nil {
		return err
	}
	res.Body.Close()
	if res.StatusCode != status {
		return fmt.Errorf("%s: %s, want %d", path, res.Status, status)
	}
	return nil
}

// jwt is a token of issuer.
func jwt(t *testing.T, key *jwttest.Key, subject, group string) string {
	t.Helper()
	token, err := key.Sign(map[string]any{"iss": issuer, "sub": subject, "group": group, "exp": time.Now().Add(time.Hour).Unix()})
	if err != nil {
		t.Fatal(err)
	}
	return token
}
