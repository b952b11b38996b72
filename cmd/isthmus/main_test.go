package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
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
	if missing := firstMissing(stream, parts); missing != "" {
		t.Errorf("%q is not said (in this order)", missing)
	}
}

// says reports whether all parts are said in order.
func says(stream string, parts ...string) bool { return firstMissing(stream, parts) == "" }

func firstMissing(stream string, parts []string) string {
	for _, p := range parts {
		at := strings.Index(stream, p)
		if at < 0 {
			return p
		}
		stream = stream[at+len(p):]
	}
	return ""
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
		{"time that is over", []string{"status", "--timeout", "-1s"}, []string{"--timeout takes a time above zero", "isthmus status --help"}},
		{"help for an unknown command", []string{"help", "dail"}, []string{`no command "dail"`, "dial", "see isthmus help --help"}},
		{"completion for nothing", []string{"completion"}, []string{"the shell's name is missing", "see isthmus completion --help"}},
		{"completion for no shell", []string{"completion", "tcsh"}, []string{`no completion for "tcsh"`, "bash, fish, powershell, zsh"}},
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
	if r := isthmus(t, "help", "plan"); r.stdout != isthmus(t, "plan", "--help").stdout {
		t.Errorf("help plan says %q", r.stdout)
	}
	for _, cmd := range everyCommand(newRoot(&app{})) {
		if cmd.Example == "" || cmd.Long == "" || cmd.Short == "" {
			t.Errorf("%s has no example, or no description", cmd.CommandPath())
		}
		help := isthmus(t, append(strings.Fields(cmd.CommandPath())[1:], "--help")...).stdout
		for line := range strings.Lines(help) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
				t.Errorf("%s --help has a line of %d columns, 80 are allowed: %s", cmd.CommandPath(), n, line)
			}
		}
	}
}

func TestVersion(t *testing.T) {
	r := isthmus(t, "version")
	r.want(t, exitOK, r.stdout, "isthmus ", "go1.")
	if flag := isthmus(t, "--version"); flag.code != exitOK || flag.stdout != r.stdout {
		t.Errorf("--version says %q", flag.stdout)
	}
	for _, args := range [][]string{{"version", "-o", "json"}, {"--version", "-o", "json"}} {
		v := decode[versionDocument](t, isthmus(t, args...).stdout)
		if v.Kind != "Version" || v.APIVersion == "" || v.Version == "" || v.Go == "" {
			t.Errorf("got %+v", v)
		}
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

// TestCompletionIsSilentWithoutACluster asks for names where none are to be had.
func TestCompletionIsSilentWithoutACluster(t *testing.T) {
	mute, err := net.Listen("tcp", "127.0.0.1:0") // connections are made, and nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	path := filepath.Join(t.TempDir(), "config")
	for name, server := range map[string]string{"nobody listens": closedPort(t), "nobody answers": mute.Addr().String()} {
		t.Run(name, func(t *testing.T) {
			config := "{apiVersion: v1, kind: Config, clusters: [{name: c, cluster: {server: 'http://" + server + "'}}], contexts: [{name: east, context: {cluster: c}}], current-context: east}"
			if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
				t.Fatal(err)
			}
			t.Setenv("KUBECONFIG", path)
			for _, c := range []struct {
				args []string
				want string
			}{
				{[]string{"status", ""}, ":4\n"},
				{[]string{"plan", "-n", ""}, ":4\n"},
				{[]string{"dial", ""}, ":4\n"},
				{[]string{"explain", "--from", ""}, ":4\n"},
				{[]string{"explain", "--from", "sa/"}, ":4\n"},
				{[]string{"explain", "--to", ""}, ":4\n"},
				{[]string{"explain", "--method", "P"}, "DELETE\nGET\nHEAD\nOPTIONS\nPATCH\nPOST\nPUT\n:4\n"},
				{[]string{"status", "--context", "e"}, "east\n:4\n"},
				{[]string{"completion", "z"}, "zsh\n:4\n"},
			} {
				begin := time.Now()
				r := isthmus(t, append([]string{"__complete"}, c.args...)...)
				if took := time.Since(begin); r.code != exitOK || r.stdout != c.want || took > 2*completionTimeout {
					t.Errorf("%q: got %q after %v, want %q", c.args, r.stdout, took, c.want)
				}
			}
		})
	}
}

func TestCompletionShowsFlagsWithoutMarks(t *testing.T) {
	for _, command := range []string{"plan", "dial", "controller", "explain"} {
		r := isthmus(t, "__complete", command, "--")
		r.want(t, exitOK, r.stdout, "--")
		if strings.Contains(r.stdout, "`") {
			t.Errorf("%s: backquotes are shown:\n%s", command, r.stdout)
		}
	}
	if r := isthmus(t, "plan", "--help"); !strings.Contains(r.stdout, "--filename FILE") {
		t.Errorf("help does not name the value any more:\n%s", r.stdout)
	}
}
