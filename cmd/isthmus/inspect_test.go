package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// inspected is a Gateway of kgateway's with two pods, of which one ends, and its routes: to a Service that is switched, one that is not, one that is switched
// and leads to no waypoint, and one that is not there.
const inspected = `
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: kgateway}
spec: {controllerName: kgateway.dev/kgateway}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: kgateway, namespace: kgateway-system}
spec:
  selector: {matchLabels: {kgateway: kgateway}}
  template: {metadata: {labels: {kgateway: kgateway}}, spec: {containers: [{name: c, image: "cr.kgateway.dev/kgateway-dev/kgateway:v2.4.0", env: [{name: KGW_ENABLE_WAYPOINT, value: "true"}]}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: kgateway-0, namespace: kgateway-system, labels: {kgateway: kgateway}}, status: {phase: Running, podIP: 10.244.0.9}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: http, namespace: edge}
spec: {gatewayClassName: kgateway, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
{apiVersion: v1, kind: Pod, metadata: {name: http-0, namespace: edge, labels: {gateway.networking.k8s.io/gateway-name: http}}, status: {phase: Running, podIP: 10.244.0.1}}
---
{apiVersion: v1, kind: Pod, metadata: {name: http-1, namespace: edge, labels: {gateway.networking.k8s.io/gateway-name: http}}, status: {phase: Running, podIP: 10.244.0.2}}
---
{apiVersion: v1, kind: Pod, metadata: {name: http-2, namespace: edge, labels: {gateway.networking.k8s.io/gateway-name: http}}, status: {phase: Pending}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: all, namespace: edge}
spec: {parentRefs: [{name: http}], rules: [{backendRefs: [{name: orders, port: 80}, {name: cart, port: 80}, {name: free, port: 80}, {name: gone, port: 80}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: orders, namespace: edge, labels: {istio.io/use-waypoint: w, istio.io/ingress-use-waypoint: "true"}}
spec: {clusterIP: 10.96.0.7, selector: {app: orders}, ports: [{port: 80}]}
---
{apiVersion: v1, kind: Pod, metadata: {name: orders, namespace: edge, labels: {app: orders}}, status: {phase: Running, podIP: 10.244.1.7}}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: edge}
spec: {clusterIP: 10.96.0.8, selector: {app: cart}, ports: [{port: 80}]}
---
{apiVersion: v1, kind: Pod, metadata: {name: cart, namespace: edge, labels: {app: cart}}, status: {phase: Running, podIP: 10.244.1.8}}
---
apiVersion: v1
kind: Service
metadata: {name: free, namespace: edge, labels: {istio.io/ingress-use-waypoint: "true"}}
spec: {clusterIP: 10.96.0.9, selector: {app: cart}, ports: [{port: 80}]}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: nginx}, spec: {controllerName: gateway.nginx.org/nginx-gateway-controller}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: fabric, namespace: edge}, spec: {gatewayClassName: nginx, listeners: [{name: http, port: 80, protocol: HTTP}]}}
`

// key stands in dumps where they have keys.
const key = "MIIBVgIBADANBgkqhkiG9w0BAQEFAASCAUAwggE8AgEAAkEAq7BFUpkGp3"

// envoyDump is the dump of an Envoy whose clusters of Services in edge lead there.
func envoyDump(to map[string]string) string {
	var clusters []string
	for name, at := range to {
		host, port, _ := strings.Cut(at, ":")
		clusters = append(clusters, fmt.Sprintf(`{"cluster": {"name": "kube_edge_%s_80", "type": "STATIC", "load_assignment": {"endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": %q, "port_value": %s}}}}]}]}}}`, name, host, port))
	}
	slices.Sort(clusters)
	return `{"configs": [{"dynamic_active_secrets": [{"secret": {"private_key": {"inline_string": "` + key + `"}}}]}, {"dynamic_active_clusters": [` + strings.Join(clusters, ",") + `]}]}`
}

var (
	asSwitched = map[string]string{"orders": "10.96.0.7:80", "cart": "10.244.1.8:8080", "free": "10.244.1.8:8080"}
	stillPods  = map[string]string{"orders": "10.244.1.7:8080", "cart": "10.244.1.8:8080", "free": "10.244.1.8:8080"}
)

// saved writes texts to files, and returns their names.
func saved(t *testing.T, texts ...string) (files []string) {
	t.Helper()
	dir := t.TempDir()
	for i, text := range texts {
		path := filepath.Join(dir, fmt.Sprintf("%d", i))
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, path)
	}
	return files
}

