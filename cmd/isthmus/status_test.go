package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// anEdge is an AmbientEdge halfway.
func anEdge() edgeStatus {
	return edgeStatus{Namespace: "edge", Name: "public", Mode: v1alpha1.ModeManage, Current: true, Generation: 2,
		Created: metav1.NewTime(time.Unix(1000, 0)),
		Status: v1alpha1.AmbientEdgeStatus{
			ObservedGeneration: 2,
			Conditions: []metav1.Condition{
				{Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonInProgress, Message: "2 of 4 steps are done"},
				{Type: v1alpha1.ConditionEnrolled, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonDone},
			},
			Gateways: []v1alpha1.GatewayStatus{{Name: "Deployment/gateway", Vendor: "custom", Identity: "spiffe://cluster.local/ns/edge/sa/gateway", Pods: 2, Captured: 1}},
			Backends: []v1alpha1.BackendStatus{{Service: "shop/orders", Waypoint: "shop/waypoint", Path: "gateway, waypoint, orders", Policies: []string{"shop/callers"}}},
			Findings: []v1alpha1.Finding{{Code: v1alpha1.FindingWaypointSilent, Severity: v1alpha1.SeverityWarning, Object: "Gateway shop/waypoint", Field: "status.addresses",
				Message: "the waypoint does not answer a CONNECT for 10.96.3.4:80 yet; it has one pod, which is not ready", Fix: "look into its log: kubectl -n shop logs deploy/waypoint"}},
			FindingsLeftOut: 3,
			Plan: v1alpha1.Plan{Steps: []v1alpha1.Step{
				{ID: "enrol", Verb: "Enrol", Object: "Deployment edge/gateway", State: v1alpha1.StepDone, Reason: "label istio.io/dataplane-mode=ambient"},
				{ID: "await", Verb: "Await", Object: "Gateway shop/waypoint", State: v1alpha1.StepNext, Reason: "no pod of it is ready"},
			}},
		}}
}

func TestStatusOfOneEdge(t *testing.T) {
	for _, width := range []int{0, 80, 120} {
		var out bytes.Buffer
		e := anEdge()
		if err := e.print(&page{w: &out, width: width}); err != nil {
			t.Fatal(err)
		}
		t.Log("\n" + out.String())
		result{code: exitOK}.want(t, exitOK, out.String(), "AmbientEdge edge/public, mode Manage: ready False (InProgress)",
			"CONDITION", "Enrolled", "GATEWAY", "1/2", "spiffe://cluster.local/ns/edge/sa/gateway", "BACKEND", "shop/waypoint", "FINDINGS", "ISM103", "Warning",
			"fix:", "and 3 findings more", "STEP", "1", "Enrol", "Done", "2", "Await", "Next")
		for _, line := range strings.Split(out.String(), "\n") {
			if width == 120 && utf8.RuneCountInString(line) > width {
				t.Errorf("longer than %d: %s", width, line)
			}
		}
	}
}

func TestStatusIsUnknownUntilItIsAboutTheNewestSpec(t *testing.T) {
	e := v1alpha1.AmbientEdge{}
	e.Generation = 3
	e.Status.ObservedGeneration = 2
	e.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonDone}}
	s := newEdgeStatus(&e)
	if word, why := s.ready(); s.Ready || word.text != "Unknown" || !strings.Contains(why, "newest spec") || s.Mode != v1alpha1.ModeObserve {
		t.Errorf("got %v, %q, %+v", word, why, s)
	}
	e.Generation = 2
	if s = newEdgeStatus(&e); !s.Ready {
		t.Errorf("got %+v", s)
	}
	doc := statusDocument{Edges: []edgeStatus{s, anEdge()}}
	if err := doc.allReady(); err == nil || !strings.Contains(err.Error(), "edge/public is not ready") {
		t.Errorf("got %v", err)
	}
	doc.Edges = doc.Edges[:1]
	if err := doc.allReady(); err != nil {
		t.Error(err)
	}
	doc.Edges = nil
	if err := doc.allReady(); err == nil {
		t.Error("no edge at all is ready")
	}
}

