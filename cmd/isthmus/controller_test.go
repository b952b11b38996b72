package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/isthmus-mesh/isthmus/identity"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
)

// fixed is an identity.Fetcher.
type fixed struct{ *identity.Material }

func (f fixed) Fetch(context.Context) (*identity.Material, error) { return f.Material, nil }

func TestControllerDoesNotWaitForItsIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := identitytest.NewCA(account("a", "b").TrustDomain()) // in the time of the test
		var log bytes.Buffer
		away := &failure{what: "istiod gave no certificate", where: "istiod 10.0.0.1:15012", next: "look there", err: errors.New("refused")}
		attempts := 0
		l := newLazyIdentity(&meshFlags{}, slog.New(slog.NewTextHandler(&log, nil)))
		l.get = func(ctx context.Context) (*identity.Source, error) {
			if attempts++; attempts < 3 {
				return nil, away
			}
			svid := ca.SVID(account("isthmus-system", "isthmus-controller"))
			return identity.New(ctx, fixed{&identity.Material{SVID: svid, Bundles: x509bundle.NewSet(ca.Bundle())}}, identity.Config{})
		}
		if err := l.ready(); !errors.Is(err, errNoIdentity) {
			t.Errorf("before its start: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- l.Start(ctx) }()
		synctest.Wait()
		if err := l.ready(); !errors.Is(err, away) {
			t.Errorf("istiod is away: %v", err)
		}
		if _, err := l.GetX509BundleForTrustDomain(ca.TrustDomain); !errors.Is(err, away) {
			t.Errorf("istiod is away: %v", err)
		}
		time.Sleep(2*l.pause + time.Second)
		if svid, err := l.GetX509SVID(); err != nil || svid.ID != account("isthmus-system", "isthmus-controller") {
			t.Errorf("istiod is back: %v", err)
		}
		if _, err := l.GetX509BundleForTrustDomain(ca.TrustDomain); err != nil {
			t.Error(err)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := l.ready(); err == nil {
			t.Error("it is ready after its end")
		}
		for _, want := range []string{"istiod gave no certificate", `where="istiod 10.0.0.1:15012"`, "refused", "look there", "have an identity"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("the log does not say %q:\n%s", want, log.String())
			}
		}
	})
}

func TestControllerRefusesFlags(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--log-level", "loud"}, "--log-level"},
		{[]string{"--metrics-bind-address", "8080"}, "--metrics-bind-address"},
		{[]string{"--health-probe-bind-address", "x"}, "--health-probe-bind-address"},
		{[]string{"--istiod", "x"}, "--istiod"},
		{[]string{"--metrics-bind-address", ":8080", "--health-probe-bind-address", ":8080"}, "cannot both be :8080"},
		{[]string{"x"}, "takes no argument"},
	} {
		r := isthmus(t, append([]string{"controller"}, c.args...)...)
		r.want(t, exitUsage, r.stderr, c.want, "isthmus controller --help")
	}
}

func TestControllerNamesTheBusyPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	busy := l.Addr().String()
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig") // no cluster is asked
	text := `{apiVersion: v1, kind: Config, clusters: [{name: c, cluster: {server: "https://` + closedPort(t) + `"}}], contexts: [{name: c, context: {cluster: c}}], current-context: c}`
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, flag, addr string
		want             []string
	}{
		{"metrics", "--metrics-bind-address", busy, []string{busy, "address already in use", "another program has that port", "--metrics-bind-address"}},
		{"probes", "--health-probe-bind-address", busy, []string{busy, "address already in use", "another program has that port", "--health-probe-bind-address"}},
		{"an address of another machine", "--metrics-bind-address", "192.0.2.1:80", []string{"192.0.2.1:80", "cannot assign", "next:  choose another address"}},
		{"the cluster is away", "--metrics-bind-address", "127.0.0.1:0", []string{"refused", "kubectl version"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := isthmus(t, "controller", "--kubeconfig", kubeconfig, c.flag, c.addr)
			r.want(t, exitFailed, r.stderr, append([]string{"error:"}, c.want...)...)
		})
	}
	t.Run("taken in the meantime", func(t *testing.T) { // the manager listens itself
		_, err := net.Listen("tcp", busy)
		if d := detail(explainController("the controller ended", "https://cluster", err)); d.Where != busy || !strings.Contains(d.Next, "another program") {
			t.Errorf("it is explained as %+v", d)
		}
	})
}

