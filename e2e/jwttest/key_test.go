package jwttest_test

import (
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/isthmus-mesh/isthmus/e2e/jwttest"
)

// TestTokens has somebody else's code read keys and tokens.
func TestTokens(t *testing.T) {
	key, err := jwttest.NewKey("one")
	if err != nil {
		t.Fatal(err)
	}
	text, err := key.JWK()
	if err != nil {
		t.Fatal(err)
	}
	public := jose.JSONWebKey{}
	if err := public.UnmarshalJSON([]byte(text)); err != nil || !public.Valid() || !public.IsPublic() || public.KeyID != "one" {
		t.Fatalf("%s is read as %+v: %v", text, public, err)
	}
	token, err := key.Sign(map[string]any{"iss": "https://a.example", "sub": "ann", "exp": time.Now().Add(time.Hour).Unix()})
	if err != nil {
		t.Fatal(err)
	}
	read, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	claims := jwt.Claims{}
	if err := read.Claims(public, &claims); err != nil || claims.Subject != "ann" || claims.Issuer != "https://a.example" {
		t.Errorf("%s is read as %+v: %v", token, claims, err)
	}
	other, err := jwttest.NewKey("one")
	if err != nil {
		t.Fatal(err)
	}
	set, err := other.JWKS()
	if err != nil {
		t.Fatal(err)
	}
	if err := public.UnmarshalJSON([]byte(strings.TrimSuffix(strings.TrimPrefix(set, `{"keys":[`), "]}"))); err != nil {
		t.Fatal(err)
	}
	if err := read.Claims(public, &claims); err == nil {
		t.Error("a token counts as signed with a key that did not sign it")
	}
}