func TestInspectOfASavedDumpAndFiles(t *testing.T) {
	objects := saved(t, inspected)[0]
	for _, c := range []struct {
		name  string
		dumps []string
		code  int
		out   []string
		err   []string
	}{
		{"as switched", []string{envoyDump(asSwitched)}, exitOK, []string{"Gateway edge/http, kgateway: read from 1 of 1 texts", "BACKEND", "WAYPOINT", "SWITCH", "SENDS TO", "RESULT",
			"edge/cart", "pods", "10.244.1.8:8080", "its pods: it is not switched", "edge/free", "service", "its pods: it leads to no waypoint", "edge/gone", "unclear: the Service is not there",
			"edge/orders", "edge/w", "service", "10.96.0.7:80", "its own address, as switched"}, nil},
		{"pods still", []string{envoyDump(stillPods)}, exitFailed, []string{"edge/orders", "edge/w", "service", "10.244.1.7:8080", "its pods still: the switch is not in force"},
			[]string{"error: the switch of Gateway edge/http is not in force for Service edge/orders", "where:", "istio.io/ingress-use-waypoint", "next:", "isthmus observe edge/http"}},
		{"one pod of two", []string{envoyDump(asSwitched), envoyDump(stillPods)}, exitFailed, []string{"read from 2 of 2 texts", "its own address, as switched (", "its pods still: the switch is not in force ("}, []string{"is not in force"}},
		{"nothing", []string{envoyDump(map[string]string{"free": "10.244.1.8:8080"})}, exitFailed, []string{"edge/orders", "it has nothing for it"}, []string{"Gateway edge/http has nothing that leads to Service edge/orders"}},
		{"no dump", []string{key}, exitFailed, []string{"read from 0 of 1 texts", "edge/orders", "not read"}, []string{"error: cannot read what is programmed", "cause:", "none of Envoy's config_dump", "next:", "name a text that a gateway has shown"}},
		{"a part of a dump", []string{envoyDump(asSwitched), envoyDump(asSwitched)[:200]}, exitFailed, []string{"read from 1 of 2 texts", "its own address, as switched"}, []string{"it is cut short"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := []string{"inspect", "edge/http", "--from", objects}
			for _, f := range saved(t, c.dumps...) {
				args = append(args, "--dump", f)
			}
			r := isthmus(t, args...)
			r.want(t, c.code, r.stdout, c.out...)
			r.want(t, c.code, r.stderr, c.err...)
			doc := isthmus(t, append(args, "-o", "json")...)
			d := decode[inspectDocument](t, doc.stdout)
			if d.Kind != "Inspection" || len(d.Gateways) != 1 || len(d.Gateways[0].Backends) != 4 || doc.code != c.code {
				t.Errorf("exit code %d, %+v", doc.code, d)
			}
			for _, text := range []string{r.stdout, r.stderr, doc.stdout, doc.stderr} {
				if strings.Contains(text, key[:8]) {
					t.Errorf("a key is shown: %s", text)
				}
			}
		})
	}
	one := saved(t, envoyDump(asSwitched))[0]
	r := isthmusWith(t, t.Context(), strings.NewReader(envoyDump(asSwitched)), "inspect", "http", "-n", "edge", "--from", objects, "--dump", "-")
	r.want(t, exitOK, r.stdout, "as switched")
	r = isthmus(t, "inspect", "edge/other", "--from", objects, "--dump", one)
	r.want(t, exitFailed, r.stderr, "there is no gateway edge/other", "next:", "isthmus observe")
	r = isthmus(t, "inspect", "edge/http", "--from", objects, "--dump", one+"x")
	r.want(t, exitFailed, r.stderr, "cannot read what is programmed", "no such file")
}

func TestInspectOfAPageOfTheWeb(t *testing.T) {
	objects := saved(t, inspected)[0]
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/config_dump":
			io.WriteString(w, envoyDump(asSwitched))
		case "/away":
			http.Redirect(w, r, "/config_dump", http.StatusFound)
		default:
			http.NotFound(w, r)
		}
	}))
	defer srv.Close()
	at := strings.Replace(srv.URL, "http://", "http://user:hidden@", 1)
	r := isthmus(t, "inspect", "edge/http", "--from", objects, "--dump", at+"/config_dump?include_eds", "-o", "json")
	r.want(t, exitOK, r.stdout, `"text": "http://user:xxxxx@`, `"result": "inForce"`)
	for path, why := range map[string]string{"/x": "HTTP 404", "/away": "HTTP 302"} {
		if r := isthmus(t, "inspect", "edge/http", "--from", objects, "--dump", at+path); r.code != exitFailed || !strings.Contains(r.stderr, why) || strings.Contains(r.stderr+r.stdout, "hidden") {
			t.Errorf("%s: %s", path, r.stderr)
		}
	}
}

