package main

import (
	"strings"
	"testing"
)

// rawToken is nobody's token.
const rawToken = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl"

// TestSecretsAreNotShown: pages are sent around, and logs of CI are read by many.
func TestSecretsAreNotShown(t *testing.T) {
	file, _ := explained(t, "files")
	args := []string{
		"explain", "-f", file, "--from", "gateways/http", "--to", "shop/orders:80", "--path", "/a?t=" + rawToken, "--jwt", "iss=me,act=" + rawToken, "--header", "x-a=shown",
		"--header", "Authorization=Basic s3cret", "--header", "proxy-authorization: s3cret", "--header", "cookie=s3cret", "--header", "X-API-Key=s3cret", "--header", "x-b=" + rawToken,
	}
	for _, more := range [][]string{{"-o", "json"}, {"-o", "html"}, {"-o", "text"}} {
		r := isthmus(t, append(args, more...)...)
		r.want(t, exitOK, r.stdout)
		if all := r.stdout + r.stderr; strings.Contains(all, "s3cret") || strings.Contains(all, rawToken) {
			t.Errorf("%s shows a secret:\n%s", more, all)
		}
		if more[1] == "json" {
			want := "path /a?t=(not shown), header x-a: shown, header authorization: (not shown), header proxy-authorization: (not shown), header cookie: (not shown), " +
				"header x-api-key: (not shown), header x-b: (not shown), a token with iss=me, act=(not shown)"
			if got := decode[explainDocument](t, r.stdout).Request; got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		}
	}
}

// TestUsageErrorsDoNotQuoteSecrets: what is given in the wrong form is a secret all the same.
func TestUsageErrorsDoNotQuoteSecrets(t *testing.T) {
	both := []string{"explain", "--from", "a/b", "--to", "c/d"}
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"a raw token":              {append(both, "--jwt", rawToken), "--jwt takes CLAIM=VALUE"},
		"a raw token, and a quote": {append(both, "--jwt", rawToken+`"`), "--jwt"},
		"an opaque one":            {append([]string{"--jwt", "s3cret"}, both...), "--jwt takes CLAIM=VALUE"},
		"a header without a name":  {append([]string{"--header", "Bearer s3cret"}, both...), "--header takes NAME=VALUE"},
		"no quotes about a header": {append(both, "--header", "x:", rawToken), "takes no argument"},
		"the path":                 {append([]string{"--path", rawToken}, both...), "starts with /"},
		"dial":                     {[]string{"dial", "a:1", "--http", "/", "--header", "Bearer s3cret"}, "NAME:VALUE"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, output := range []string{"text", "json"} {
				r := isthmus(t, append(c.args, "-o", output)...)
				r.want(t, exitUsage, r.stderr, c.want)
				if all := r.stdout + r.stderr; strings.Contains(all, "s3cret") || strings.Contains(all, rawToken) {
					t.Errorf("it shows a secret:\n%s", all)
				}
			}
		})
	}
}
