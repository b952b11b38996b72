package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"
)

// result is what a command said and how it ended.
type result struct {
	stdout, stderr string
	code           int
}

// isthmus runs the command in this process.
func isthmus(t *testing.T, args ...string) result {
	t.Helper()
	return isthmusWith(t, t.Context(), strings.NewReader(""), args...)
}

func isthmusWith(t *testing.T, ctx context.Context, stdin io.Reader, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	err := run(ctx, args, stdin, &stdout, &stderr)
	r := result{stdout.String(), stderr.String(), exitCode(err)}
	t.Logf("isthmus %s: exit code %d\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	if said := strings.Contains(r.stderr, "error:") || strings.Contains(r.stderr, `"kind": "Error"`); said == (r.code == exitOK) {
		t.Errorf("exit code %d does not fit what standard error says", r.code)
	}
	if strings.Contains(r.stdout+r.stderr, "\x1b") {
		t.Error("colours, and this is no terminal")
	}
	return r
}

// want checks the code, and that all parts are said in order.
func (r result) want(t *testing.T, code int, stream string, parts ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d", r.code, code)
	}
	for _, p := range parts {
		at := strings.Index(stream, p)
		if at < 0 {
			t.Errorf("%q is not said (in this order)", p)
			return
		}
		stream = stream[at+len(p):]
	}
}

func decode[T any](t *testing.T, text string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("not one JSON document: %v\n%s", err, text)
	}
	return v
}

func TestUsageErrorsEndWithTwo(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		want []string
	}{
		{"unknown command", []string{"frobnicate"}, []string{`no command "frobnicate"`, "see isthmus --help"}},
		{"misspelt command", []string{"dail"}, []string{`no command "dail"`, "dial"}},
		{"unknown flag", []string{"dial", "a:1", "--frob"}, []string{"--frob", "see isthmus dial --help"}},
		{"unknown output", []string{"version", "-o", "yaml"}, []string{"text or json"}},
		{"argument missing", []string{"dial"}, []string{"HOST:PORT is missing"}},
		{"two arguments", []string{"dial", "a:1", "b:1"}, []string{"one HOST:PORT at a time"}},
		{"no port", []string{"dial", "orders"}, []string{`"orders" is not HOST:PORT`}},
		{"port zero", []string{"dial", "orders:0"}, []string{"not HOST:PORT"}},
		{"path", []string{"dial", "a:1", "--http", "orders"}, []string{"starts with /"}},
		{"header without request", []string{"dial", "a:1", "--header", "a: b"}, []string{"--header needs --http"}},
		{"header without colon", []string{"dial", "a:1", "--http", "/", "--header", "a"}, []string{"NAME:VALUE"}},
		{"via without peer", []string{"dial", "a:1", "--via", "10.0.0.1:15008"}, []string{"--via and --peer belong together"}},
		{"via is a name", []string{"dial", "a:1", "--via", "b:15008", "--peer", "spiffe://a/b"}, []string{"IP:PORT"}},
		{"peer is no id", []string{"dial", "a:1", "--via", "10.0.0.1:15008", "--peer", "orders"}, []string{"--peer"}},
		{"half an identity", []string{"dial", "a:1", "--cert", "x"}, []string{"belong together"}},
		{"istiod without port", []string{"dial", "a:1", "--istiod", "istiod"}, []string{"--istiod takes HOST:PORT"}},
		{"trust domain", []string{"dial", "a:1", "--trust-domain", "A B"}, []string{"--trust-domain"}},
		{"pod ip", []string{"dial", "a:1", "--pod-ip", "x"}, []string{"--pod-ip"}},
		{"service account", []string{"dial", "a:1", "--service-account", "gateway"}, []string{"NAMESPACE/NAME"}},
		{"timeout", []string{"dial", "a:1", "--timeout", "0s"}, []string{"--timeout"}},
		{"version of something", []string{"version", "x"}, []string{"x"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := isthmus(t, c.args...)
			r.want(t, exitUsage, r.stderr, c.want...)
			if r.stdout != "" {
				t.Errorf("standard output has %q", r.stdout)
			}
		})
	}
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{{}, {"--help"}, {"help"}} {
		r := isthmus(t, args...)
		r.want(t, exitOK, r.stdout, "Exit codes:", "0  it did", "1  it failed", "2  it was asked wrongly", "dial")
	}
	root := newRoot(&app{})
	for _, cmd := range root.Commands() {
		if cmd.Example == "" || cmd.Long == "" || cmd.Short == "" {
			t.Errorf("%s has no example, or no description", cmd.CommandPath())
		}
	}
}

func TestVersion(t *testing.T) {
	r := isthmus(t, "version")
	r.want(t, exitOK, r.stdout, "isthmus ", "go1.")
	v := decode[versionDocument](t, isthmus(t, "version", "-o", "json").stdout)
	if v.Kind != "Version" || v.APIVersion == "" || v.Version == "" || v.Go == "" {
		t.Errorf("got %+v", v)
	}
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		r := isthmus(t, "completion", shell)
		r.want(t, exitOK, r.stdout, "isthmus")
	}
	r := isthmus(t, "__complete", "dial", "-o", "")
	r.want(t, exitOK, r.stdout, "text", "json")
}
