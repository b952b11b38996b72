package envoyshim_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/e2e/envoyshim"
	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/e2e/mesh/meshtest"
	"github.com/isthmus-mesh/isthmus/e2e/node"
	"github.com/isthmus-mesh/isthmus/e2e/programs"
	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/hbone/wds"
	"github.com/isthmus-mesh/isthmus/identity/istioca"
)

// farPod is where the pod on the other network is.
const farPod = "10.243.0.1"

// far is a Service whose pod is on another network, and the gateway there. Both networks are of one cluster here, where istiod does not tell the gateway that the
// pod speaks HBONE: that is what the label tunnel is for.
const far = `
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: orders, namespace: shop}}
---
apiVersion: v1
kind: Service
metadata: {name: orders, namespace: shop, labels: {istio.io/global: "true"}}
spec:
  selector: {app: orders}
  ports: [{name: tcp, port: 80, targetPort: 8080}]
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: orders, namespace: shop, labels: {app: orders}, annotations: {ambient.istio.io/redirection: enabled}}
spec: {address: ` + farPod + `, network: far, serviceAccount: orders, labels: {app: orders, networking.istio.io/tunnel: http}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: edge}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: gateway, namespace: edge}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: eastwest
  namespace: istio-system
  labels: {topology.istio.io/network: far}
  annotations: {networking.istio.io/service-type: ClusterIP}
spec:
  gatewayClassName: istio-east-west
  listeners:
  - name: mesh
    port: 15008
    protocol: HBONE
    tls: {mode: Terminate, options: {gateway.istio.io/tls-terminate-mode: ISTIO_MUTUAL}}
`

// toFar tells of the gateway of the other network, as a cluster there would be told of.
const toFar = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: to-far
  namespace: istio-system
  labels: {topology.istio.io/network: far}
  annotations: {gateway.istio.io/service-account: eastwest}
spec:
  gatewayClassName: istio-remote
  addresses: [{type: IPAddress, value: %s}]
  listeners:
  - name: mesh
    port: 15008
    protocol: HBONE
    tls: {mode: Terminate, options: {gateway.istio.io/tls-terminate-mode: ISTIO_MUTUAL}}
`

// A Service whose pod is on another network is reached by a tunnel in a tunnel: to Istio's east-west gateway, whose Envoy ends the outer one and carries the inner
// one on to the pod.
func TestEastWestGateway(t *testing.T) {
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
	s := shopMesh{meshtest.New(t, mesh.Options{
		Quick:      true,
		MeshConfig: envoyshim.MeshConfig + "serviceScopeConfigs: [{servicesSelector: {matchLabels: {istio.io/global: \"true\"}}, scope: GLOBAL}]\n",
		IstiodEnv:  []string{"AMBIENT_ENABLE_MULTI_NETWORK=true"},
		Images:     map[string]node.Image{programs.ProxyImage: image},
	})}
	if _, err := s.Run(t.Context(), "kubectl", "label", "namespace", "istio-system", "topology.istio.io/network=near"); err != nil {
		t.Fatal(err)
	}
	gateway := s.gateway(t, "istio-system", "eastwest", far)
	s.apply(t, fmt.Sprintf(toFar, gateway.Status.PodIP))
	s.farPod(t)

	resolver, err := wds.New(wds.Config{
		Addresses: []string{s.Istiod.XDS.String()}, ServerName: s.Istiod.ServerName,
		Roots: s.roots, Token: s.token(t, "edge", "gateway"), DialContext: s.NS.DialContext,
		Node: wds.Node{IP: netip.MustParseAddr("10.244.9.9"), Pod: "gateway-1", Namespace: "edge", ServiceAccount: "gateway", Network: "near"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer resolver.Close()
	for _, optimistic := range []bool{false, true} {
		d := &hbone.Dialer{Identity: s.identity(t, "edge", "gateway"), Resolver: resolver, NetDial: s.NS.DialContext, Optimistic: optimistic}
		defer d.Close()
		eventually(t, func() error {
			ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
			defer cancel()
			c, err := d.DialContext(ctx, "tcp", "orders.shop.svc.cluster.local:80")
			if err != nil {
				return err
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(15 * time.Second))
			if _, err := fmt.Fprintln(c, "hello"); err != nil {
				return err
			}
			line, err := bufio.NewReader(c).ReadString('\n')
			if err != nil {
				return err
			}
			tunnel, ok := c.(*hbone.Conn)
			if !ok {
				return errors.New("it is no tunnel")
			}
			hops := tunnel.Route().Hops
			if len(hops) != 2 || hops[0].Kind != hbone.HopGateway || hops[0].Addr.Addr().String() != gateway.Status.PodIP ||
				line != "hello from spiffe://cluster.local/ns/edge/sa/gateway for orders.shop.svc.cluster.local:80\n" ||
				tunnel.PeerIdentity().String() != sa+"orders" {
				return fmt.Errorf("%q by %s through %+v", line, tunnel.PeerIdentity(), hops)
			}
			return nil
		})
	}
	s.checkLog(t, gateway)
}

// farPod plays the pod on the other network: it says back what it was told, by whom, and what for.
func (s shopMesh) farPod(t *testing.T) {
	t.Helper()
	if err := s.AddAddress(netip.MustParseAddr(farPod)); err != nil {
		t.Fatal(err)
	}
	ln, err := s.NS.Listen("tcp", farPod+":15008")
	if err != nil {
		t.Fatal(err)
	}
	server := &hbone.Server{Identity: s.identity(t, "shop", "orders"), Admit: func(context.Context, *hbone.ConnectRequest) error { return nil }}
	go func() { _ = server.Serve(ln) }() // it ends by Close
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				line, err := bufio.NewReader(c).ReadString('\n')
				if err != nil {
					return
				}
				tunnel := c.(*hbone.Conn)
				fmt.Fprintf(c, "%s from %s for %s\n", strings.TrimSpace(line), tunnel.PeerIdentity(), tunnel.Request().Authority)
			}()
		}
	}()
	t.Cleanup(func() { server.Close() })
}

func (s shopMesh) roots() ([]byte, error) { return s.RootPEM, nil }

// token asks the API server for tokens of an account, as the kubelet does.
func (s shopMesh) token(t *testing.T, namespace, name string) func(context.Context) (string, error) {
	t.Helper()
	account := &corev1.ServiceAccount{}
	if err := s.Client().Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, account); err != nil {
		t.Fatal(err)
	}
	return func(ctx context.Context) (string, error) {
		r := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{"istio-ca"}}}
		err := s.Client().SubResource("token").Create(ctx, account, r)
		return r.Status.Token, err
	}
}

// identity gets the certificate of an account from istiod.
func (s shopMesh) identity(t *testing.T, namespace, name string) hbone.Identity {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	source, err := istioca.New(ctx, istioca.Config{
		Addresses: []string{s.Istiod.CA.String()}, ServerName: s.Istiod.ServerName, Roots: s.roots, Token: s.token(t, namespace, name),
		ID: spiffeid.RequireFromString("spiffe://cluster.local/ns/" + namespace + "/sa/" + name), DialContext: s.NS.DialContext,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { source.Close() })
	return source
}