func TestInspectUsage(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"inspect", "a/b/c"}, "is not NAMESPACE/NAME of a gateway"},
		{[]string{"inspect", "--dump", "x"}, "--dump is of one gateway"},
		{[]string{"inspect", "a/b", "--from", "x"}, "--from asks no cluster"},
		{[]string{"inspect", "a/b", "--from", "-", "--dump", "-"}, "standard input"},
		{[]string{"inspect", "a/b", "--dump", "-", "--dump", "-"}, "standard input"},
		{[]string{"inspect", "--page-timeout", "0s"}, "--page-timeout"},
		{[]string{"inspect", "-n", "x", "edge/http"}, "leave one of them out"},
	} {
		r := isthmus(t, c.args...)
		r.want(t, exitUsage, r.stderr, c.want, "see isthmus inspect --help")
	}
}

// fakePages are pages by pod, NAMESPACE/NAME PORT: what stands there, or an error.
type fakePages struct {
	pages map[string]any

	mu    sync.Mutex // guards the field below
	asked []string
}

func (p *fakePages) page(ctx context.Context, namespace, pod string, of edge.Page) (io.ReadCloser, error) {
	name := fmt.Sprintf("%s/%s %d", namespace, pod, of.Port)
	p.mu.Lock()
	p.asked = append(p.asked, name)
	p.mu.Unlock()
	switch is := p.pages[name].(type) {
	case string:
		return io.NopCloser(strings.NewReader(is)), nil
	case error:
		return nil, is
	case time.Duration: // it never answers
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	return nil, errors.New("nothing answers there")
}

// inspectedBy reads the gateways of inspected by pages.
func inspectedBy(t *testing.T, only string, p *fakePages) *inspectDocument {
	t.Helper()
	a := &app{stderr: io.Discard, getenv: func(string) string { return "" }}
	s, _, err := a.inspectWorld(t.Context(), &inspectFlags{from: saved(t, inspected)})
	if err != nil {
		t.Fatal(err)
	}
	doc := &inspectDocument{}
	views := plan.Survey(s)
	for i := range views {
		if views[i].Key.Name == only {
			x := newInspector(s, &views[i])
			x.read(t.Context(), p, 200*time.Millisecond)
			doc.Gateways = append(doc.Gateways, x.result())
		}
	}
	if len(doc.Gateways) != 1 {
		t.Fatalf("%d gateways are %s", len(doc.Gateways), only)
	}
	return doc
}

func (d *inspectDocument) of(service string) inspectedBackend {
	i := slices.IndexFunc(d.Gateways[0].Backends, func(b inspectedBackend) bool { return b.Service == service })
	return d.Gateways[0].Backends[i]
}

func TestInspectAsksEachPodThatRuns(t *testing.T) {
	p := &fakePages{pages: map[string]any{"edge/http-0 19000": envoyDump(asSwitched), "edge/http-1 19000": envoyDump(stillPods)}}
	d := inspectedBy(t, "http", p)
	slices.Sort(p.asked)
	if !slices.Equal(p.asked, []string{"edge/http-0 19000", "edge/http-1 19000"}) {
		t.Errorf("asked are %q", p.asked)
	}
	b := d.of("edge/orders")
	if b.Result != notInForce || len(b.Seen) != 2 || b.Seen[0].Pods[0] != "edge/http-0" || b.Seen[0].Result != inForce || b.Seen[1].Pods[0] != "edge/http-1" || b.Seen[1].Result != notInForce {
		t.Errorf("%+v", b)
	}
	if b := d.of("edge/cart"); b.Result != notSwitched || len(b.Seen) != 1 || len(b.Seen[0].Pods) != 2 {
		t.Errorf("%+v", b)
	}
}

func TestInspectGivesPartialAnswers(t *testing.T) {
	lack := &failure{what: "the right to create pods/portforward in namespace edge is missing", next: "ask for it"}
	p := &fakePages{pages: map[string]any{"edge/http-0 19000": lack, "edge/http-1 19000": envoyDump(asSwitched)}}
	d := inspectedBy(t, "http", p)
	if b := d.of("edge/orders"); b.Result != inForce || len(b.Seen) != 1 {
		t.Errorf("%+v", b)
	}
	pods := d.Gateways[0].Pods
	if pods[0].Error == nil || pods[0].Error.Message != lack.what || pods[0].Error.Where != "pod edge/http-0, 19000/config_dump?include_eds" || pods[1].Error != nil {
		t.Errorf("%+v", pods)
	}
	if err := d.failure(); err == nil || detail(err).Message != lack.what || detail(err).Next != lack.next {
		t.Errorf("it fails with %+v", err)
	}
	if slices.ContainsFunc(p.asked, func(s string) bool { return strings.Contains(s, "9095") }) {
		t.Errorf("one pod has answered, and its controller is asked: %q", p.asked)
	}
}

func TestInspectAsksTheControllerWhereNoPodAnswers(t *testing.T) {
	var clusters []string
	for name, ip := range map[string]string{"orders": "10.96.0.7", "cart": "10.244.1.8", "free": "10.244.1.8"} {
		clusters = append(clusters, fmt.Sprintf(`{"Items": {"c": {"Resource": {"name": "kube_edge_%s_80", "ClusterDiscoveryType": {"Type": 0}, "load_assignment": {"endpoints": [{"lb_endpoints": [`+
			`{"HostIdentifier": {"Endpoint": {"address": {"Address": {"SocketAddress": {"address": %q, "PortSpecifier": {"PortValue": 80}}}}}}}]}]}}}}}`, name, ip))
	}
	snapshots := `{"data": {"kgateway-kube-gateway-api~edge~http~1~edge": {"Resources": [` + strings.Join(clusters, ",") + `]}, "kgateway-kube-gateway-api~edge~http2~1~edge": {"Resources": []}}}`
	p := &fakePages{pages: map[string]any{"edge/http-0 19000": time.Hour, "kgateway-system/kgateway-0 9095": snapshots}}
	d := inspectedBy(t, "http", p)
	if b := d.of("edge/orders"); b.Result != inForce || b.Seen[0].Pods[0] != "kgateway-system/kgateway-0" {
		t.Errorf("%+v", b)
	}
	var out strings.Builder
	if err := d.print(&page{w: &out}); err != nil || !says(out.String(), "Gateway edge/http, kgateway: as its controller has sent it to its proxies, which could not be read", "10.96.0.7:80", "as switched") {
		t.Errorf("%v: %s", err, out.String())
	}
	if err := d.failure(); err == nil || !says(err.Error(), "cannot read what is programmed, for one of 2 pods of Gateway edge/http", "it takes too long") {
		t.Errorf("it fails with %v", err)
	}
	p.pages["kgateway-system/kgateway-0 9095"] = `{"data": {"kgateway-kube-gateway-api~edge~http2~1~edge": {"Resources": []}}}`
	if b := inspectedBy(t, "http", p).of("edge/orders"); b.Result != unread || len(b.Seen) != 0 {
		t.Errorf("a controller that knows no proxies of it: %+v", b)
	}
}

func TestInspectSaysWhatItDoesNotRead(t *testing.T) {
	p := &fakePages{}
	d := inspectedBy(t, "fabric", p)
	if g := d.Gateways[0]; !says(g.Unread, "isthmus does not read what nginx-gateway-fabric has programmed", "nginx -T in the pod") || len(p.asked) > 0 {
		t.Errorf("%+v, asked are %q", g, p.asked)
	}
	if err := d.failure(); err != nil {
		t.Errorf("that it cannot be read is no failure: %v", err)
	}
}

// TestInspectNamesTheRightThatIsMissing: by what the API server says of rights, and not by what it says of the connection.
func TestInspectNamesTheRightThatIsMissing(t *testing.T) {
	for _, c := range []struct {
		forbidden []string
		want      string
	}{
		{[]string{"pods"}, "the right to create pods/portforward in namespace edge is missing"},
		{nil, "cannot reach the pod through the API server"},
	} {
		var asked []string // by websockets, and then by SPDY
		cluster := &fakeCluster{forbidden: c.forbidden, requests: func(r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/pods/http-0/portforward") {
				asked = append(asked, r.Method+" "+r.Header.Get("Upgrade"))
			}
		}}
		cluster.start(t)
		k := kubeFlags{timeout: time.Minute}
		from, err := forwardPages(k)
		if err != nil {
			t.Fatal(err)
		}
		_, err = from.page(t.Context(), "edge", "http-0", edge.Page{Port: 19000, Path: "/"})
		if f, is := errors.AsType[*failure](err); !is || f.what != c.want || f.next == "" {
			t.Errorf("%v, want %s", err, c.want)
		}
		if want := []string{"GET websocket", "POST SPDY/3.1"}; !slices.Equal(asked, want) {
			t.Errorf("the API server is asked for %q, want %q", asked, want)
		}
	}
}

// TestInspectWaitsForNobodyForEver: an API server that does not answer.
func TestInspectWaitsForNobodyForEver(t *testing.T) {
	released := make(chan struct{})
	cluster := &fakeCluster{requests: func(r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/portforward") {
			<-released
		}
	}}
	cluster.start(t)
	defer close(released)
	from, err := forwardPages(kubeFlags{timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err = from.page(ctx, "edge", "http-0", edge.Page{Port: 19000, Path: "/"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}
