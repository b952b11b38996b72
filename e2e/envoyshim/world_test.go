package envoyshim_test

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/e2e/capture"
	"github.com/isthmus-mesh/isthmus/e2e/envoyshim"
	"github.com/isthmus-mesh/isthmus/e2e/envoyshim/accesslog"
	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/e2e/mesh/meshtest"
	"github.com/isthmus-mesh/isthmus/e2e/node"
	"github.com/isthmus-mesh/isthmus/e2e/programs"
	"github.com/isthmus-mesh/isthmus/e2e/story/apps"
	"github.com/isthmus-mesh/isthmus/e2e/world"
)

func TestMain(m *testing.M) {
	world.Enter(mesh.Funcs(capture.Funcs(), envoyshim.Funcs(), world.Funcs{"orders": apps.Orders, "caller": apps.Caller}))
	os.Exit(m.Run())
}

//go:embed testdata/shop.yaml
var shop string

// shopMesh is a mesh with a shop: captured pods orders, good and bad.
type shopMesh struct{ *mesh.Mesh }

func newShop(t *testing.T) shopMesh {
	t.Helper()
	set, err := programs.Ensure(t.Context(), programs.All(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	image, err := envoyshim.Image(set)
	if set.Path(programs.Envoy) == "" {
		t.Skip(err) // with CI=true Ensure has failed
	}
	if err != nil {
		t.Fatal(err)
	}
	var m *mesh.Mesh
	m = meshtest.New(t, mesh.Options{
		MeshConfig: envoyshim.MeshConfig,
		Images:     map[string]node.Image{programs.ProxyImage: image, "orders": {Func: "orders"}, "caller": {Func: "caller"}},
		Capture:    capture.Hook(capture.Mesh{Roots: func() []byte { return m.RootPEM }}),
	})
	s := shopMesh{m}
	s.apply(t, shop)
	for _, pod := range []string{"orders", "good", "bad"} {
		if _, err := m.Node.WaitReady(t.Context(), "shop", pod); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s shopMesh) apply(t *testing.T, objects string) {
	t.Helper()
	if err := s.Apply(t.Context(), objects); err != nil {
		t.Fatal(err)
	}
}

// gateway applies a Gateway and waits for its pod to be ready; it logs the time and the memory that took.
func (s shopMesh) gateway(t *testing.T, namespace, name, objects string) *corev1.Pod {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	began := time.Now()
	s.apply(t, objects)
	var pods corev1.PodList
	for programmed := false; !programmed || len(pods.Items) != 1; time.Sleep(20 * time.Millisecond) {
		var g gatewayv1.Gateway
		if err := s.Client().Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, &g); err != nil {
			t.Fatalf("not programmed: %+v: %v", g.Status.Conditions, err)
		}
		programmed = meta.IsStatusConditionTrue(g.Status.Conditions, "Programmed")
		if err := s.Client().List(ctx, &pods, client.InNamespace(namespace), client.MatchingLabels{"gateway.networking.k8s.io/gateway-name": name}); err != nil {
			t.Fatal(err)
		}
	}
	programmed := time.Since(began)
	pod, err := s.Node.WaitReady(ctx, namespace, pods.Items[0].Name)
	if err != nil {
		t.Fatalf("%v\n%s", err, s.Node.Tail(namespace, pods.Items[0].Name, "istio-proxy", 60))
	}
	t.Logf("%s: programmed %.1f s, ready %.1f s after its Gateway was applied", name, programmed.Seconds(), time.Since(began).Seconds())
	logMemory(t, pod.Name)
	return pod
}

// log is what pod's Envoy and its companions have said.
func (s shopMesh) log(t *testing.T, pod *corev1.Pod) string {
	t.Helper()
	text, err := os.ReadFile(s.Node.LogPath(pod.Namespace, pod.Name, "istio-proxy"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// request waits for a line of pod's access log.
func (s shopMesh) request(t *testing.T, pod *corev1.Pod, what string, ok func(accesslog.Request) bool) accesslog.Request {
	t.Helper()
	var list []accesslog.Request
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		list = accesslog.Requests(s.log(t, pod))
		if at := slices.IndexFunc(list, ok); at >= 0 {
			return list[at]
		}
	}
	t.Fatalf("%s is not in the access log of %s: %+v", what, pod.Name, list)
	return accesslog.Request{}
}

// checkLog fails when Envoy has refused a configuration.
func (s shopMesh) checkLog(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	for line := range strings.Lines(s.log(t, pod)) {
		if strings.Contains(line, "rejected") || strings.Contains(line, "ACK ERROR") {
			t.Errorf("Envoy of %s refused a configuration: %s", pod.Name, line)
		}
	}
}

func (s shopMesh) client() *http.Client {
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: s.NS.DialContext, DisableKeepAlives: true}}
}

// ask sends method to url, from the node.
func (s shopMesh) ask(ctx context.Context, method, url, host string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return nil, err
	}
	req.Host = host
	return s.client().Do(req)
}

// call makes a pod call a URL, and returns the status of the answer.
func (s shopMesh) call(ctx context.Context, pod, to string) (apps.Answer, error) {
	var a apps.Answer
	res, err := s.ask(ctx, http.MethodPost, fmt.Sprintf("http://%s:8080/call?url=%s", s.Node.PodIP("shop", pod), url.QueryEscape(to)), "")
	if err != nil {
		return a, err
	}
	defer res.Body.Close()
	return a, json.NewDecoder(res.Body).Decode(&a)
}

// eventually waits for ok: what is applied takes a moment to arrive.
func eventually(t *testing.T, ok func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if err = ok(); err == nil {
			return
		}
	}
	t.Fatal(err)
}
