package istioca

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// claims are those of a service account's token that explain a refusal.
type claims struct {
	Subject  string    `json:"sub"`
	Audience audiences `json:"aud"`
	Expires  float64   `json:"exp"` // seconds since 1970
}

// audiences are one string or several (RFC 7519, section 4.1.3).
type audiences []string

// UnmarshalJSON takes both forms.
func (a *audiences) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*a = audiences{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(a))
}

// maxClaim is how much of a claim an error shows.
const maxClaim = 200

// describe says, in parentheses, what about a token does not fit to id: for people only, as its signature is not checked. It is empty when nothing is
// to be seen. It shows claims, never the token.
func describe(token string, id spiffeid.ID) string {
	c, ok := parseToken(token)
	if !ok {
		return " (it is no service account token: those are JWTs)"
	}
	var out []string
	if want := subject(id); want != "" && c.Subject != want {
		out = append(out, fmt.Sprintf("it is of %s, not of %s", shorten(c.Subject), want))
	}
	if !slices.Contains(c.Audience, "istio-ca") {
		out = append(out, fmt.Sprintf("its audience is %s, not istio-ca", shorten(strings.Join(c.Audience, ", "))))
	}
	if end := time.Unix(int64(c.Expires), 0); c.Expires > 0 && time.Now().After(end) {
		out = append(out, "it expired at "+end.UTC().Format(time.RFC3339))
	}
	if len(out) == 0 {
		return ""
	}
	return " (" + strings.Join(out, "; ") + ")"
}

// parseToken reads the claims of a JWT without checking who signed it.
func parseToken(token string) (claims, bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return claims{}, false
	}
	body, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return claims{}, false
	}
	var c claims
	return c, json.Unmarshal(body, &c) == nil
}

// subject is how Kubernetes calls the service account of id; empty when id is of another form.
func subject(id spiffeid.ID) string {
	parts := strings.Split(strings.TrimPrefix(id.Path(), "/"), "/")
	if len(parts) != 4 || parts[0] != "ns" || parts[2] != "sa" {
		return ""
	}
	return "system:serviceaccount:" + parts[1] + ":" + parts[3]
}

// shorten makes outside text fit for an error.
func shorten(s string) string {
	if s == "" {
		return "nobody"
	}
	if len(s) > maxClaim {
		s = s[:maxClaim] + "..."
	}
	return fmt.Sprintf("%q", s)
}