// TestStoppingTheControllerIsNoFailure: also while the API server does not answer what it asks for first.
func TestStoppingTheControllerIsNoFailure(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	asked := make(chan string, 16)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Path
		stop() // as a signal does
		<-r.Context().Done()
	}))
	defer server.Close()
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	text := `{apiVersion: v1, kind: Config, clusters: [{name: c, cluster: {server: "` + server.URL + `"}}], contexts: [{name: c, context: {cluster: c}}], current-context: c}`
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r := isthmusWith(t, ctx, strings.NewReader(""), "controller", "--kubeconfig", kubeconfig)
	r.want(t, exitOK, r.stderr, "stopped before it began")
	if path := <-asked; !strings.HasSuffix(path, "/configmaps/istio") {
		t.Errorf("it has asked for %s", path)
	}
}

// controlled is a cluster without objects that has all kinds which the controller cannot do without.
func controlled() *fakeCluster {
	c := &fakeCluster{}
	for _, k := range []struct{ group, version, kind, resource string }{
		{"", "v1", "Namespace", "namespaces"}, {"", "v1", "Pod", "pods"}, {"", "v1", "Service", "services"}, {"", "v1", "ConfigMap", "configmaps"},
		{"apps", "v1", "Deployment", "deployments"}, {"apps", "v1", "DaemonSet", "daemonsets"},
		{"networking.k8s.io", "v1", "Ingress", "ingresses"}, {"networking.k8s.io", "v1", "IngressClass", "ingressclasses"},
		{"gateway.networking.k8s.io", "v1", "Gateway", "gateways"}, {"gateway.networking.k8s.io", "v1", "GatewayClass", "gatewayclasses"},
		{"gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes"}, {"gateway.networking.k8s.io", "v1beta1", "ReferenceGrant", "referencegrants"},
		{"security.istio.io", "v1", "AuthorizationPolicy", "authorizationpolicies"}, {"security.istio.io", "v1", "PeerAuthentication", "peerauthentications"},
		{"security.istio.io", "v1", "RequestAuthentication", "requestauthentications"}, {"isthmus.dev", "v1alpha1", "AmbientEdge", "ambientedges"},
		{"authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews"},
	} {
		c.kinds = append(c.kinds, stored(schema.GroupVersion{Group: k.group, Version: k.version}, k.kind, k.resource))
	}
	return c
}

// isthmusApart runs the command in a process of its own: a controller that gets so far as to run sets what its whole process logs by. It is told to stop when ctx ends.
func isthmusApart(t *testing.T, ctx context.Context, args ...string) result {
	t.Helper()
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), asCommand+"=1")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	r := result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
	t.Logf("isthmus %s: exit code %d\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	return r
}

// TestAControllerThatMayNotReadEnds: it says within seconds which rights are missing, all of them, and waits for nothing.
func TestAControllerThatMayNotReadEnds(t *testing.T) {
	c := controlled()
	c.forbidden = []string{"daemonsets", "httproutes"}
	c.start(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r := isthmusApart(t, ctx, "controller")
	r.want(t, exitFailed, r.stderr, "list daemonsets.apps, watch daemonsets.apps, list httproutes.gateway.networking.k8s.io, watch httproutes.gateway.networking.k8s.io", "ClusterRole isthmus-observe", "kubectl apply -k manifests")
	if ctx.Err() != nil {
		t.Error("it ended when it was stopped")
	}
}

// TestAControllerEndsWhileItReads: who stops it need not wait for an API server that does not answer.
func TestAControllerEndsWhileItReads(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	c := controlled()
	c.requests = func(r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/daemonsets") {
			stop() // as a signal does
			<-r.Context().Done()
		}
	}
	c.start(t)
	begin := time.Now()
	r := isthmusApart(t, ctx, "controller")
	r.want(t, exitOK, r.stderr, "isthmus controller")
	t.Logf("it took %v", time.Since(begin))
}

func TestPlanAndStatusRefuseFlags(t *testing.T) {
	for _, args := range [][]string{
		{"plan"}, {"plan", "-f", "x", "edge/public"}, {"plan", "a", "b"}, {"status", "a", "b"},
	} {
		r := isthmus(t, args...)
		r.want(t, exitUsage, r.stderr, "next:", "isthmus "+args[0]+" --help")
	}
}
