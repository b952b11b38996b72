package node

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/e2e/world"
)

func TestProbesAndHooksOfEveryKind(t *testing.T) {
	ns := namespace(t, nil)
	exec := func(script string) corev1.ProbeHandler {
		return corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"sh", "-c", script}}}
	}
	mount := []corev1.VolumeMount{{Name: "s", MountPath: "/s"}}
	p := run(t, webPod(ns, "a", func(p *corev1.Pod) {
		p.Spec.TerminationGracePeriodSeconds = new(int64(5))
		p.Spec.Volumes = []corev1.Volume{{Name: "s", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
		p.Spec.InitContainers = []corev1.Container{
			{Name: "one", Image: "host", VolumeMounts: mount, Command: []string{"sh", "-c", "echo one >> /s/order"}},
			{Name: "side", Image: "host", VolumeMounts: mount, RestartPolicy: new(corev1.ContainerRestartPolicyAlways),
				Command:      []string{"sh", "-c", `trap 'echo side ends >> /s/order; exit 0' TERM; sleep 0.3; echo side >> /s/order; touch /tmp/up; while :; do sleep 0.05; done`},
				StartupProbe: &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 10, ProbeHandler: exec("test -e /tmp/up")}},
			{Name: "two", Image: "host", VolumeMounts: mount, Command: []string{"sh", "-c", "echo two >> /s/order"}},
		}
		c := &p.Spec.Containers[0]
		c.VolumeMounts = mount
		c.LivenessProbe = &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 1, ProbeHandler: exec("! test -e /s/dead")}
		c.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"sh", "-c", "echo hook >> /s/order"}}}}
	}))
	wantGet(t, podIP(p), "one\nside\ntwo\n", "/file", "path", "/s/order")

	if _, err := shared.player.Exec(t.Context(), ns, "a", "side", "touch", "/s/dead"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 45*time.Second)
	defer cancel()
	if _, err := shared.player.WaitPod(ctx, ns, "a", func(p *corev1.Pod) bool { return p.Status.ContainerStatuses[0].RestartCount > 0 }); err != nil {
		t.Fatalf("a container that fails its liveness probe is not started again: %v", err)
	}
	if _, err := shared.player.Exec(t.Context(), ns, "a", "side", "rm", "/s/dead"); err != nil {
		t.Fatal(err)
	}
	if _, err := shared.player.WaitReady(ctx, ns, "a"); err != nil {
		t.Fatal(err)
	}
	order, err := os.Open(filepath.Join(shared.cluster.dir, "pods", string(p.UID), "volumes", "s", "order"))
	if err != nil {
		t.Fatal(err)
	}
	defer order.Close() // outlives the pod's folder
	if err := shared.cluster.client.CoreV1().Pods(ns).Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := shared.player.WaitGone(ctx, ns, "a"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1000)
	n, err := order.Read(buf)
	if got := string(buf[:n]); err != nil || got != "one\nside\ntwo\nhook\nside ends\n" {
		t.Errorf("order of events: got %q, %v", got, err)
	}
}

func TestPodThatEndsHasItsResult(t *testing.T) {
	ns := namespace(t, nil)
	for name, want := range map[string]corev1.PodPhase{"good": corev1.PodSucceeded, "bad": corev1.PodFailed} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, ServiceAccountName: "default",
			Containers: []corev1.Container{{Name: "c", Image: "host", Command: []string{"sh", "-c", "test " + name + " = good"}}}}}
		if _, err := shared.cluster.client.CoreV1().Pods(ns).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		p, err := shared.player.WaitPod(ctx, ns, name, func(p *corev1.Pod) bool { return p != nil && terminal(p) })
		cancel()
		if err != nil || p.Status.Phase != want {
			t.Errorf("%s: %v, %v", name, p, err)
		}
	}
}

func TestHostNetworkPodsShareTheNodesAddress(t *testing.T) {
	ns := namespace(t, map[string]string{labelDataplaneMode: "ambient"})
	p := run(t, webPod(ns, "a", func(p *corev1.Pod) {
		p.Spec.HostNetwork = true
		p.Spec.Containers[0].Args = []string{"10.244.0.1:8080"}
	}))
	if p.Status.PodIP != "10.244.0.1" || p.Annotations[annotationRedirection] != "" {
		t.Errorf("address %s, annotations %v", p.Status.PodIP, p.Annotations)
	}
	other := run(t, webPod(ns, "b", func(p *corev1.Pod) { p.Labels[labelDataplaneMode] = "none" }))
	wantGet(t, podIP(other), "a from", "/get", "url", "http://10.244.0.1:8080/")
}

