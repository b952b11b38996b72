package node

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func hasLink(t *testing.T, name string) bool {
	t.Helper()
	err := shared.cluster.ns.Do(func() error {
		_, err := netlink.LinkByName(name)
		return err
	})
	return err == nil
}

// service makes a Service of the pods labelled app=name on port 80.
func service(t *testing.T, ns, name, clusterIP string) *corev1.Service {
	t.Helper()
	svc, err := shared.cluster.client.CoreV1().Services(ns).Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.ServiceSpec{Selector: map[string]string{"app": name}, ClusterIP: clusterIP,
			Ports: []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: tcp(8080).Port}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return svc
}

func TestServicesLeadToReadyPods(t *testing.T) { withRules(t, servicesLeadToReadyPods) }

func servicesLeadToReadyPods(t *testing.T) {
	ns := namespace(t, nil)
	client := run(t, webPod(ns, "client"))
	svc := service(t, ns, "shop", "")
	if code, body := get(t, podIP(client), "/get", "url", "http://"+svc.Spec.ClusterIP+"/"); code != http.StatusBadGateway || !strings.Contains(body, "refused") {
		t.Errorf("without endpoints: got %d %q, want a refusal", code, body)
	}
	for _, name := range []string{"s1", "s2"} {
		run(t, webPod(ns, name, func(p *corev1.Pod) { p.Labels["app"] = "shop" }))
	}
	seen := map[string]bool{}
	eventually(t, "both pods behind the cluster IP", func() bool {
		code, body := get(t, podIP(client), "/get", "url", "http://"+svc.Spec.ClusterIP+"/")
		name, from, _ := strings.Cut(body, " from ")
		caller := podIP(client)
		if shared.player.Rules() == AnyIP {
			caller = shared.player.cfg.balancerAddr()
		}
		if code == http.StatusOK && !strings.HasPrefix(from, caller.String()+":") {
			t.Fatalf("the pod saw its caller as %q", from)
		}
		seen[name] = code == http.StatusOK
		return seen["s1"] && seen["s2"]
	})
	for _, url := range []string{"http://shop/", "http://shop." + ns + "/", "http://shop." + ns + ".svc.cluster.local/"} {
		wantGet(t, podIP(client), " from ", "/get", "url", url)
	}
	if code, body := get(t, podIP(client), "/get", "url", "http://nobody/"); code != http.StatusBadGateway || !strings.Contains(body, "no such host") {
		t.Errorf("unknown name: got %d %q", code, body)
	}
	own := service(t, ns, "client", "")
	eventually(t, "a pod reaches itself through its own Service", func() bool {
		code, _ := get(t, podIP(client), "/get", "url", "http://"+own.Spec.ClusterIP+"/")
		return code == http.StatusOK
	})
	service(t, ns, "headless", "None")
	eventually(t, "a headless name has no address yet", func() bool {
		_, body := get(t, podIP(client), "/get", "url", "http://headless:8080/")
		return strings.Contains(body, "no such host")
	})
	run(t, webPod(ns, "h", func(p *corev1.Pod) { p.Labels["app"] = "headless" }))
	eventually(t, "a headless name leads to its pod", func() bool {
		_, body := get(t, podIP(client), "/get", "url", "http://headless:8080/")
		return strings.HasPrefix(body, "h from")
	})
	code, body := get(t, podIP(client), "/get", "url", "http://10.96.0.1:443/")
	if code != http.StatusBadRequest || !strings.Contains(body, "HTTPS") {
		t.Errorf("API server through its Service: got %d %q", code, body)
	}
	tr := &http.Transport{DialContext: shared.cluster.ns.DialContext, DisableKeepAlives: true}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+svc.Spec.ClusterIP, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatalf("from the node: %v", err)
	}
	res.Body.Close()
}

