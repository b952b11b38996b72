package wdstest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/e2e/mesh/meshtest"
	"github.com/isthmus-mesh/isthmus/e2e/world"
	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/hbone/route"
	"github.com/isthmus-mesh/isthmus/hbone/wds"
)

func TestMain(m *testing.M) {
	world.Enter(mesh.Funcs())
	os.Exit(meshtest.Main(m, &shared))
}

// shared is the mesh of all tests; each has a namespace and addresses of its own.
var shared = meshtest.Shared{Start: func(ctx context.Context) (*mesh.Mesh, error) {
	o := mesh.Options{Quick: true, MeshConfig: meshConfig}
	if *entries > 2000 {
		o.APIServerEnv = []string{"GOMEMLIMIT=off"}
	}
	return mesh.Start(ctx, o)
}}

// meshConfig has an alias of cluster.local; see TestAliasesInPolicies.
const meshConfig = `
rootNamespace: istio-system
defaultConfig: {proxyMetadata: {ISTIO_META_ENABLE_HBONE: "true"}}
trustDomainAliases: [old.example]
`

// entry is a Service of one workload that speaks HBONE.
func entry(ns, name, vip, pod string) string {
	return fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: %[1]s, namespace: %[4]s}
spec:
  hosts: [%[1]s.%[4]s.example]
  addresses: [%[2]s]
  ports: [{number: 80, name: tcp, protocol: TCP, targetPort: 8080}]
  resolution: STATIC
  workloadSelector: {labels: {app: %[1]s}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: %[1]s, namespace: %[4]s, labels: {app: %[1]s}, annotations: {ambient.istio.io/redirection: enabled}}
spec: {address: %[3]s, serviceAccount: %[1]s, labels: {app: %[1]s}}
`, name, vip, pod, ns)
}

// namespace is one of the mesh with the account gateway.
func namespace(name string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Namespace
metadata: {name: %[1]s, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: gateway, namespace: %[1]s}
`, name)
}

type client struct {
	*testing.T
	*wds.Client
}

func newClient(t *testing.T, m *mesh.Mesh, ns string, change func(*wds.Config)) client {
	t.Helper()
	sa := &corev1.ServiceAccount{}
	sa.Name, sa.Namespace = "gateway", ns
	r := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{"istio-ca"}}}
	if err := m.Client().SubResource("token").Create(t.Context(), sa, r); err != nil {
		t.Fatal(err)
	}
	cfg := wds.Config{
		Addresses: []string{m.Istiod.XDS.String()},
		Roots:     func() ([]byte, error) { return m.RootPEM, nil },
		Token:     func(context.Context) (string, error) { return r.Status.Token, nil },
		Node:      wds.Node{IP: netip.MustParseAddr("10.244.9.9"), Pod: "gateway-1", Namespace: ns, ServiceAccount: "gateway"},
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return m.NS.DialContext(ctx, network, address)
		},
		AbsentFor: 200 * time.Millisecond,
	}
	if change != nil {
		change(&cfg)
	}
	c, err := wds.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return client{t, c}
}

func (c client) resolve(address string) (hbone.Route, error) {
	ctx, cancel := context.WithTimeout(c.Context(), 15*time.Second)
	defer cancel()
	return c.Resolve(ctx, "tcp", address)
}

// leads wants address to lead to that workload, soon.
func (c client) leads(address, authority string) {
	c.Helper()
	var r hbone.Route
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if r, err = c.resolve(address); err == nil && len(r.Hops) == 1 && r.Hops[0].Authority == authority {
			return
		}
	}
	c.Fatalf("%s leads to %+v, %v, want %s", address, r, err, authority)
}

// unknown wants istiod to have said, at once, that it knows nobody by address.
func (c client) unknown(address string) {
	c.Helper()
	if r, err := c.resolve(address); !isFinal(err) {
		c.Fatalf("%s leads to %+v, %v, want a final error", address, r, err)
	}
}