// A second node in a network of its own: it shows what Close leaves, and that two of them do not disturb each other.
func TestCloseLeavesNothing(t *testing.T) {
	ns := namespace(t, nil)
	netns, err := world.NewNS("second")
	if err != nil {
		t.Fatal(err)
	}
	defer netns.Close()
	dir := t.TempDir()
	second, err := Start(t.Context(), Config{REST: shared.cluster.rest, NS: netns, Dir: dir, Name: "n2", Images: shared.player.cfg.Images, Capture: captureHook})
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 45*time.Second)
	defer cancel()
	p, err := second.RunPod(ctx, webPod(ns, "a", func(p *corev1.Pod) {
		p.Spec.NodeName = "n2"
		p.Labels[labelDataplaneMode] = "ambient"
		p.Spec.TerminationGracePeriodSeconds = new(int64(30))
	}))
	if err != nil {
		t.Fatal(err)
	}
	if shared.player.find(ns, "a") != nil {
		t.Error("both nodes run the pod")
	}
	captor := second.find(ns, "a").captor.process()
	begin := time.Now()
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	const promise = 3 * time.Second
	took := time.Since(begin)
	if seen := fmt.Sprintf("a node closes in %v, whatever grace its pods have: it took %v", promise, took.Round(10*time.Millisecond)); took > promise && world.Judge(t, seen) {
		t.Error(seen)
	}
	if n := processesOf(t, string(p.UID)); n > 0 {
		t.Errorf("%d processes are left", n)
	}
	if err := captor.Signal(sigterm); err == nil {
		t.Error("the capture process is left")
	}
	if left, err := os.ReadDir(filepath.Join(dir, "pods")); err != nil || len(left) > 0 {
		t.Errorf("folders of pods: %v, %v", left, err)
	}
	if err := shared.cluster.client.CoreV1().Pods(ns).Delete(t.Context(), "a", metav1.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil {
		t.Error(err)
	}
	if err := shared.cluster.client.CoreV1().Nodes().Delete(t.Context(), "n2", metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
}

func TestLogsThroughTheAPIServer(t *testing.T) {
	ns := namespace(t, nil)
	run(t, webPod(ns, "a", func(p *corev1.Pod) {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "talk", Image: "host", Command: []string{"sh", "-c", "for i in 1 2 3; do echo line $i; done; sleep 1000"}})
	}))
	lines := int64(2)
	eventually(t, "two lines of log", func() bool {
		b, err := shared.cluster.client.CoreV1().Pods(ns).GetLogs("a", &corev1.PodLogOptions{Container: "talk", TailLines: &lines}).DoRaw(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return string(b) == "line 2\nline 3\n"
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	follow, err := shared.cluster.client.CoreV1().Pods(ns).GetLogs("a", &corev1.PodLogOptions{Container: "web", Follow: true}).Stream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer follow.Close()
	if err := shared.cluster.client.CoreV1().Pods(ns).Delete(ctx, "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(follow); err != nil || string(b) != "asked to end\n" {
		t.Errorf("what came after the question: got %q, %v", b, err)
	}
}

func TestNoAddressIsUsedAgainSoon(t *testing.T) {
	a := newAddresses(netip.MustParsePrefix("10.244.0.0/22"))
	first, err := a.take()
	if err != nil || first != netip.MustParseAddr("10.244.1.2") {
		t.Fatalf("first address: %v, %v", first, err)
	}
	a.release(first)
	var all []netip.Addr
	for {
		got, err := a.take()
		if err != nil {
			break
		}
		all = append(all, got)
	}
	if len(all) != 3*253 || all[0] == first || all[len(all)-1] != first {
		t.Errorf("%d addresses, first %v, last %v", len(all), all[0], all[len(all)-1])
	}
	slices.SortFunc(all, netip.Addr.Compare)
	if n := len(slices.Compact(all)); n != len(all) {
		t.Errorf("only %d different ones", n)
	}
}
