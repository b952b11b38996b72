package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/e2e/world"
)

// shared is the cluster and the player of all tests; each test has a Kubernetes namespace of its own.
var shared struct {
	cluster *cluster
	player  *Player
}

func TestMain(m *testing.M) {
	funcs := Funcs()
	maps.Copy(funcs, world.Funcs{"web": web, "fake-capture": fakeCapture})
	world.Enter(funcs)
	os.Exit(runAll(m))
}

func runAll(m *testing.M) int {
	dir, err := os.MkdirTemp("", "isthmus-node-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := startShared(dir); err != nil {
		fmt.Fprintln(os.Stderr, err, "logs in", dir)
		return 1
	}
	code := m.Run()
	if err := shared.player.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	shared.cluster.stop()
	if code == 0 {
		os.RemoveAll(dir)
	} else {
		fmt.Fprintln(os.Stderr, "logs in", dir)
	}
	return code
}

// startShared starts what shared holds.
func startShared(dir string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Minute) // the first time builds programs
	defer cancel()
	c, err := startCluster(ctx, dir)
	if err != nil {
		return fmt.Errorf("start cluster: %w", err)
	}
	shared.cluster = c
	if err := startPlayer(ctx, Auto); err != nil {
		c.stop()
		return err
	}
	return nil
}

// startPlayer starts the player of the shared cluster.
func startPlayer(ctx context.Context, rules Rules) error {
	level := slog.LevelInfo
	if os.Getenv("ISTHMUS_DEBUG") != "" {
		level = slog.LevelDebug
	}
	p, err := Start(ctx, Config{
		REST: shared.cluster.rest, KubeletClient: shared.cluster.kubeletClient, NS: shared.cluster.ns, Dir: shared.cluster.dir, Rules: rules,
		Images: map[string]Image{
			"web":  {Func: "web", Env: []string{"FROM_IMAGE=yes"}, Files: map[string]string{"/usr/local/bin/own/tool": "/bin/sh"}},
			"host": {},
		},
		Capture:      captureHook,
		Hosts:        map[string]netip.Addr{"istiod.istio-system.svc": netip.MustParseAddr("10.244.0.1")},
		RotateTokens: 2 * time.Second,
		BackOff:      50 * time.Millisecond,
		Logger:       slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})),
	})
	if err != nil {
		return err
	}
	shared.player = p
	return nil
}

// withRules runs f as it is, and with AnyIP: by a player that takes the place of the shared one for as long.
func withRules(t *testing.T, f func(t *testing.T)) {
	t.Run(shared.player.Rules().String(), f)
	t.Run(AnyIP.String(), func(t *testing.T) {
		restart := func(rules Rules) {
			t.Helper()
			if err := shared.player.Close(); err != nil {
				t.Error(err)
			}
			if err := startPlayer(context.Background(), rules); err != nil {
				t.Fatal(err)
			}
		}
		restart(AnyIP)
		t.Cleanup(func() { restart(Auto) }) // after the cleanups of f
		f(t)
	})
}

// needNFTables leaves out a test of what only nftables can do.
func needNFTables(t *testing.T) {
	t.Helper()
	err := CheckNFTables()
	if errors.Is(err, ErrNoNFTables) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// web is the program of the tests' pods: it serves what it sees of its world on port 8080, or on its first argument.
func web(args []string) int {
	addr := ":8080"
	if len(args) > 0 {
		addr = args[0]
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		host, _ := os.Hostname()
		fmt.Fprintf(w, "%s from %s", host, r.RemoteAddr)
	})
	mux.HandleFunc("/args", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, strings.Join(args, " ")) })
	mux.HandleFunc("/env", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, strings.Join(os.Environ(), "\n")) })
	mux.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) {
		b, err := os.ReadFile(r.FormValue("path"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		w.Write(b)
	})
	mux.HandleFunc("/get", func(w http.ResponseWriter, r *http.Request) {
		client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		res, err := client.Get(r.FormValue("url"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer res.Body.Close()
		w.WriteHeader(res.StatusCode)
		io.Copy(w, res.Body)
	})
	ready := false
	mux.HandleFunc("/ready", func(w http.ResponseWriter, r *http.Request) {
		if v := r.FormValue("set"); v != "" {
			ready = v == "yes"
		} else if !ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, sigterm)
	go func() {
		<-stop
		fmt.Println("asked to end")
		os.Exit(0)
	}()
	fmt.Fprintln(os.Stderr, http.ListenAndServe(addr, mux))
	return 1
}

// get asks the web program of a pod, from the node.
func get(t *testing.T, ip netip.Addr, path string, query ...string) (int, string) {
	t.Helper()
	q := url.Values{}
	for i := 0; i+1 < len(query); i += 2 {
		q.Set(query[i], query[i+1])
	}
	tr := &http.Transport{DialContext: shared.player.probeDial, DisableKeepAlives: true}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+netip.AddrPortFrom(ip, 8080).String()+path+"?"+q.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatalf("GET %s %v: %v", path, query, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// wantGet fails unless the answer is 200 and contains want.
func wantGet(t *testing.T, ip netip.Addr, want, path string, query ...string) string {
	t.Helper()
	code, body := get(t, ip, path, query...)
	if code != http.StatusOK || !strings.Contains(body, want) {
		t.Fatalf("GET %s %v: got %d %q, want 200 with %q", path, query, code, body, want)
	}
	return body
}

// eventually tries f until it is true, within half a minute.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for !f() {
		if !pause(ctx, 20*time.Millisecond) {
			t.Fatal("not within 30 s:", what)
		}
	}
}

// namespace makes a Kubernetes namespace for the test, and returns when its service account is there.
func namespace(t *testing.T, labels map[string]string) string {
	t.Helper()
	made, err := shared.cluster.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-", Labels: labels}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	name := made.Name
	eventually(t, "its service account", func() bool {
		_, err := shared.cluster.client.CoreV1().ServiceAccounts(name).Get(t.Context(), "default", metav1.GetOptions{})
		return err == nil
	})
	t.Cleanup(func() {
		if err := shared.cluster.client.CoreV1().Namespaces().Delete(context.Background(), name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	return name
}

// webPod is a pod of the web program.
func webPod(namespace, name string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "web",
			ReadinessProbe: &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{TCPSocket: tcp(8080)}}}}},
	}
	for _, f := range change {
		f(p)
	}
	return p
}

// run starts a pod and waits until it is ready.
func run(t *testing.T, p *corev1.Pod) *corev1.Pod {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	got, err := shared.player.RunPod(ctx, p)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func podIP(p *corev1.Pod) netip.Addr { return netip.MustParseAddr(p.Status.PodIP) }
