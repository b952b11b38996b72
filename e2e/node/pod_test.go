package node

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/retry"
)

func TestPodRunsAFunctionWithItsOwnWorld(t *testing.T) {
	ns := namespace(t, nil)
	p := run(t, webPod(ns, "a", func(p *corev1.Pod) {
		p.Annotations = map[string]string{"note": "said \"so\""}
		c := &p.Spec.Containers[0]
		c.Args = []string{":8080", "$(GREETING)", "$$(GREETING)", "$(NOBODY)"}
		c.Resources.Limits = corev1.ResourceList{"cpu": resource.MustParse("1500m")}
		field := func(path string) *corev1.EnvVarSource {
			return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
		}
		c.Env = []corev1.EnvVar{
			{Name: "GREETING", Value: "hi-$(FROM_IMAGE)"},
			{Name: "IP", ValueFrom: field("status.podIP")},
			{Name: "NOTE", ValueFrom: field("metadata.annotations['note']")},
			{Name: "CPUS", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.cpu"}}},
		}
	}))
	ip := podIP(p)
	wantGet(t, ip, "a from 169.254.7.127", "/")
	wantGet(t, ip, ":8080 hi-yes $(GREETING) $(NOBODY)", "/args")
	for _, want := range []string{"FROM_IMAGE=yes", "GREETING=hi-yes", "IP=" + ip.String(), `NOTE=said "so"`, "CPUS=2", "KUBERNETES_SERVICE_HOST=10.96.0.1", "HOSTNAME=a"} {
		wantGet(t, ip, want, "/env")
	}
	wantGet(t, ip, "10.244.0.1\tistiod.istio-system.svc\n", "/file", "path", "/etc/hosts")
	wantGet(t, ip, "search "+ns+".svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\n", "/file", "path", "/etc/resolv.conf")
	wantGet(t, ip, ns, "/file", "path", serviceAccountPath+"/namespace")
	if code, _ := get(t, ip, "/file", "path", filepath.Join(shared.cluster.dir, "tokens")); code == 200 {
		t.Error("the pod sees files of the host")
	}
	out, err := shared.player.Exec(t.Context(), ns, "a", "", "/usr/local/bin/own/tool", "-c", "echo $HOSTNAME; touch /usr/share/x 2>/dev/null || echo read-only")
	if err != nil || string(out) != "a\nread-only\n" {
		t.Errorf("exec: got %q, %v", out, err)
	}
	for _, c := range []corev1.PodConditionType{corev1.PodScheduled, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady} {
		if !conditionTrue(&p.Status, c) {
			t.Errorf("condition %s is not true", c)
		}
	}
	if p.Status.Phase != corev1.PodRunning || p.Status.HostIP != "10.244.0.1" || p.Spec.NodeName != "n1" || p.Status.QOSClass == "" {
		t.Errorf("status: %+v", p.Status)
	}
}

func TestTokenOfAPodOpensTheAPIAndIsRenewed(t *testing.T) {
	ns := namespace(t, nil)
	p := run(t, webPod(ns, "a", func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{{Name: "t", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: "istio-ca", Path: "istio-token", ExpirationSeconds: new(int64(43200))}}}}}}}
		p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "t", MountPath: "/var/run/secrets/tokens"}}
	}))
	first := wantGet(t, podIP(p), ".", "/file", "path", "/var/run/secrets/tokens/istio-token")
	token := wantGet(t, podIP(p), ".", "/file", "path", serviceAccountPath+"/token")
	client, err := kubernetes.NewForConfig(&rest.Config{Host: shared.cluster.rest.Host, Dial: shared.cluster.rest.Dial, BearerToken: token,
		TLSClientConfig: rest.TLSClientConfig{CAData: []byte(wantGet(t, podIP(p), "BEGIN", "/file", "path", serviceAccountPath+"/ca.crt"))}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.CoreV1().Pods(ns).Get(t.Context(), "a", metav1.GetOptions{})
	if err == nil || !strings.Contains(err.Error(), "system:serviceaccount:"+ns+":default") {
		t.Errorf("the API server knows the pod as: %v", err)
	}
	eventually(t, "another token", func() bool {
		_, now := get(t, podIP(p), "/file", "path", "/var/run/secrets/tokens/istio-token")
		return now != first && strings.Count(now, ".") == 2
	})
}

func TestVolumesFollowTheirSources(t *testing.T) {
	ns := namespace(t, nil)
	maps := shared.cluster.client.CoreV1().ConfigMaps(ns)
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "cfg"}, Data: map[string]string{"a": "one", "b": "two"}}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	pod := webPod(ns, "a", func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{
			{Name: "cfg", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cfg"}}}},
			{Name: "info", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{
				{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}}}}}},
			{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			{Name: "gone", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "no", Optional: new(true)}}},
		}
		p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{
			{Name: "cfg", MountPath: "/etc/own/cfg"}, {Name: "info", MountPath: "/etc/info"}, {Name: "scratch", MountPath: "/scratch"},
			{Name: "cfg", MountPath: "/one", SubPath: "a"}, {Name: "gone", MountPath: "/gone"},
		}
		p.Spec.InitContainers = []corev1.Container{{Name: "prepare", Image: "host", Command: []string{"sh", "-c", "echo made > /scratch/file"},
			VolumeMounts: []corev1.VolumeMount{{Name: "scratch", MountPath: "/scratch"}}}}
	})
	pod.Spec.ServiceAccountName = "default"
	if _, err := shared.cluster.client.CoreV1().Pods(ns).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	waiting, err := shared.player.WaitPod(ctx, ns, "a", func(p *corev1.Pod) bool { return p != nil && len(p.Status.ContainerStatuses) > 0 })
	if err != nil {
		t.Fatal(err)
	}
	if w := waiting.Status.ContainerStatuses[0].State.Waiting; w == nil {
		t.Fatalf("runs without its config map: %+v", waiting.Status.ContainerStatuses[0].State)
	}
	if _, err := maps.Create(ctx, cm, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	p, err := shared.player.WaitReady(ctx, ns, "a")
	if err != nil {
		t.Fatal(err)
	}
	ip := podIP(p)
	wantGet(t, ip, "one", "/file", "path", "/etc/own/cfg/a")
	wantGet(t, ip, "one", "/file", "path", "/one")
	wantGet(t, ip, "made", "/file", "path", "/scratch/file")
	wantGet(t, ip, `app="a"`, "/file", "path", "/etc/info/labels")

	cm.Data = map[string]string{"a": "other"}
	if _, err := maps.Update(ctx, cm, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	label(t, ns, "a", `{"metadata":{"labels":{"more":"yes"}}}`)
	eventually(t, "new files", func() bool {
		_, a := get(t, ip, "/file", "path", "/etc/own/cfg/a")
		b, _ := get(t, ip, "/file", "path", "/etc/own/cfg/b")
		_, l := get(t, ip, "/file", "path", "/etc/info/labels")
		return a == "other" && b == 404 && strings.Contains(l, `more="yes"`)
	})
}

func TestReadinessFollowsTheProbe(t *testing.T) {
	ns := namespace(t, nil)
	pod := webPod(ns, "a", func(p *corev1.Pod) {
		p.Spec.ServiceAccountName = "default"
		p.Spec.TerminationGracePeriodSeconds = new(int64(1))
		p.Spec.Containers[0].ReadinessProbe = &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 1,
			ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/ready", Port: tcp(8080).Port}}}
	})
	if _, err := shared.cluster.client.CoreV1().Pods(ns).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 45*time.Second)
	defer cancel()
	p, err := shared.player.WaitPod(ctx, ns, "a", func(p *corev1.Pod) bool { return p != nil && p.Status.Phase == corev1.PodRunning })
	if err != nil {
		t.Fatal(err)
	}
	if conditionTrue(&p.Status, corev1.PodReady) {
		t.Error("ready before its probe")
	}
	eventually(t, "an answer", func() bool {
		_, err := shared.player.probeDial(t.Context(), "tcp", p.Status.PodIP+":8080")
		return err == nil
	})
	for _, want := range []bool{true, false, true} {
		set := "no"
		if want {
			set = "yes"
		}
		wantGet(t, podIP(p), "", "/ready", "set", set)
		if _, err := shared.player.WaitPod(ctx, ns, "a", func(p *corev1.Pod) bool { return conditionTrue(&p.Status, corev1.PodReady) == want }); err != nil {
			t.Fatalf("ready = %v: %v", want, err)
		}
	}
}

