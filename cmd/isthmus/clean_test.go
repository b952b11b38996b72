package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// hostile is what whoever may name or annotate an object could write: it clears a screen, changes a title, goes back in a line and turns text around.
const hostile = "a\x1b[2J\x1b]0;x\x07\u009b2J\rb\u202ec\x1b[32m\nTrue"

func TestTextOfTheClusterIsNoCommandToATerminal(t *testing.T) {
	e := edgeStatus{Namespace: "edge", Name: "public", Mode: hostile, Created: metav1.NewTime(time.Unix(0, 0)), Current: true, Status: v1alpha1.AmbientEdgeStatus{
		Conditions: []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: hostile, Message: hostile}},
		Gateways:   []v1alpha1.GatewayStatus{{Name: hostile, Vendor: hostile, Switch: hostile, Identity: hostile}},
		Backends:   []v1alpha1.BackendStatus{{Service: hostile, Waypoint: hostile, Path: hostile}},
		Findings:   []v1alpha1.Finding{{Code: "ISM302", Severity: v1alpha1.SeverityError, Object: hostile, Field: hostile, Message: hostile, Fix: hostile}},
		Plan:       v1alpha1.Plan{Steps: []v1alpha1.Step{{Verb: "Wire", Object: hostile, Reason: hostile}}},
	}}
	doc := &statusDocument{header: newHeader("Status"), Edges: []edgeStatus{e}}
	for name, colours := range map[string]bool{"to a file": false, "to a terminal": true} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			p := &page{w: cleaner{&out, colours}, colours: colours}
			if err := e.print(p); err != nil {
				t.Fatal(err)
			}
			if err := doc.print(p, time.Unix(60, 0)); err != nil {
				t.Fatal(err)
			}
			got := out.String()
			for _, bad := range []string{"\x1b[2J", "\x1b]", "\x07", "\u009b", "\r", "\u202e"} {
				if strings.Contains(got, bad) {
					t.Errorf("%q gets to the terminal", bad)
				}
			}
			if !strings.Contains(got, `\u001b[2J`) {
				t.Error("it is not shown either")
			}
			for line := range strings.SplitSeq(got, "\n") {
				if strings.HasPrefix(line, "True") {
					t.Errorf("a line of its own: %q", line)
				}
			}
			if !colours && strings.Contains(got, "\x1b") {
				t.Error("an escape where no colours are wanted")
			}
		})
	}
	t.Run("as JSON", func(t *testing.T) {
		var out bytes.Buffer
		if err := encode(&out, doc); err != nil {
			t.Fatal(err)
		}
		if strings.ContainsAny(out.String(), "\x1b\x07\u009b\r\u202e") {
			t.Errorf("%q", out.String())
		}
		var back statusDocument
		if err := json.Unmarshal(out.Bytes(), &back); err != nil {
			t.Fatal(err)
		}
		if got := back.Edges[0].Status.Findings[0].Message; got != hostile {
			t.Errorf("what is read is %q", got)
		}
	})
}

// TestYAMLReadsAsItWas: what is escaped for a terminal is the same text to whoever reads the document.
func TestYAMLReadsAsItWas(t *testing.T) {
	marks := "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
	long := strings.Repeat("a word and another ", 20)
	for name, text := range map[string]string{
		"a name": "orders", "commands": hostile, "a colour": "a\x1b[32mb", "a control that YAML does not take": "a\u009b2Jb", "marks": "a" + marks + "b", "marks on lines": "a\n" + marks + "\nb\n", "marks in a long text": long + marks + long,
		"marks that look escaped": `a\u202e` + "\u202e", "no text": "a\ufffdb",
	} {
		t.Run(name, func(t *testing.T) {
			doc := &planDocument{header: newHeader("Plan"), Findings: []v1alpha1.Finding{{Code: "ISM302", Message: text, Fix: "as it is"}}}
			var plan, observed bytes.Buffer
			if err := (&app{stdout: &plan}).writeYAML(doc); err != nil {
				t.Fatal(err)
			}
			g := observedGateway{Namespace: "edge", Name: "http", Plan: &planDocument{Namespace: "edge", Name: "http"}, Edge: &v1alpha1.AmbientEdgeSpec{TakeOver: []string{text}}}
			err := (&app{stdout: &observed, output: outputYAML}).observeOne(&observeDocument{Gateways: []observedGateway{g, g}}, &observeFlags{})
			if err != nil {
				t.Fatal(err)
			}
			for _, out := range []string{plan.String(), observed.String()} {
				if strings.ContainsAny(out, "\x1b\x07\u009b\r"+marks) {
					t.Errorf("it gets to the terminal: %q", out)
				}
			}
			change := planChange{Deed: "Change", Kind: "Service", Name: "orders", Fields: []planFields{{After: text, path: []string{"metadata", "annotations", "a"}}}}
			var diff bytes.Buffer
			if err := change.printDiff(&page{w: cleaner{w: &diff}}); err != nil || strings.ContainsAny(diff.String(), "\x1b\x07\u009b\r"+marks) {
				t.Errorf("%v; it gets to the terminal: %q", err, diff.String())
			}
			var back planDocument
			if err := yaml.Unmarshal(plan.Bytes(), &back); err != nil || back.Findings[0].Message != text {
				t.Errorf("%v; %q is read as %q", err, text, back.Findings[0].Message)
			}
			edges := strings.Split(observed.String(), "---\n")
			for _, one := range edges {
				var e v1alpha1.AmbientEdge
				if err := yaml.Unmarshal([]byte(one), &e); err != nil || len(e.Spec.TakeOver) != 1 || e.Spec.TakeOver[0] != text {
					t.Errorf("%v; %q is read as %+v", err, text, e.Spec)
				}
			}
			if is := strings.HasPrefix(plan.String(), "{"); is != strings.ContainsAny(text, marks+"\u009b") || len(edges) != 2 {
				t.Errorf("as JSON: %t; AmbientEdges: %d", is, len(edges))
			}
		})
	}
}

func TestErrorsAreNoCommandsToATerminal(t *testing.T) {
	var out bytes.Buffer
	a := &app{stderr: &out, getenv: func(string) string { return "" }}
	a.report(&failure{what: hostile, where: hostile, next: hostile})
	if strings.ContainsAny(out.String(), "\x1b\x07\u009b\r\u202e") || strings.Contains(out.String(), "\nTrue") {
		t.Errorf("%q", out.String())
	}
}
