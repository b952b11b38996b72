package manifeststest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/e2e/mesh/meshtest"
	"github.com/isthmus-mesh/isthmus/e2e/world"
	"github.com/isthmus-mesh/isthmus/manifests"
)

func TestMain(m *testing.M) {
	world.Enter(mesh.Funcs())
	os.Exit(meshtest.Main(m, &shared))
}

// shared is the API server of all tests, with everything installed.
var shared = meshtest.Shared{Start: install}

// controllerUser is the controller's account.
const controllerUser = "system:serviceaccount:" + manifests.Namespace + ":" + manifests.Controller

func installed(t *testing.T) *mesh.Mesh {
	t.Helper()
	return shared.Get(t)
}

func install(ctx context.Context) (*mesh.Mesh, error) {
	m, err := mesh.Start(ctx, mesh.Options{APIOnly: true, Quick: true})
	if err != nil {
		return m, err
	}
	all, err := manifests.Install()
	if err != nil {
		return m, err
	}
	if err := m.Apply(ctx, string(all)); err != nil {
		return m, err
	}
	if err := m.Apply(ctx, objects); err != nil {
		return m, err
	}
	return m, enforced(ctx, m)
}

// enforced waits until the API server has taken up both policies: that takes a moment.
func enforced(ctx context.Context, m *mesh.Mesh) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var last error
	for _, probe := range []struct{ user, object string }{
		{controllerUser, configMap},
		{"nobody", edge("probe", manages)},
	} {
		c, err := as(m, probe.user, "system:masters")
		if err != nil {
			return err
		}
		if probe.user == "nobody" { // he may write AmbientEdges, and nothing else
			if c, err = as(m, probe.user); err != nil {
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
func as(m *mesh.Mesh, user string, groups ...string) (client.Client, error) {
	cfg, err := m.UserConfig(user, groups...)
	if err != nil {
		return nil, err
	}
	return client.New(cfg, client.Options{Scheme: m.Client().Scheme(), Mapper: m.Client().RESTMapper()})
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
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: orders, namespace: edge, annotations: {note: x}}
spec: {defaultBackend: {service: {name: orders, port: {number: 80}}}}
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