func TestStatusOfAll(t *testing.T) {
	var out bytes.Buffer
	doc := statusDocument{Edges: []edgeStatus{anEdge()}}
	if err := doc.print(&page{w: &out}, time.Unix(1000+7200, 0)); err != nil {
		t.Fatal(err)
	}
	const want = `NAMESPACE  NAME    MODE    READY  CAPTURED  BACKENDS  STEPS  FINDINGS  AGE  REASON
edge       public  Manage  False  1/2       1         1/2    4         2h   InProgress
`
	if out.String() != want {
		t.Errorf("got\n%s", out.String())
	}
}

func TestStatusOfWhatNobodyHasLookedAt(t *testing.T) {
	var out bytes.Buffer
	doc := statusDocument{Edges: []edgeStatus{{Namespace: "edge", Name: "public", Mode: v1alpha1.ModeManage, Created: metav1.NewTime(time.Unix(1000, 0))}}}
	if err := doc.print(&page{w: &out}, time.Unix(1001, 0)); err != nil {
		t.Fatal(err)
	}
	const want = `NAMESPACE  NAME    MODE    READY    CAPTURED  BACKENDS  STEPS  FINDINGS  AGE  REASON
edge       public  Manage  Unknown  -         -         -      0         1s   no controller has looked at it yet
`
	if out.String() != want {
		t.Errorf("got\n%s", out.String())
	}
}

func TestColoursAreForTerminalsOnly(t *testing.T) {
	var out bytes.Buffer
	e := anEdge()
	if err := e.print(&page{w: &out, width: 100, colours: true}); err != nil || !strings.Contains(out.String(), "\x1b[32mDone\x1b[0m") {
		t.Errorf("got %v\n%s", err, out.String())
	}
	a := &app{getenv: func(string) string { return "" }}
	if p := a.page(&out); p.colours || p.width != 0 {
		t.Errorf("a buffer is no terminal: %+v", p)
	}
}

func TestNoWayToTheCluster(t *testing.T) {
	t.Setenv("KUBECONFIG", "")
	t.Setenv("HOME", t.TempDir())
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	path := filepath.Join(t.TempDir(), "config")
	config := "apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: 'http://" + closedPort(t) + "'}}]\n" +
		"contexts: [{name: c, context: {cluster: c, namespace: edge}}, {name: d, context: {cluster: c}}]\ncurrent-context: c\n"
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(t.TempDir(), "broken")
	if err := os.WriteFile(broken, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		args []string
		code int
		want []string
	}{
		{"no kubeconfig", []string{"status"}, exitFailed, []string{"no way to the cluster", "no kubeconfig", "without a token of its service account", "--kubeconfig"}},
		{"kubeconfig missing", []string{"status", "--kubeconfig", "/nonexistent/config"}, exitFailed, []string{"no way to the cluster", "/nonexistent/config", "no such file", "next:  correct --kubeconfig"}},
		{"kubeconfig is none", []string{"status", "--kubeconfig", broken}, exitFailed, []string{"no way to the cluster", broken, "next:  correct that file"}},
		{"kubeconfig is empty", []string{"status", "--kubeconfig", os.DevNull}, exitFailed, []string{"no way to the cluster", os.DevNull, "names no cluster", "--kubeconfig"}},
		{"no such context", []string{"status", "--kubeconfig", path, "--context", "other"}, exitFailed, []string{"no way to the cluster", path, `no context "other"`, "contexts with --context: c, d"}},
		{"nobody listens", []string{"status", "--kubeconfig", path}, exitFailed, []string{"refused", "kubectl version"}},
		{"all and one", []string{"status", "-A", "edge/public"}, exitUsage, []string{"exclude each other"}},
		{"not a name", []string{"status", "--kubeconfig", path, "a/b/c"}, exitUsage, []string{"NAMESPACE/NAME"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := isthmus(t, c.args...)
			r.want(t, c.code, r.stderr, c.want...)
		})
	}
	t.Run("KUBECONFIG names nothing", func(t *testing.T) {
		t.Setenv("KUBECONFIG", "/nonexistent/a:/nonexistent/b")
		r := isthmus(t, "status")
		r.want(t, exitFailed, r.stderr, "no way to the cluster", "KUBECONFIG=/nonexistent/a:/nonexistent/b", "no such file", "next:  correct KUBECONFIG, or unset it")
	})
	t.Run("no home", func(t *testing.T) {
		t.Setenv("HOME", "")
		r := isthmus(t, "status")
		r.want(t, exitFailed, r.stderr, "no way to the cluster", "HOME is not set", "set HOME")
	})
}

