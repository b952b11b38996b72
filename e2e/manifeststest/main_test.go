package manifeststest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/e2e/world"
	"github.com/isthmus-mesh/isthmus/manifests"
)

func TestMain(m *testing.M) {
	world.Enter(mesh.Funcs())
	code := m.Run()
	if shared.mesh != nil {
		if code != 0 {
			shared.mesh.Keep()
			fmt.Println("logs are in", shared.mesh.Dir)
		}
		if err := shared.mesh.Stop(); err != nil {
			fmt.Println(err)
			code = 1
		}
	}
	os.Exit(code)
}

// shared is the API server of all tests, with everything installed.
var shared struct {
	once sync.Once
	mesh *mesh.Mesh
	err  error
}

// controllerUser is the controller's account.
const controllerUser = "system:serviceaccount:" + manifests.Namespace + ":" + manifests.Controller

func installed(t *testing.T) *mesh.Mesh {
	t.Helper()
	shared.once.Do(func() { shared.err = install() })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.mesh
}

func install() (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if shared.mesh, err = mesh.Start(ctx, mesh.Options{APIOnly: true}); err != nil {
		return err
	}
	all, err := manifests.Install()
	if err != nil {
		return err
	}
	if err := shared.mesh.Apply(ctx, string(all)); err != nil {
		return err
	}
	if err := shared.mesh.Apply(ctx, objects); err != nil {
		return err
	}
	return enforced(ctx)
}

// enforced waits until the API server has taken up both policies: that takes a moment.
func enforced(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var last error
	for _, probe := range []struct{ user, object string }{
		{controllerUser, configMap},
		{"nobody", edge("probe", manages)},
	} {
		c, err := as(probe.user, "system:masters")
		if err != nil {
			return err
		}
		if probe.user == "nobody" { // he may write AmbientEdges, and nothing else
			if c, err = as(probe.user); err != nil {
				return err
			}
		}
		for {
			err := c.Create(ctx, parse(probe.object), client.DryRunAll)
			if refused(err) {
				break
			}
			if ctx.Err() != nil {
				return fmt.Errorf("the policies are not enforced for %s: %w", probe.user, last)
			}
			last = fmt.Errorf("answer %w", cmp.Or(err, errors.New("ok")))
			time.Sleep(50 * time.Millisecond)
		}
	}
	return nil
}

// refused says whether err is one of our policies.
func refused(err error) bool {
	return apierrors.IsForbidden(err) && strings.Contains(err.Error(), "ValidatingAdmissionPolicy 'isthmus-")
}

// as is a client of another user.
func as(user string, groups ...string) (client.Client, error) {
	cfg, err := shared.mesh.UserConfig(user, groups...)
	if err != nil {
		return nil, err
	}
	return client.New(cfg, client.Options{Scheme: shared.mesh.Client().Scheme(), Mapper: shared.mesh.Client().RESTMapper()})
}

// parse reads one object.
func parse(text string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{}
	if err := yaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 4096).Decode(&u.Object); err != nil {
		panic(err)
	}
	return u
}

const configMap = `
apiVersion: v1
kind: ConfigMap
metadata: {name: probe, namespace: edge}
`

// objects are what the tests work on. Everybody may write AmbientEdges in namespace edge.
const objects = `
apiVersion: v1
kind: Namespace
metadata: {name: edge}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: edges, namespace: edge}
rules:
- {apiGroups: [isthmus.dev], resources: [ambientedges], verbs: ["*"]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: edges, namespace: edge}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: edges}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: system:authenticated}]
---
apiVersion: v1
kind: Service
metadata: {name: orders, namespace: edge, labels: {app: orders}, annotations: {note: x}}
spec: {selector: {app: orders}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: gateway, namespace: edge}
spec:
  replicas: 1
  selector: {matchLabels: {app: gateway}}
  template:
    metadata: {labels: {app: gateway}, annotations: {note: x}}
    spec: {containers: [{name: c, image: nothing}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: gateway, namespace: edge}
spec:
  selector: {matchLabels: {app: gateways}}
  template:
    metadata: {labels: {app: gateways}}
    spec: {containers: [{name: c, image: nothing}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: http, namespace: edge}
spec:
  gatewayClassName: some
  infrastructure: {labels: {team: x}, annotations: {note: x}}
  listeners: [{name: http, port: 80, protocol: HTTP}]
`

// edge is an AmbientEdge in namespace edge.
func edge(name, spec string) string {
	return "apiVersion: isthmus.dev/v1alpha1\nkind: AmbientEdge\nmetadata: {name: " + name + ", namespace: edge}\nspec: " + spec
}

const manages = `{mode: Manage, workloadRefs: [{kind: Deployment, name: gateway}], backends: {services: [{namespace: edge, name: orders}]}}`