// refused wants istiod not to speak to us, and us to know why: soon, on a machine that has other things to do.
func (c client) refused(why string) {
	c.Helper()
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(c.Context(), time.Second)
		err = c.Ready(ctx)
		cancel()
		if err == nil {
			c.Fatal("istiod speaks to us")
		}
		if strings.Contains(err.Error(), why) {
			return
		}
	}
	c.Errorf("istiod does not speak to us for another reason than %q: %v", why, err)
}

func isFinal(err error) bool {
	_, ok := errors.AsType[*route.Error](err)
	return ok
}

func TestOnDemand(t *testing.T) {
	t.Parallel()
	m := shared.Get(t)
	apply := func(yaml string) {
		t.Helper()
		if err := m.Apply(t.Context(), yaml); err != nil {
			t.Fatal(err)
		}
	}
	apply(namespace("edge"))
	apply(entry("edge", "held", "10.96.77.1", "10.244.77.1"))
	t.Run("absent names are asked for anew", func(t *testing.T) {
		c := newClient(t, m, "edge", nil)
		c.leads("10.96.77.1:80", "10.244.77.1:8080")
		for range 5 {
			c.unknown("10.96.77.2:80")
			c.unknown("late.edge.example:80")
			// What is held is still there: istiod was not made to take it away.
			if r, err := c.resolve("10.96.77.1:80"); err != nil || r.Hops[0].Authority != "10.244.77.1:8080" {
				t.Fatalf("what was held leads to %+v, %v", r, err)
			}
			time.Sleep(250 * time.Millisecond)
		}
		apply(entry("edge", "late", "10.96.77.2", "10.244.77.2"))
		c.leads("10.96.77.2:80", "10.244.77.2:8080")
		c.leads("late.edge.example:80", "10.244.77.2:8080")
		c.leads("10.96.77.1:80", "10.244.77.1:8080")
		if _, err := m.Run(t.Context(), "kubectl", "delete", "-n", "edge", "serviceentry/late", "workloadentry/late"); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			if _, err := c.resolve("10.96.77.2:80"); isFinal(err) {
				break
			} else if time.Now().After(end) {
				t.Fatal("what was deleted is still there: ", err)
			}
		}
		apply(entry("edge", "late", "10.96.77.2", "10.244.77.3"))
		c.leads("10.96.77.2:80", "10.244.77.3:8080")
	})
	t.Run("absent names make room", func(t *testing.T) {
		c := newClient(t, m, "edge", func(c *wds.Config) { c.MaxNames = 3 })
		c.leads("10.96.77.1:80", "10.244.77.1:8080")
		for i := range 6 {
			c.unknown(fmt.Sprintf("192.0.2.%d:80", 2*i))
			c.unknown(fmt.Sprintf("192.0.2.%d:80", 2*i+1))
			time.Sleep(250 * time.Millisecond)
		}
		c.leads("10.96.77.1:80", "10.244.77.1:8080")
	})
	t.Run("a name of another namespace", func(t *testing.T) { // which others have dialled, or not
		apply(namespace("elsewhere"))
		c := newClient(t, m, "elsewhere", nil)
		c.unknown("held.edge.example:80")
		c.leads("edge/held.edge.example:80", "10.244.77.1:8080")
		c.unknown("held.edge.example:80")
		all := newClient(t, m, "elsewhere", func(c *wds.Config) { c.Wildcard = true })
		all.leads("held.edge.example:80", "10.244.77.1:8080")
	})
	t.Run("a wrong token", func(t *testing.T) {
		c := newClient(t, m, "edge", func(c *wds.Config) { c.Token = func(context.Context) (string, error) { return "wrong", nil } })
		c.refused("does not accept the token")
	})
	t.Run("another's name", func(t *testing.T) {
		c := newClient(t, m, "edge", func(c *wds.Config) { c.Node.ServiceAccount = "other" })
		c.refused("edge/other")
	})
}
