package explain

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// worldIn is the world of a case of testdata.
func worldIn(t testing.TB, name string) *Explainer {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	in, _, _ := strings.Cut(string(text), questions)
	return New(worldOf(t, in))
}

func TestMatrix(t *testing.T) {
	for name, tt := range map[string]struct {
		world string
		scope Scope
		want  []string
	}{
		"a gateway and what its routes lead to": {"captured-vip-waypoint", Scope{}, []string{
			"Gateway gateways/http > shop/orders:80: depends, gateway > waypoint shop/waypoint > pods, method: AuthorizationPolicy shop/edge rules[0].to[0].operation.methods",
		}},
		"with what is known of the request": {"captured-vip-waypoint", Scope{Request: policy.Request{Method: policy.Of("GET")}}, []string{
			"Gateway gateways/http > shop/orders:80: allow, gateway > waypoint shop/waypoint > pods, an ALLOW policy matches: AuthorizationPolicy shop/pods rules[0]",
		}},
		"accounts too": {"b1-allow-names-the-gateway", Scope{Accounts: true}, []string{
			"Gateway gateways/http > shop/orders:80: deny, gateway > waypoint shop/waypoint > pods, no ALLOW policy matches: AuthorizationPolicy shop/gateway-only",
			"ServiceAccount shop/orders > shop/orders:80: deny, client > waypoint shop/waypoint > pods, no ALLOW policy matches: AuthorizationPolicy shop/gateway-only",
		}},
		"no route leads there": {"not-there", Scope{}, nil},
		"every Service, at each port, whether a route leads there or not": {"not-there", Scope{AllServices: true}, []string{
			"Gateway gateways/http > shop/orders:80: allow (no route), gateway > pods, no policy asks", "Gateway gateways/http > shop/orders:9090: allow (no route), ",
		}},
		"one source":                   {"captured-vip-waypoint", Scope{From: []Source{{Kind: "ServiceAccount", Key: keyOf(named2("shop", "orders"))}}}, []string{"ServiceAccount shop/orders > shop/orders:80: deny, "}},
		"some pods do and some do not": {"plaintext-to-strict", Scope{}, []string{"Gateway gateways/http > shop/orders:80: depends, gateway > pods (plaintext), which pod sends: PeerAuthentication istio-system/default"}},
		"a waypoint that is down":      {"waypoint-has-no-ready-pod", Scope{}, []string{"Gateway gateways/http > shop/orders:80: deny, gateway > waypoint shop/waypoint > pods, waypoint shop/waypoint has no pod that is ready"}},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := worldIn(t, tt.world).Matrix(tt.scope)
			if err != nil {
				t.Fatal(err)
			}
			if len(m.Cells) != len(tt.want) {
				t.Errorf("%d cells, want %d", len(m.Cells), len(tt.want))
			}
			for i := range m.Cells {
				c := &m.Cells[i]
				path, why := c.Why()
				routed := ""
				if !c.Routed {
					routed = " (no route)"
				}
				got := fmt.Sprintf("%s > %s: %v%s, %s, %s", c.From, c.To, c.Answer.Verdict, routed, path, why)
				if i < len(tt.want) && !strings.HasPrefix(got, tt.want[i]) {
					t.Errorf("got  %s\nwant %s", got, tt.want[i])
				}
			}
		})
	}
	if _, err := worldIn(t, "not-there").Matrix(Scope{From: []Source{{Key: keyOf(named2("x", "y"))}}}); err == nil {
		t.Error("a source that is not there has answers")
	}
}

func TestHTMLNeedsNothingElse(t *testing.T) {
	m, err := worldIn(t, "b1-allow-names-the-gateway").Matrix(Scope{Accounts: true, AllServices: true})
	if err != nil {
		t.Fatal(err)
	}
	m.Cells[0].Answer.Notes = append(m.Cells[0].Answer.Notes, "<script>alert(1)</script>")
	var out strings.Builder
	if err := HTML(&out, &m, "GET /x", []string{"a note"}); err != nil {
		t.Fatal(err)
	}
	text := out.String()
	for _, never := range []string{"<script", "http://", "https://", "url(", "@import", " src=", "<link"} {
		if strings.Contains(text, never) {
			t.Errorf("it has %q", never)
		}
	}
	for i := range m.Cells {
		path, _ := m.Cells[i].Why()
		if title := m.Cells[i].Answer.Title(); !strings.Contains(text, strings.ReplaceAll(title, ">", "&gt;")) || !strings.Contains(text, strings.ReplaceAll(path, ">", "&gt;")) {
			t.Errorf("%q is not in it", title)
		}
	}
	for _, part := range []string{"Requests: GET /x.", "a note", "&lt;script&gt;", `class="deny"`, `<th scope="row">shop/orders:80</th>`} {
		if !strings.Contains(text, part) {
			t.Errorf("%q is not in it", part)
		}
	}
	for id := range strings.SplitSeq(text, `href="#`) {
		id, _, _ = strings.Cut(id, `"`)
		if !strings.HasPrefix(id, "<!DOCTYPE") && !strings.Contains(text, `<section id="`+id+`"`) {
			t.Errorf("%s leads nowhere", id)
		}
	}
}

// TestMatrixIsBounded: each account of a large cluster with each of its Services is more than anybody reads.
func TestMatrixIsBounded(t *testing.T) {
	const accounts, services = 500, 401
	var in strings.Builder
	for i := range accounts {
		fmt.Fprintf(&in, "{apiVersion: v1, kind: Pod, metadata: {name: p%d, namespace: a}, spec: {serviceAccountName: s%d}}\n---\n", i, i)
	}
	for i := range services {
		fmt.Fprintf(&in, "{apiVersion: v1, kind: Service, metadata: {name: s%d, namespace: a}, spec: {ports: [{port: 80}]}}\n---\n", i)
	}
	x := New(worldOf(t, in.String()))
	_, err := x.Matrix(Scope{Accounts: true, AllServices: true})
	if e, is := errors.AsType[*TooLargeError](err); !is || e.Sources != accounts || e.Services != services {
		t.Errorf("got %v", err)
	}
	m, err := x.Matrix(Scope{From: []Source{{Kind: "ServiceAccount", Key: keyOf(named2("a", "s1"))}}, AllServices: true})
	if err != nil || len(m.Cells) != services {
		t.Errorf("for one source: %d cells, %v", len(m.Cells), err)
	}
}