func TestContainerThatEndsIsStartedAgain(t *testing.T) {
	ns := namespace(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 45*time.Second)
	defer cancel()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "a"}, Spec: corev1.PodSpec{ServiceAccountName: "default", TerminationGracePeriodSeconds: new(int64(1)),
		Containers: []corev1.Container{{Name: "c", Image: "host", Command: []string{"sh", "-c", "echo why >&2; exit 3"}}}}}
	if _, err := shared.cluster.client.CoreV1().Pods(ns).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	p, err := shared.player.WaitPod(ctx, ns, "a", func(p *corev1.Pod) bool {
		return p != nil && len(p.Status.ContainerStatuses) > 0 && p.Status.ContainerStatuses[0].RestartCount >= 2 && p.Status.ContainerStatuses[0].LastTerminationState.Terminated != nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if last := p.Status.ContainerStatuses[0].LastTerminationState.Terminated; last.ExitCode != 3 || !strings.Contains(last.Message, "why") {
		t.Errorf("last state: %+v", last)
	}
}

func TestPodsThatCannotRunSayWhy(t *testing.T) {
	ns := namespace(t, nil)
	for name, c := range map[string]struct {
		change func(*corev1.Pod)
		want   string
	}{
		"account": {func(p *corev1.Pod) { p.Spec.ServiceAccountName = "nobody" }, `serviceaccounts "nobody" not found`},
		"image":   {func(p *corev1.Pod) { p.Spec.Containers[0].Image = "nobody/knows:1" }, `image "nobody/knows:1" is not known to the node; it has host, web`},
		"hostpath": {func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "h", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}}}
		}, "hostPath is refused"},
		"program": {func(p *corev1.Pod) { p.Spec.Containers[0].Command = []string{"/no/such/program"} }, "execute /no/such/program: no such file or directory"},
	} {
		t.Run(name, func(t *testing.T) {
			within := func(d time.Duration, f func(context.Context) (*corev1.Pod, error)) error {
				ctx, cancel := context.WithTimeout(t.Context(), d)
				defer cancel()
				_, err := f(ctx)
				return err
			}
			err := within(time.Second, func(ctx context.Context) (*corev1.Pod, error) {
				return shared.player.RunPod(ctx, webPod(ns, name, c.change))
			})
			if err != nil && !strings.Contains(err.Error(), c.want) { // a machine with much to do has not come so far
				err = within(30*time.Second, func(ctx context.Context) (*corev1.Pod, error) { return shared.player.WaitReady(ctx, ns, name) })
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if name == "account" || name == "image" {
				waitEvent(t, ns, name, c.want)
			}
		})
	}
}

