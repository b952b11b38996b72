package jwttest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
)

// Key signs tokens of one issuer or several.
type Key struct {
	private *ecdsa.PrivateKey
	id      string
}

// NewKey makes a key. Those of one set need different ids.
func NewKey(id string) (*Key, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key %s: %w", id, err)
	}
	return &Key{private, id}, nil
}

// JWK is the public key, as JSON.
func (k *Key) JWK() (string, error) {
	point, err := k.private.PublicKey.Bytes() // 4, x, y
	if err != nil {
		return "", fmt.Errorf("write key %s: %w", k.id, err)
	}
	text, err := json.Marshal(map[string]string{
		"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": k.id, "x": encode(point[1:33]), "y": encode(point[33:]),
	})
	return string(text), err
}

// JWKS is a set of this key alone, as JSON.
func (k *Key) JWKS() (string, error) {
	key, err := k.JWK()
	return `{"keys":[` + key + `]}`, err
}

// Sign makes a token of claims. What they lack it lacks too: an issuer, an end.
func (k *Key) Sign(claims map[string]any) (string, error) {
	head, err := json.Marshal(map[string]string{"alg": "ES256", "kid": k.id})
	if err != nil {
		return "", fmt.Errorf("sign a token: %w", err)
	}
	body, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("sign a token: %w", err)
	}
	text := encode(head) + "." + encode(body)
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, k.private, sum[:])
	if err != nil {
		return "", fmt.Errorf("sign a token: %w", err)
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return text + "." + encode(signature), nil
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
