package main

import (
	"regexp"
	"slices"
	"strings"
)

// notShown stands for what is secret.
const notShown = "(not shown)"

// likeToken is what looks like a JWT: three parts with dots, of which the first is a JSON object.
var likeToken = regexp.MustCompile(`\b(?:ey[AIJ]|ew[0ko])[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*`)

// masked is a text without the tokens in it.
func masked(text string) string { return likeToken.ReplaceAllLiteralString(text, notShown) }

// maskedHeader is the value of a header, but for one that is a secret, or a token.
func maskedHeader(name, value string) string {
	name = strings.ToLower(name)
	secret := func(part string) bool { return strings.Contains(name, part) }
	if slices.ContainsFunc([]string{"authorization", "cookie", "api-key", "apikey", "token", "secret", "password"}, secret) {
		return notShown
	}
	return masked(value)
}