// waitEvent waits until an Event of a pod says something.
func waitEvent(t *testing.T, ns, pod, want string) {
	t.Helper()
	var said []string
	for begin := time.Now(); time.Since(begin) < 30*time.Second; time.Sleep(50 * time.Millisecond) {
		list, err := shared.cluster.client.CoreV1().Events(ns).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		said = nil
		for _, e := range list.Items {
			if e.InvolvedObject.Kind != "Pod" || e.InvolvedObject.Name != pod {
				continue
			}
			if said = append(said, e.Message); e.Type == corev1.EventTypeWarning && strings.Contains(e.Message, want) {
				return
			}
		}
	}
	t.Errorf("no Event of pod %s says %q; there are %q", pod, want, said)
}

func TestDeletionLeavesNothing(t *testing.T) {
	ns := namespace(t, nil)
	p := run(t, webPod(ns, "a", func(p *corev1.Pod) {
		// A process of the container that ignores its end goes with it.
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "stubborn", Image: "host",
			Command: []string{"sh", "-c", `trap "" TERM; (trap "" TERM; sleep 1000) & while :; do sleep 1000; done`}})
	}))
	link := shared.player.find(ns, "a").network().link
	if !hasLink(t, link) || processesOf(t, string(p.UID)) == 0 {
		t.Fatal("the test does not see the pod's processes and link")
	}
	begin := time.Now()
	if err := shared.cluster.client.CoreV1().Pods(ns).Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := shared.player.WaitGone(ctx, ns, "a"); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took < 900*time.Millisecond {
		t.Errorf("gone after %v: the stubborn container did not get its second", took)
	}
	if hasLink(t, link) {
		t.Error("the link is still there")
	}
	if n := processesOf(t, string(p.UID)); n > 0 {
		t.Errorf("%d processes are still there", n)
	}
	if _, err := os.Stat(filepath.Join(shared.cluster.dir, "pods", string(p.UID))); err == nil {
		t.Error("files are still there")
	}
	if log := shared.player.Tail(ns, "a", "web", 3); !strings.Contains(log, "asked to end") {
		t.Errorf("the web container was not asked to end; log: %q", log)
	}
}

// processesOf counts processes whose mounts show the pod's folder as their root.
func processesOf(t *testing.T, uid string) int {
	t.Helper()
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, d := range dirs {
		if _, err := strconv.Atoi(d.Name()); err != nil {
			continue
		}
		if root, err := os.Readlink("/proc/" + d.Name() + "/root"); err == nil && strings.Contains(root, uid) {
			n++
		}
	}
	return n
}

// label changes a pod's metadata.
func label(t *testing.T, ns, name, patch string) {
	t.Helper()
	err := retry.OnError(retry.DefaultRetry, func(error) bool { return false }, func() error {
		_, err := shared.cluster.client.CoreV1().Pods(ns).Patch(t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
