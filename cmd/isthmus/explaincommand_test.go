package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/controller/explain"
	"github.com/isthmus-mesh/isthmus/hbone"
)

// explained is a case of package explain: its objects in a file, and what is to be answered to each question.
func explained(t *testing.T, name string) (file string, answers map[string]string) {
	t.Helper()
	text, err := os.ReadFile("../../controller/explain/testdata/" + name + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	objects, rest, _ := strings.Cut(string(text), "---questions---\n")
	_, said, ok := strings.Cut(rest, "---answers---\n")
	if !ok {
		t.Fatalf("%s has no answers", name)
	}
	file = filepath.Join(t.TempDir(), name+".yaml")
	if err := os.WriteFile(file, []byte(objects), 0o600); err != nil {
		t.Fatal(err)
	}
	answers = map[string]string{}
	for part := range strings.SplitSeq("\n"+said, "\n> ") {
		question, answer, _ := strings.Cut(part, "\n")
		answers[question] = strings.TrimRight(answer, "\n") + "\n"
	}
	return file, answers
}

func TestExplainAnswersOfFiles(t *testing.T) {
	file, answers := explained(t, "files")
	r := isthmus(t, "explain", "-f", file, "--from", "gateways/http", "--to", "shop/orders:80", "--method", "GET")
	r.want(t, exitOK, r.stdout)
	if want := answers["gateways/http shop/orders:80 method=GET"]; r.stdout != want || want == "" {
		t.Errorf("got\n%s\nwant\n%s", r.stdout, want)
	}
	if n := isthmus(t, "explain", "-f", file, "-n", "gateways", "--from", "http", "--to", "shop/orders:http", "--method", "GET"); n.stdout != r.stdout {
		t.Errorf("with -n it is\n%s", n.stdout)
	}
	d := decode[explainDocument](t, isthmus(t, "explain", "-f", file, "--from", "gateways/http", "--to", "shop/orders:80", "--method", "POST", "--path", "/x", "--why-not", "-o", "json").stdout)
	if d.Kind != "Explanation" || d.Verdict != "deny" || len(d.Ways) != 1 || len(d.Ways[0].Hops) != 3 || d.Request != "POST, path /x" || len(d.Notes) == 0 {
		t.Fatalf("got %+v", d)
	}
	hop := d.Ways[0].Hops[1]
	if hop.Enforcer != "waypoint" || hop.Transport != "hbone" || hop.Decision.Verdict != "deny" || hop.Decision.Policy != "AuthorizationPolicy shop/edge" || hop.Decision.Rule != nil ||
		hop.Seen[0] != "spiffe://cluster.local/ns/gateways/sa/http" || hop.Expected[0] != "spiffe://cluster.local/ns/shop/sa/waypoint" {
		t.Errorf("got %+v, %+v", hop, hop.Decision)
	}
	if c := d.Changes; c == nil || len(c.Texts) != 1 || len(c.Patches) != 1 || !strings.Contains(c.Patches[0].Patch, "path: /spec/rules/-") || !strings.Contains(c.Patches[0].Patch, "- /x") {
		t.Errorf("got %+v", d.Changes)
	}
	page := isthmus(t, "explain", "-f", file, "--from", "gateways/http", "--to", "shop/orders:80", "-o", "html")
	page.want(t, exitOK, page.stdout, "<!DOCTYPE html>", "depends", "shop/orders", "</html>")
}

func TestExplainMatrix(t *testing.T) {
	file, _ := explained(t, "files")
	r := isthmus(t, "explain", "-f", file, "--matrix", "--accounts", "--path", "/x")
	r.want(t, exitOK, r.stdout, "FROM", "VERDICT", "Gateway gateways/http", "shop/orders:80", "depends", "gateway > waypoint shop/waypoint > pods", "method",
		"ServiceAccount elsewhere/client", "0 allow, 0 deny, 2 depends")
	d := decode[matrixDocument](t, isthmus(t, "explain", "-f", file, "--matrix", "--all-services", "--method", "GET", "-o", "json").stdout)
	if d.Kind != "AccessMatrix" || len(d.Cells) != 1 || d.Cells[0].Verdict != "allow" || !d.Cells[0].Routed || d.Cells[0].Why == "" || d.Request != "GET" {
		t.Errorf("got %+v", d)
	}
	page := isthmus(t, "explain", "-f", file, "--matrix", "-o", "html")
	page.want(t, exitOK, page.stdout, "<!DOCTYPE html>", "Gateway gateways/http", `<td class="depends">`)
	empty := filepath.Join(t.TempDir(), "empty.yaml")
	if err := os.WriteFile(empty, []byte("{apiVersion: v1, kind: Namespace, metadata: {name: x}}"), 0o600); err != nil {
		t.Fatal(err)
	}
	r = isthmus(t, "explain", "-f", empty, "--matrix")
	r.want(t, exitOK, r.stderr, "There is no gateway", "next:")
}

func TestExplainSaysWhatIsThere(t *testing.T) {
	file, _ := explained(t, "files")
	for _, c := range []struct {
		from, to string
		want     []string
	}{
		{"gateways/htpp", "shop/orders:80", []string{"no gateway or service account gateways/htpp", "gateways/http"}},
		{"gateways/http", "shop/order:80", []string{"no Service shop/order", "shop/orders"}},
		{"gateways/http", "shop/orders:81", []string{"no TCP port 81", "shop/orders:80"}},
		{"pod/gateways/x", "shop/orders:80", []string{"no pod gateways/x"}},
	} {
		r := isthmus(t, "explain", "-f", file, "--from", c.from, "--to", c.to)
		r.want(t, exitFailed, r.stderr, append(append([]string{}, c.want[0], "next:"), c.want[1:]...)...)
	}
}

func TestExplainIsAskedWrongly(t *testing.T) {
	both := []string{"--from", "a/b", "--to", "c/d"}
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "--from and --to"},
		{[]string{"--from", "a/b"}, "--from and --to"},
		{[]string{"--from", "a", "--to", "c/d"}, "not NAMESPACE/NAME"},
		{[]string{"--from", "ship/a/b", "--to", "c/d"}, "no kind that is known"},
		{[]string{"--from", "spiffe://A B", "--to", "c/d"}, "--from"},
		{[]string{"--from", "a/b", "--to", "c/d:"}, "ends without a port"},
		{[]string{"--matrix", "--to", "c/d"}, "leave --to out"},
		{[]string{"--matrix", "--why-not"}, "--matrix asks many questions"},
		{append([]string{"--accounts"}, both...), "go with --matrix"},
		{append([]string{"--path", "x"}, both...), "starts with /"},
		{append([]string{"--header", "x"}, both...), "NAME=VALUE"},
		{append([]string{"--header", "Host: x"}, both...), "that is --host"},
		{append([]string{"--jwt", "iss"}, both...), "CLAIM=VALUE"},
		{append([]string{"--source-ip", "x"}, both...), "--source-ip takes an IP address"},
		{append([]string{"--client-ip", "x"}, both...), "--client-ip takes an IP address"},
		{append([]string{"--via", "10.0.0.1:15008"}, both...), "--via is for --live"},
		{append([]string{"--live", "--via", "10.0.0.1:15008"}, both...), "--via and --peer belong together"},
		{append([]string{"--live", "--jwt", "iss=x"}, both...), "no token of its own making"},
		{append([]string{"-o", "yaml"}, both...), "text, json or html"},
	} {
		r := isthmus(t, append([]string{"explain"}, c.args...)...)
		r.want(t, exitUsage, r.stderr, c.want, "see isthmus explain --help")
	}
}

