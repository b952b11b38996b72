package wdstest

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	k8s "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/e2e/mesh/meshtest"
	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/hbone/wds"
	"github.com/isthmus-mesh/isthmus/identity"
	"github.com/isthmus-mesh/isthmus/identity/istioca"
)

// steady is how long dials go on while istiod and the API server end and come back.
var steady = flag.Duration("steady", 10*time.Second, "time of steady dials beside a control plane that is killed")

// account gets the certificate of a service account from istiod, with nothing but its token. It follows the roots that istiod names.
func account(t *testing.T, m *mesh.Mesh, namespace, name string) *identity.Source {
	t.Helper()
	sa := &corev1.ServiceAccount{}
	sa.Name, sa.Namespace = name, namespace
	r := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{"istio-ca"}}}
	if err := m.Client().SubResource("token").Create(t.Context(), sa, r); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s, err := istioca.New(ctx, istioca.Config{
		Addresses:     []string{m.Istiod.CA.String()},
		Roots:         func() ([]byte, error) { return namedRoots(m, namespace) },
		RootsInterval: 100 * time.Millisecond,
		Token:         func(context.Context) (string, error) { return r.Status.Token, nil },
		ID:            spiffeid.RequireFromPathf(spiffeid.RequireTrustDomainFromString("cluster.local"), "/ns/%s/sa/%s", namespace, name),
		DialContext:   m.NS.DialContext,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// namedRoots is what istiod tells a namespace to know it by: its ConfigMap, or before there is one the root of the mesh.
func namedRoots(m *mesh.Mesh, namespace string) ([]byte, error) {
	c := &corev1.ConfigMap{}
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	err := m.Client().Get(ctx, k8s.ObjectKey{Namespace: namespace, Name: "istio-ca-root-cert"}, c)
	if apierrors.IsNotFound(err) {
		return m.RootPEM, nil
	}
	return []byte(c.Data["root-cert.pem"]), err
}

// serve plays the pod at ip: it tells its name and the authority it was asked for, and then echoes.
func serve(t *testing.T, m *mesh.Mesh, id hbone.Identity, name, ip string) *hbone.Server {
	t.Helper()
	if err := m.AddAddress(netip.MustParseAddr(ip)); err != nil {
		t.Fatal(err)
	}
	ln, err := m.NS.Listen("tcp", net.JoinHostPort(ip, "15008"))
	if err != nil {
		t.Fatal(err)
	}
	server := &hbone.Server{Identity: id, Admit: func(context.Context, *hbone.ConnectRequest) error { return nil }}
	go func() { _ = server.Serve(ln) }()
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				fmt.Fprintf(c, "%s for %s\n", name, c.(*hbone.Conn).Request().Authority)
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	t.Cleanup(func() { server.Close() })
	return server
}

const closeName = "close.edge.svc.cluster.local:80"

// ask opens a tunnel and reads who answers.
func ask(ctx context.Context, d *hbone.Dialer) (net.Conn, string, error) {
	c, err := d.DialContext(ctx, "tcp", closeName)
	if err != nil {
		return nil, "", err
	}
	line, err := bufio.NewReaderSize(c, 16).ReadString('\n')
	if err != nil {
		c.Close()
	}
	return c, strings.TrimSuffix(line, "\n"), err
}

// traffic is steady dials, each of which must succeed, and go where want says if it begins after want was set.
type traffic struct {
	t     *testing.T
	want  atomic.Pointer[string]
	dials atomic.Int64
	stop  context.CancelFunc
	wg    sync.WaitGroup
}

func startTraffic(t *testing.T, d *hbone.Dialer) *traffic {
	ctx, stop := context.WithCancel(t.Context())
	tr := &traffic{t: t, stop: stop}
	for range 4 {
		tr.wg.Go(func() {
			for ctx.Err() == nil {
				want := tr.want.Load()
				dial, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				c, who, err := ask(dial, d)
				cancel()
				if err != nil {
					t.Errorf("dial %d: %v", tr.dials.Load(), err)
					return
				}
				c.Close()
				tr.dials.Add(1)
				if want != nil && who != *want && tr.want.Load() == want { // else the next change has begun
					t.Errorf("a dial that began after istiod's answer went to %q, want %q", who, *want)
					return
				}
				time.Sleep(2 * time.Millisecond)
			}
		})
	}
	t.Cleanup(tr.end)
	return tr
}

func (tr *traffic) end() {
	tr.stop()
	tr.wg.Wait()
}

// change makes a change, waits for istiod's answer, and wants all dials after it to say who.
func (tr *traffic) change(c client, what string, do func(), authority, who string) {
	tr.t.Helper()
	tr.want.Store(nil)
	do()
	start := time.Now()
	for end := time.After(45 * time.Second); ; {
		changed := c.Changed()
		r, err := c.resolve(closeName)
		if err == nil && len(r.Hops) == 1 && r.Hops[0].Authority == authority {
			break
		}
		select {
		case <-changed:
		case <-end:
			tr.t.Fatalf("%s: leads to %+v, %v, want %s", what, r, err, authority)
		}
	}
	tr.want.Store(&who)
	before := tr.dials.Load()
	until(tr.t, what, func() bool { return tr.dials.Load() > before+50 || tr.t.Failed() })
	tr.t.Logf("%s: istiod's answer after %v", what, time.Since(start).Round(time.Millisecond))
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(45 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: ", what)
		}
	}
}

// steadyService has a node for the pods: those of no node get no endpoints, and a waypoint without endpoints no address.
const steadyService = `
{apiVersion: v1, kind: Node, metadata: {name: elsewhere}}
---
{apiVersion: v1, kind: Service, metadata: {name: close, namespace: edge}, spec: {clusterIP: 10.96.77.5, selector: {app: close}, ports: [{name: tcp, port: 80, targetPort: 8080}]}}
`

// gatewayYAML is a waypoint whose pods are played here.
const gatewayYAML = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: edge, labels: {istio.io/waypoint-for: service}}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
`

// A process with nothing but a service account's token dials a Service by name. The control plane dies and comes back, a pod moves, a waypoint
// is wired and unwired, the root is replaced: no dial fails, and after istiod's answer the first one takes the new way. It has a mesh of its own, as it kills it.
func TestSteadyDials(t *testing.T) {
	plugged := t.TempDir()
	m := meshtest.New(t, mesh.Options{Quick: true, IstiodEnv: []string{"ROOT_CA_DIR=" + plugged}})
	kubectl := func(args ...string) {
		t.Helper()
		if _, err := m.Run(t.Context(), "kubectl", append([]string{"-n", "edge"}, args...)...); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Apply(t.Context(), namespace("edge")+"---"+steadyService); err != nil {
		t.Fatal(err)
	}
	runningAs(t, m, "edge", "old", "10.244.78.1", "gateway", "app: close")
	id := account(t, m, "edge", "gateway")
	pods := account(t, m, "edge", "gateway") // they are of the same account
	old := serve(t, m, pods, "old", "10.244.78.1")
	c := newClient(t, m, "edge", func(c *wds.Config) {
		c.RefreshEvery, c.Roots = 200*time.Millisecond, func() ([]byte, error) { return namedRoots(m, "edge") }
	})
	d := &hbone.Dialer{Identity: id, Resolver: c.Client, NetDial: m.NS.DialContext, Drain: time.Second}
	t.Cleanup(func() { d.Close() })
	c.leads(closeName, "10.244.78.1:8080")
	tr := startTraffic(t, d)
	tr.change(c, "the first dials", func() {}, "10.244.78.1:8080", "old for 10.244.78.1:8080")

	t.Log("a pod moves")
	func() {
		serve(t, m, pods, "new", "10.244.78.2")
		tr.want.Store(nil)
		runningAs(t, m, "edge", "new", "10.244.78.2", "gateway", "app: close")
		c.leads(closeName, "10.244.78.2:8080") // now and then; istiod does not tell of it by itself
		tr.change(c, "the new pod alone", func() {
			kubectl("delete", "pod", "old", "--force", "--grace-period=0")
			until(t, "istiod's answer", func() bool { // while there are two pods, the one with less tunnels is chosen
				r, err := c.resolve(closeName)
				return err == nil && strings.Contains(strings.Join(r.Reason, "; "), "endpoint edge/new of 1")
			})
		}, "10.244.78.2:8080", "new for 10.244.78.2:8080")
		until(t, "connections to the old pod close", func() bool { return old.Stats().Conns == 0 })
	}()
	if t.Failed() {
		return
	}
	t.Log("a waypoint is wired and unwired")
	func() {
		if err := m.Apply(t.Context(), gatewayYAML); err != nil {
			t.Fatal(err)
		}
		until(t, "istiod makes the waypoint's account and Deployment", func() bool {
			_, err := m.Run(t.Context(), "kubectl", "-n", "edge", "scale", "deployment", "waypoint", "--replicas=0")
			return err == nil
		})
		waypoint := serve(t, m, account(t, m, "edge", "waypoint"), "waypoint", "10.244.78.20")
		runningAs(t, m, "edge", "waypoint-1", "10.244.78.20", "waypoint", "gateway.networking.k8s.io/gateway-name: waypoint")
		if _, err := m.Run(t.Context(), "kubectl", "-n", "edge", "wait", "gateway/waypoint", "--for=condition=Programmed", "--timeout=20s"); err != nil {
			t.Fatal(err) // or istiod would bind no Service to it
		}
		kept, _, err := ask(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		defer kept.Close()
		tr.change(c, "wired", func() { kubectl("label", "service", "close", "istio.io/use-waypoint=waypoint") }, "10.96.77.5:80", "waypoint for 10.96.77.5:80")
		_ = kept.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.Copy(io.Discard, kept); err == nil || strings.Contains(err.Error(), "timeout") {
			t.Errorf("a tunnel past the waypoint reads %v", err)
		}
		tr.change(c, "unwired", func() { kubectl("label", "service", "close", "istio.io/use-waypoint-") }, "10.244.78.2:8080", "new for 10.244.78.2:8080")
		until(t, "connections to the waypoint close", func() bool { return waypoint.Stats().Conns == 0 })
	}()
	if t.Failed() {
		return
	}
	t.Log("the root is replaced")
	replaceRoot(t, m, plugged, c, tr, id, pods)
	if t.Failed() {
		return
	}
	// Last, for istiod looks at its API server again only after half a minute.
	t.Log("the control plane dies and comes back")
	func() {
		start, before := time.Now(), tr.dials.Load()
		for _, step := range []struct {
			stop  func() error
			start func(context.Context) error
		}{{m.StopIstiod, m.StartIstiod}, {m.StopAPIServer, m.StartAPIServer}} {
			if err := step.stop(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(*steady / 10)
			if err := step.start(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(max(0, *steady-time.Since(start)))
		until(t, "istiod speaks to us again", func() bool { return c.Stats().Online })
		t.Logf("%d dials in %v", tr.dials.Load()-before, time.Since(start).Round(time.Second))
	}()
	tr.end()
	t.Logf("%d dials, no failure: %v; %+v", tr.dials.Load(), !t.Failed(), c.Stats())
}
