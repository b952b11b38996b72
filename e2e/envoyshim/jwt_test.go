package envoyshim_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/e2e/envoyshim/accesslog"
)

const issuer = "https://issuer.example.com"

// tokens is a RequestAuthentication with key, and a policy that wants one of its tokens.
func tokens(key string) string {
	return `
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: shop}
spec:
  targetRefs: [{kind: Service, group: "", name: orders}]
  jwtRules: [{issuer: "` + issuer + `", forwardOriginalToken: true, jwks: '{"keys":[` + key + `]}'}]
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
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s.apply(t, tokens(publicJWK(t, key)))
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

func publicJWK(t *testing.T, key *ecdsa.PrivateKey) string {
	t.Helper()
	point, err := key.PublicKey.Bytes() // 4, x, y
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`{"kty":"EC","crv":"P-256","alg":"ES256","kid":"k","x":"%s","y":"%s"}`, b64(point[1:33]), b64(point[33:]))
}

// jwt is a token of issuer, signed with ES256 (RFC 7515, RFC 7518).
func jwt(t *testing.T, key *ecdsa.PrivateKey, subject, group string) string {
	t.Helper()
	claims, err := json.Marshal(map[string]any{"iss": issuer, "sub": subject, "group": group, "exp": time.Now().Add(time.Hour).Unix()})
	if err != nil {
		t.Fatal(err)
	}
	text := b64([]byte(`{"alg":"ES256","kid":"k"}`)) + "." + b64(claims)
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return text + "." + b64(signature)
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