func TestANameAndItsNamespaceMustAgree(t *testing.T) {
	file := filepath.Join(t.TempDir(), "edge.yaml")
	if err := os.WriteFile(file, []byte(edgeYAML), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"status", "edge/public", "-n", "other"}, {"plan", "edge/public", "-n", "other"}, {"plan", "-f", file, "-n", "other"},
	} {
		r := isthmus(t, args...)
		r.want(t, exitUsage, r.stderr, "namespace edge, and -n says other")
	}
	r := isthmus(t, "status", "-A", "-n", "other")
	r.want(t, exitUsage, r.stderr, "-A and -n exclude each other")
	r = isthmus(t, "status", "edge/public", "-n", "edge", "--kubeconfig", "/nonexistent")
	r.want(t, exitFailed, r.stderr, "no way to the cluster")
}

// TestGatewaysThatAreNotCapturedDoNotLookBroken: those that speak HBONE themselves are said to, and those that stay outside.
func TestGatewaysThatAreNotCapturedDoNotLookBroken(t *testing.T) {
	for name, tt := range map[string]struct {
		captured           int32
		state              v1alpha1.StepState
		reason             string
		want, wantNotThere string
	}{
		"it speaks HBONE":         {0, v1alpha1.StepDone, "2 pods speak HBONE themselves", "HBONE", "0/2"},
		"it is said to":           {0, v1alpha1.StepDone, "2 pods are taken to speak HBONE themselves, as spec.capture says", "HBONE", "0/2"},
		"it stays outside":        {0, v1alpha1.StepDone, "2 pods stay outside the mesh, as capture None asks", "none", "0/2"},
		"it is not there yet":     {0, v1alpha1.StepNext, "0 of 2 pods are captured", "0/2", "HBONE"},
		"it is to be left alone":  {1, v1alpha1.StepNext, "1 of 2 pods are still captured", "1/2", "HBONE"},
		"the mesh has all of its": {2, v1alpha1.StepDone, "2 of 2 pods are captured", "2/2", "HBONE"},
	} {
		t.Run(name, func(t *testing.T) {
			e := anEdge()
			e.Status.Gateways = []v1alpha1.GatewayStatus{{Name: "gateway", Vendor: "custom", Pods: 2, Captured: tt.captured}}
			e.Status.Plan.Steps = []v1alpha1.Step{{Verb: "Verify", Object: "Deployment edge/gateway", State: tt.state, Reason: tt.reason}}
			var lines, one bytes.Buffer
			if err := (&statusDocument{Edges: []edgeStatus{e}}).print(&page{w: &lines}, time.Unix(2000, 0)); err != nil {
				t.Fatal(err)
			}
			if err := (&page{w: &one}).gateways(e.Status.Gateways, e.Status.Plan.Steps, false); err != nil {
				t.Fatal(err)
			}
			for _, out := range []string{lines.String(), one.String()} {
				if words := strings.Fields(out); !slices.Contains(words, tt.want) || slices.Contains(words, tt.wantNotThere) {
					t.Errorf("want %s:\n%s", tt.want, out)
				}
			}
		})
	}
}