func TestRequestIsRead(t *testing.T) {
	f := requestFlags{method: "GET", headers: []string{"X-A=1", "x-a: 2"}, jwt: []string{"iss=a", "aud=x", "aud=y", "aud=z"}, clientIP: none}
	r, err := f.read("isthmus explain")
	if err != nil {
		t.Fatal(err)
	}
	if !r.Method.Known() || r.Path.Known() || !r.Headers["x-a"].Known() || !r.Token.Known() || !r.RemoteIP.Known() || r.SourceIP.Known() {
		t.Errorf("got %+v", r)
	}
	if got := strings.Join(f.words, ", "); got != "GET, header x-a: 1, header x-a: 2, a token with iss=a, aud=x, aud=y, aud=z, no X-Forwarded-For" {
		t.Errorf("it says %q", got)
	}
}

// TestExplainLive holds what files say against a server of HBONE that does so, or does not.
func TestExplainLive(t *testing.T) {
	deny := func(context.Context, *hbone.ConnectRequest) (net.Conn, error) {
		return nil, &hbone.Refusal{Status: 401}
	}
	down := func(context.Context, *hbone.ConnectRequest) (net.Conn, error) {
		return nil, &hbone.Refusal{Status: 503}
	}
	const allowOthers = "---\n{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: others, namespace: shop}, spec: {rules: [{from: [{source: {namespaces: [web]}}]}]}}\n"
	for _, c := range []struct {
		name, path, from, policy string
		connect                  func(context.Context, *hbone.ConnectRequest) (net.Conn, error)
		code                     int
		want                     []string
	}{
		{"allowed, as told", "/orders", "sa/edge/gateway", "", nil, exitOK, []string{"tried as spiffe://cluster.local/ns/edge/sa/gateway", "way 1: as told, allow: HTTP 200 OK"}},
		{"denied, as told", "/orders", "sa/edge/gateway", allowOthers, deny, exitOK, []string{"way 1: as told, deny:"}},
		{"told to be denied", "/orders", "sa/edge/gateway", allowOthers, nil, exitFailed, []string{"way 1: differs, allow:", "it was to be denied, and got through"}},
		{"told to be allowed", "/orders", "sa/edge/gateway", "", deny, exitFailed, []string{"way 1: differs, deny:", "it was to be allowed, and did not get through"}},
		{"the application has such an answer", "/forbidden", "sa/edge/gateway", "", nil, exitFailed, []string{"way 1: differs, deny: HTTP 403 Forbidden, RBAC: access denied"}},
		{"who is called is down", "/orders", "sa/edge/gateway", "", down, exitFailed, []string{"way 1: tells nothing, failed:", "without a word of a policy: who is called may be down"}},
		{"who is called is down, and was to deny", "/orders", "sa/edge/gateway", allowOthers, down, exitFailed, []string{"way 1: tells nothing, failed:", "that may be for another reason"}},
		{"as somebody else, and told so", "/orders", "sa/web/front", allowOthers, deny, exitOK, []string{"sa/gateway", "way 1: as told, deny:"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			app := orders(t)
			_, port, err := net.SplitHostPort(app)
			if err != nil {
				t.Fatal(err)
			}
			s := newShop(t, app, c.connect)
			file := filepath.Join(t.TempDir(), "world.yaml")
			pod := "{apiVersion: v1, kind: Pod, metadata: {name: orders-1, namespace: shop, uid: u, annotations: {ambient.istio.io/redirection: enabled}}, spec: {serviceAccountName: orders}, status: {podIP: 127.0.0.1}}\n"
			if err := os.WriteFile(file, []byte(pod+c.policy), 0o600); err != nil {
				t.Fatal(err)
			}
			r := isthmus(t, append([]string{"explain", "-f", file, "--live", "--from", c.from, "--to", "pod/shop/orders-1:" + port, "--path", c.path}, s.flags...)...)
			r.want(t, c.code, r.stdout, c.want...)
			if other := strings.Contains(r.stderr, "the identity that we hold is"); other != (c.from == "sa/web/front") {
				t.Errorf("standard error is %q", r.stderr)
			}
			if c.code != exitOK {
				said := "the probe is not what was told"
				if strings.HasPrefix(c.want[0], "way 1: tells nothing") {
					said = "the probe tells nothing: it was to be"
				}
				r.want(t, c.code, r.stderr, said, "next:")
			}
		})
	}
}

