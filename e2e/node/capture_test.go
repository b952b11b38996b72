package node

import (
	"context"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func TestEnrolmentFollowsIstiosRules(t *testing.T) {
	pod := func(change func(*corev1.Pod)) *corev1.Pod {
		p := webPod("ns", "a", change)
		if p.Annotations == nil {
			p.Annotations = map[string]string{}
		}
		return p
	}
	mode := func(v string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Labels[labelDataplaneMode] = v } }
	for name, c := range map[string]struct {
		pod       *corev1.Pod
		namespace string
		want      enrolment
	}{
		"nothing is labelled":                    {pod(noChange), "", enrolment{}},
		"the namespace is":                       {pod(noChange), "ambient", enrolment{on: true}},
		"the pod is":                             {pod(mode("ambient")), "", enrolment{on: true}},
		"the pod is out of an ambient one":       {pod(mode("none")), "ambient", enrolment{}},
		"the pod is in, the namespace out":       {pod(mode("ambient")), "none", enrolment{on: true}},
		"an unknown mode leaves the namespace's": {pod(mode("other")), "ambient", enrolment{on: true}},
		"the host's network":                     {pod(func(p *corev1.Pod) { p.Spec.HostNetwork = true }), "ambient", enrolment{}},
		"a sidecar by its annotation":            {pod(func(p *corev1.Pod) { p.Annotations = map[string]string{annotationSidecarStatus: "{}"} }), "ambient", enrolment{}},
		"a sidecar by its container":             {pod(func(p *corev1.Pod) { p.Spec.Containers[0].Name = sidecarContainer }), "ambient", enrolment{}},
		"inbound left alone":                     {pod(func(p *corev1.Pod) { p.Annotations = map[string]string{annotationBypassInbound: "true"} }), "ambient", enrolment{on: true, bypassInbound: true}},
	} {
		if got := enrolled(c.pod, map[string]string{labelDataplaneMode: c.namespace}); got != c.want {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
	}
}

func noChange(*corev1.Pod) {}

// captured waits until the pod is captured, or is not.
func captured(t *testing.T, ns, name string, want bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := shared.player.WaitCaptured(ctx, ns, name, want); err != nil {
		t.Fatal(err)
	}
}

func TestLabelsDecideWhoCarriesConnections(t *testing.T) {
	needNFTables(t)
	ns := namespace(t, nil)
	a, b := run(t, webPod(ns, "a")), run(t, webPod(ns, "b"))
	svc := service(t, ns, "b", "")
	url := "http://" + svc.Spec.ClusterIP + "/"
	eventually(t, "the Service answers", func() bool { code, _ := get(t, podIP(a), "/get", "url", url); return code == 200 })
	log := func(name string) string { return shared.player.Tail(ns, name, captureLog, 100) }
	if log("a") != "" {
		t.Fatalf("captured without a label: %s", log("a"))
	}

	label(t, ns, "a", `{"metadata":{"labels":{"istio.io/dataplane-mode":"ambient"}}}`)
	captured(t, ns, "a", true)
	if want := "serving " + ns + "/a as default bypass=false"; !strings.Contains(log("a"), want) {
		t.Errorf("log: %q, want %q", log("a"), want)
	}
	wantGet(t, podIP(a), "b from", "/get", "url", url)
	if want := "outbound " + svc.Spec.ClusterIP + ":80"; !strings.Contains(log("a"), want) {
		t.Errorf("log: %q, want %q", log("a"), want)
	}
	if strings.Contains(log("a"), "inbound") {
		t.Errorf("the node's probe was captured: %s", log("a"))
	}
	wantGet(t, podIP(b), "a from "+podIP(b).String()+":", "/get", "url", "http://"+podIP(a).String()+":8080/")
	if want := "inbound " + podIP(a).String() + ":8080"; !strings.Contains(log("a"), want) {
		t.Errorf("log: %q, want %q", log("a"), want)
	}

	label(t, ns, "a", `{"metadata":{"labels":{"istio.io/dataplane-mode":null}}}`)
	captured(t, ns, "a", false)
	before := log("a")
	wantGet(t, podIP(a), "b from", "/get", "url", url)
	if log("a") != before {
		t.Errorf("still captured: %s", log("a"))
	}

	patch := func(body string) {
		if _, err := shared.cluster.client.CoreV1().Namespaces().Patch(t.Context(), ns, types.MergePatchType, []byte(body), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	patch(`{"metadata":{"labels":{"istio.io/dataplane-mode":"ambient"}}}`)
	captured(t, ns, "a", true)
	captured(t, ns, "b", true)
	late := run(t, webPod(ns, "late", func(p *corev1.Pod) {
		p.Annotations = map[string]string{annotationBypassInbound: "true"}
	}))
	if late.Annotations[annotationRedirection] != "enabled" {
		t.Error("a pod became ready before it was captured")
	}
	wantGet(t, podIP(a), "late from", "/get", "url", "http://"+podIP(late).String()+":8080/")
	if strings.Contains(log("late"), "inbound") {
		t.Errorf("inbound was captured: %s", log("late"))
	}
	patch(`{"metadata":{"labels":{"istio.io/dataplane-mode":null}}}`)
	captured(t, ns, "b", false)
}

func TestDeadCaptureProcessFailsClosedAndComesBack(t *testing.T) {
	needNFTables(t)
	ns := namespace(t, nil)
	a := run(t, webPod(ns, "a", func(p *corev1.Pod) { p.Labels[labelDataplaneMode] = "ambient" }))
	b := run(t, webPod(ns, "b"))
	url := "http://" + podIP(b).String() + ":8080/"
	s, err := shared.player.Sniff(ns, "b", Filter{Peer: podIP(a)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	for range 3 {
		c := shared.player.find(ns, "a").captor
		before := strings.Count(shared.player.Tail(ns, "a", captureLog, 100), "serving")
		if err := c.process().Kill(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "another process", func() bool {
			return strings.Count(shared.player.Tail(ns, "a", captureLog, 100), "serving") > before
		})
	}
	eventually(t, "traffic through the new process", func() bool { code, _ := get(t, podIP(a), "/get", "url", url); return code == 200 })
	carried := strings.Count(shared.player.Tail(ns, "a", captureLog, 1000), "outbound "+podIP(b).String())
	packets, err := s.Stop()
	if err != nil {
		t.Fatal(err)
	}
	opened := 0
	for _, p := range packets {
		if p.SYN && p.From.Addr() == podIP(a) {
			opened++
		}
	}
	if opened == 0 || opened != carried {
		t.Errorf("%d connections on the wire, %d carried", opened, carried)
	}
}