func TestDeploymentsRollOut(t *testing.T) {
	ns := namespace(t, nil)
	client := run(t, webPod(ns, "client"))
	svc := service(t, ns, "shop", "")
	pod := webPod(ns, "shop")
	pod.Spec.ServiceAccountName, pod.Spec.TerminationGracePeriodSeconds = "default", new(int64(2))
	dep := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "shop"}, Spec: appsv1.DeploymentSpec{
		Replicas: new(int32(2)), Selector: &metav1.LabelSelector{MatchLabels: pod.Labels},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: pod.Labels}, Spec: pod.Spec},
	}}
	deps := shared.cluster.client.AppsV1().Deployments(ns)
	if _, err := deps.Create(t.Context(), dep, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	version := func(want string) func() bool {
		return func() bool {
			d, err := deps.Get(t.Context(), "shop", metav1.GetOptions{})
			if err != nil || d.Status.ObservedGeneration < d.Generation || d.Status.UpdatedReplicas != 2 || d.Status.AvailableReplicas != 2 || d.Status.Replicas != 2 {
				return false
			}
			_, body := get(t, podIP(client), "/get", "url", "http://"+svc.Spec.ClusterIP+"/env")
			return want == "" || strings.Contains(body, want)
		}
	}
	eventually(t, "two pods of the first version", version("FROM_IMAGE=yes"))
	patch := `{"spec":{"template":{"spec":{"containers":[{"name":"web","env":[{"name":"VERSION","value":"2"}]}]}}}}`
	if _, err := deps.Patch(t.Context(), "shop", types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "two pods of the second version", version("VERSION=2"))
	eventually(t, "no pod of the first", func() bool {
		list, err := shared.cluster.client.CoreV1().Pods(ns).List(t.Context(), metav1.ListOptions{LabelSelector: "app=shop"})
		return err == nil && len(list.Items) == 2
	})
}

func TestSniffingSeesPlaintext(t *testing.T) {
	ns := namespace(t, nil)
	a, b := run(t, webPod(ns, "a")), run(t, webPod(ns, "b"))
	s, err := shared.player.Sniff(ns, "b", Filter{Peer: podIP(a)})
	if err != nil {
		t.Fatal(err)
	}
	wantGet(t, podIP(a), "b from", "/get", "url", "http://"+podIP(b).String()+":8080/?secret=open-word")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for !s.Saw([]byte("b from")) {
		select {
		case <-s.Changed():
		case <-ctx.Done():
			t.Fatal("no answer on the wire")
		}
	}
	if !s.Saw([]byte("secret=open-word")) || s.Saw([]byte("never said")) {
		t.Error("sniffing does not tell what was said from what was not")
	}
	if got := s.Ports(); len(got) != 1 || got[0] != 8080 {
		t.Errorf("ports: got %v, want [8080]", got)
	}
	if _, err := s.Stop(); err != nil {
		t.Error(err)
	}
}

// TestStopReadsWhatIsOnTheWire: on a busy machine a sniffer is behind the wire.
func TestStopReadsWhatIsOnTheWire(t *testing.T) {
	ns := namespace(t, nil)
	a, b := run(t, webPod(ns, "a")), run(t, webPod(ns, "b"))
	s, err := shared.player.Sniff(ns, "b", Filter{Peer: podIP(a)})
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock() // it cannot keep a packet
	wantGet(t, podIP(a), "b from", "/get", "url", "http://"+podIP(b).String()+":8080/?secret=last-word")
	time.AfterFunc(100*time.Millisecond, s.mu.Unlock)
	packets, err := s.Stop()
	if err != nil {
		t.Fatal(err)
	}
	if len(packets) == 0 || !s.Saw([]byte("secret=last-word")) || !s.Saw([]byte("b from")) {
		t.Errorf("it has %d packets, and not all that was said before it was stopped", len(packets))
	}
	if again, err := s.Stop(); err != nil || len(again) != len(packets) {
		t.Errorf("stopped again it has %d packets, %v", len(again), err)
	}
}
