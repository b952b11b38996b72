package clitest

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/e2e/command"
	"github.com/isthmus-mesh/isthmus/e2e/envoyshim"
	"github.com/isthmus-mesh/isthmus/e2e/story/apps"
)

// inspected is an ingress gateway of Istio's, which is an Envoy, before a shop of its own with a waypoint.
var inspected = `
{apiVersion: v1, kind: Namespace, metadata: {name: inspected, labels: {istio.io/dataplane-mode: ambient}}}
---` + apps.OrdersObjects("inspected", "") + `
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: shared, namespace: inspected, labels: {istio.io/waypoint-for: service}}, spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: ingress, namespace: inspected, annotations: {networking.istio.io/service-type: ClusterIP}}
spec: {gatewayClassName: istio, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: orders, namespace: inspected}, spec: {parentRefs: [{name: ingress}], rules: [{backendRefs: [{name: orders, port: 80}]}]}}
`

// forwards lets a user create pods/portforward, as administrators give it.
const forwards = `
{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: forwards, namespace: inspected}, rules: [{apiGroups: [""], resources: [pods/portforward], verbs: [create]}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: forwards, namespace: inspected}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: forwards}, subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: inspector}]}
`

// inspection is a part of what isthmus inspect -o json says.
type inspection struct {
	Kind     string
	Gateways []struct {
		Vendor string
		Pods   []struct {
			Name, Page string
			Error      *struct{ Message, Where, Next string }
		}
		Backends []struct {
			Service, Waypoint, Switch, Result string
			Seen                              []struct {
				Sends string
				To    []string
			}
		}
	}
}

// inspects runs isthmus inspect until its result is so, or 30 s: proxies take what is new after a while.
func (c *cluster) inspects(t *testing.T, kubeconfig, result string) (doc inspection, r command.Result) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		doc = inspection{}
		r = c.isthmus("inspect", "inspected/ingress", "--kubeconfig", kubeconfig, "-o", "json")
		if err := json.Unmarshal([]byte(r.Stdout), &doc); err != nil {
			t.Fatalf("%v: %s%s", err, r.Stdout, r.Stderr)
		}
		if g := doc.Gateways; len(g) == 1 && len(g[0].Backends) == 1 && g[0].Backends[0].Result == result {
			return doc, r
		}
		if time.Now().After(deadline) {
			t.Fatalf("the result does not become %s: %s", result, r.Stdout)
		}
	}
}

// TestInspectReadsARealEnvoy: an ingress gateway of Istio's sends to pods, then, switched, to the Service's address by its waypoint, and to pods again where the
// waypoint that is named is not there: each as its Envoy has it, by a port-forward with the rights of who asks.
func TestInspectReadsARealEnvoy(t *testing.T) {
	c := newCluster(t)
	needEnvoy(t)
	if err := c.Apply(t.Context(), inspected); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Delete(context.WithoutCancel(t.Context()), inspected); err != nil {
			t.Error(err)
		}
	})
	for _, name := range []string{"ingress-istio", "shared"} {
		c.available(types.NamespacedName{Namespace: "inspected", Name: name})
	}
	kubeconfig := c.reader("inspector", "get", "list", "watch")
	service := &corev1.Service{}
	if err := c.Client().Get(t.Context(), types.NamespacedName{Namespace: "inspected", Name: "orders"}, service); err != nil {
		t.Fatal(err)
	}
	label := func(waypoint string) {
		t.Helper()
		patch := `{"metadata":{"labels":{"istio.io/use-waypoint":"` + waypoint + `","` + edge.LabelIngressUseWaypoint + `":"true"}}}`
		if err := c.Client().Patch(t.Context(), service.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
			t.Fatal(err)
		}
	}

	doc, r := c.inspects(t, kubeconfig, "unread")
	if p := doc.Gateways[0].Pods; len(p) != 1 || p[0].Error == nil || p[0].Error.Message != "the right to create pods/portforward in namespace inspected is missing" || !strings.Contains(p[0].Error.Next, "kubectl create role") {
		t.Errorf("without the right: %+v", p)
	}
	r.Want(t, 1, r.Stderr, "the right to create pods/portforward in namespace inspected is missing")
	if err := c.Apply(t.Context(), forwards); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitGranted(t.Context(), "inspected", "inspector", rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods/portforward"}, Verbs: []string{"create"}}); err != nil {
		t.Fatal(err)
	}

	pod := c.Node.PodIP("inspected", "orders").String() + ":8080"
	doc, r = c.inspects(t, kubeconfig, "notSwitched")
	r.Want(t, 0, r.Stdout)
	if b := doc.Gateways[0].Backends[0]; b.Switch != "pods" || b.Seen[0].Sends != "pods" || len(b.Seen[0].To) != 1 || b.Seen[0].To[0] != pod {
		t.Errorf("before it is switched: %+v, want %s", b, pod)
	}

	label("shared")
	doc, r = c.inspects(t, kubeconfig, "inForce")
	r.Want(t, 0, r.Stdout)
	to := service.Spec.ClusterIP + ":80 via "
	if b := doc.Gateways[0].Backends[0]; b.Switch != "service" || b.Waypoint != "inspected/shared" || b.Seen[0].Sends != "address" || !strings.HasPrefix(b.Seen[0].To[0], to) || !strings.HasSuffix(b.Seen[0].To[0], ":15008") {
		t.Errorf("switched: %+v, want %s", b, to)
	}
	r = c.isthmus("inspect", "inspected/ingress", "--kubeconfig", kubeconfig)
	r.Want(t, 0, r.Stdout, "Gateway inspected/ingress, istio: read from 1 of 1 pods", "inspected/orders", "inspected/shared", "service", to, "its own address, as switched")

	saved := filepath.Join(t.TempDir(), "dump.json")
	text, err := envoyshim.Admin(t.Context(), c.Node, "inspected", doc.Gateways[0].Pods[0].Name, "config_dump?include_eds")
	if err == nil {
		err = os.WriteFile(saved, []byte(text), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	r = c.isthmus("inspect", "inspected/ingress", "--dump", saved)
	r.Want(t, 0, r.Stdout, "read from 1 of 1 texts", to, "its own address, as switched")
	if !strings.Contains(text, "secret") || strings.Contains(r.Stdout, "secret") {
		t.Error("the dump has nothing of secrets, or what is shown has")
	}

	label("nobody") // which no waypoint is
	doc, r = c.inspects(t, kubeconfig, "notInForce")
	r.Want(t, 1, r.Stderr, "the switch of Gateway inspected/ingress is not in force for Service inspected/orders")
	if b := doc.Gateways[0].Backends[0]; b.Seen[0].Sends != "pods" || b.Seen[0].To[0] != pod {
		t.Errorf("with a waypoint that is not there: %+v, want %s", b, pod)
	}
}