func TestExplainLiveDoesNotTryPlaintext(t *testing.T) {
	s := newShop(t, orders(t), nil)
	file := filepath.Join(t.TempDir(), "world.yaml")
	pods := "{apiVersion: v1, kind: Pod, metadata: {name: orders-1, namespace: shop, uid: u, annotations: {}}, spec: {serviceAccountName: orders}, status: {podIP: 127.0.0.1}}\n"
	if err := os.WriteFile(file, []byte(pods), 0o600); err != nil {
		t.Fatal(err)
	}
	r := isthmus(t, append([]string{"explain", "-f", file, "--live", "--from", "sa/edge/gateway", "--to", "pod/shop/orders-1:80", "-o", "json"}, s.flags...)...)
	d := decode[explainDocument](t, r.stdout)
	if d.Live == nil || len(d.Live.Probes) != 1 || d.Live.Probes[0].Result != probeSkipped || d.Live.Identity != account("edge", "gateway").String() || r.code != exitOK {
		t.Errorf("got %+v", d.Live)
	}
}

func TestAWayInDoubtThatIsNotTakenDoesNotDiffer(t *testing.T) {
	l := liveDetail{Probes: []probeDetail{
		{Way: 1, Target: "a:1", Result: probeAllowed, Differs: "it was to be denied, and got through", doubted: true}, {Way: 2, Target: "a:1", Result: probeAllowed, doubted: true},
		{Way: 3, Target: "b:1", Result: probeAllowed, Differs: "no", doubted: true}, {Way: 4, Target: "b:1", Result: probeSkipped, doubted: true},
	}}
	l.settle()
	if l.Probes[0].Differs != "" || !strings.Contains(l.Probes[0].Said, "way 2 is the one that is taken") || l.Probes[2].Differs == "" {
		t.Errorf("got %+v", l.Probes)
	}
	if l.failure() == nil {
		t.Error("nothing differs any more")
	}
}

func TestAMatrixThatIsTooLargeSaysWhatToNarrow(t *testing.T) {
	err := (&explainFlags{accounts: true, allServices: true}).missing(&explain.TooLargeError{Sources: 500, Services: 401})
	d := detail(err)
	if d.Message != "500 sources and 401 Services are more than 200000 questions" || d.ExitCode != exitFailed {
		t.Errorf("got %+v", d)
	}
	if want := "name one source with --from, or leave --accounts out, or leave --all-services out, or look at fewer manifests with -f"; d.Next != want {
		t.Errorf("got  %s\nwant %s", d.Next, want)
	}
}
