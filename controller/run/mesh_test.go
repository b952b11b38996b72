package run

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// meshReader has one ConfigMap, and may have istiod's namespace and Deployment.
type meshReader struct {
	client.Reader
	at         string // of the ConfigMap
	mesh       string
	network    string
	revision   string
	cluster    string
	forbidRest bool
	shared     string // ConfigMap NAME: what it says, which the Deployment names
}

func (r *meshReader) Get(_ context.Context, key client.ObjectKey, o client.Object, _ ...client.GetOption) error {
	if c, is := o.(*corev1.ConfigMap); is {
		if name, text, is := strings.Cut(r.shared, ": "); is && key.Name == name && text != "" {
			c.Data = map[string]string{"mesh": text}
			return nil
		}
		if key.String() != r.at {
			return apierrors.NewNotFound(schema.GroupResource{Resource: "configmaps"}, key.Name)
		}
		if c.Data = map[string]string{"mesh": r.mesh}; r.mesh == "" {
			c.Data = map[string]string{"meshNetworks": ""}
		}
		return nil
	}
	if r.forbidRest {
		return apierrors.NewForbidden(schema.GroupResource{Resource: "namespaces"}, key.Name, errors.New("no"))
	}
	o.SetLabels(map[string]string{labelNetwork: r.network})
	return nil
}

func (r *meshReader) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	if r.forbidRest {
		return apierrors.NewForbidden(schema.GroupResource{Resource: "deployments"}, "", errors.New("no"))
	}
	d := appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"istio.io/rev": r.revision}}}
	d.Spec.Template.Spec.Containers = []corev1.Container{{Env: []corev1.EnvVar{{Name: "OTHER", Value: "x"}, {Name: "CLUSTER_ID", Value: r.cluster}}}}
	if name, _, is := strings.Cut(r.shared, ": "); is {
		env := &d.Spec.Template.Spec.Containers[0].Env
		*env = append(*env, corev1.EnvVar{Name: "SHARED_MESH_CONFIG", Value: name})
	}
	list.(*appsv1.DeploymentList).Items = []appsv1.Deployment{d}
	return nil
}

func TestReadMesh(t *testing.T) {
	const usual = "istio-system/istio"
	for _, c := range []struct {
		name string
		at   Istiod
		r    meshReader
		want Mesh
		err  string // empty: none
	}{
		{"nothing that matters", Istiod{}, meshReader{at: usual, mesh: "accessLogFile: /dev/stdout"}, Mesh{}, ""},
		{"all of it", Istiod{}, meshReader{at: usual, mesh: "trustDomain: corp.example\nrootNamespace: istio-root\ndefaultConfig: {discoveryAddress: x}", network: "near", revision: "default", cluster: "one"},
			Mesh{TrustDomain: "corp.example", RootNamespace: "istio-root", ClusterID: "one", Network: "near"}, ""},
		{"a revision elsewhere", Istiod{Namespace: "mesh", Revision: "1-31"}, meshReader{at: "mesh/istio-1-31", mesh: "trustDomain: corp.example", revision: "1-31", cluster: "one"},
			Mesh{TrustDomain: "corp.example", RootNamespace: "", ClusterID: "one", Network: ""}, ""},
		{"revision default has no name", Istiod{Revision: "default"}, meshReader{at: usual, mesh: "{}", cluster: "one"}, Mesh{TrustDomain: "", RootNamespace: "", ClusterID: "one", Network: ""}, ""},
		{"istiod of another revision", Istiod{}, meshReader{at: usual, mesh: "{}", revision: "canary", cluster: "two"}, Mesh{}, ""},
		{"the ConfigMap alone may be read", Istiod{}, meshReader{at: usual, mesh: "defaultConfig: {proxyMetadata: {ISTIO_META_CLUSTER_ID: one, ISTIO_META_NETWORK: near}}", forbidRest: true},
			Mesh{TrustDomain: "", RootNamespace: "", ClusterID: "one", Network: "near"}, ""},
		{"what policies depend on", Istiod{}, meshReader{at: usual, mesh: "trustDomainAliases: [old.example]\npathNormalization: {normalization: DECODE_AND_MERGE_SLASHES}\nextensionProviders: [{name: mine, envoyExtAuthzGrpc: {}}]"},
			Mesh{TrustDomainAliases: []string{"old.example"}, PathNormalization: policy.DecodeAndMergeSlashes, Providers: []string{"mine"}}, ""},
		{"normalization by its other name", Istiod{}, meshReader{at: usual, mesh: "pathNormalization: {normalization: BASE}"}, Mesh{}, ""},
		{"another ConfigMap says what this one does not", Istiod{}, meshReader{at: usual, mesh: "rootNamespace: istio-root\ntrustDomainAliases: [b.example]\nextensionProviders: [{name: mine}]", revision: "default",
			shared: "base: {trustDomain: corp.example, rootNamespace: other, trustDomainAliases: [c.example, a.example], extensionProviders: [{name: theirs}, {name: mine}], defaultConfig: {proxyMetadata: {ISTIO_META_NETWORK: near}}}"},
			Mesh{TrustDomain: "corp.example", RootNamespace: "istio-root", Network: "near", TrustDomainAliases: []string{"a.example", "b.example", "c.example"}, Providers: []string{"theirs", "mine"}}, ""},
		{"another ConfigMap that is not there", Istiod{}, meshReader{at: usual, mesh: "trustDomain: corp.example", revision: "default", shared: "base: "},
			Mesh{TrustDomain: "corp.example", Unread: `read ConfigMap istio-system/base: configmaps "base" not found`}, ""},
		{"another ConfigMap that is malformed", Istiod{}, meshReader{at: usual, mesh: "rootNamespace: mine", revision: "default", shared: "base: {rootNamespace: other, trustDomain: [a]}"},
			Mesh{RootNamespace: "mine", Unread: "read ConfigMap istio-system/base, key mesh: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal array into Go struct field meshConfig.trustDomain of type string"}, ""},
		{"another ConfigMap of istiod of another revision", Istiod{}, meshReader{at: usual, mesh: "{}", revision: "canary", shared: "base: {trustDomain: corp.example}"}, Mesh{}, ""},
		{"it is not there", Istiod{Revision: "1-31"}, meshReader{at: usual, mesh: "{}"}, Mesh{}, "read ConfigMap istio-system/istio-1-31"},
		{"it has another key", Istiod{}, meshReader{at: usual}, Mesh{}, `no key mesh, but ["meshNetworks"]`},
		{"it is malformed", Istiod{}, meshReader{at: usual, mesh: "trustDomain: [a]"}, Mesh{}, "key mesh"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ReadMesh(t.Context(), &c.r, c.at)
			switch {
			case c.err == "" && err != nil:
				t.Error(err)
			case c.err == "":
				if c.want.Providers == nil {
					c.want.Providers = []string{}
				}
				if d := cmp.Diff(&c.want, got); d != "" {
					t.Errorf("-want +got\n%s", d)
				}
			case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
				t.Errorf("got %v, want %q", err, c.err)
			}
		})
	}
	if got := (Istiod{Namespace: "mesh", Revision: "1-31"}).Service(); got != "istiod-1-31.mesh.svc" {
		t.Errorf("its host name is %s", got)
	}
	if got := (Istiod{}).Service(); got != "istiod.istio-system.svc" {
		t.Errorf("its host name is %s", got)
	}
}

// TestTheMeshTakesOneRight: of ConfigMaps nobody needs more than to get the one that is meant.
func TestTheMeshTakesOneRight(t *testing.T) {
	found := false
	for _, r := range append(ObserveRules(), ManageRules()...) {
		for _, resource := range r.Resources {
			if resource != "configmaps" {
				continue
			}
			found = true
			if len(r.Verbs) != 1 || r.Verbs[0] != "get" || len(r.ResourceNames) != 1 || r.ResourceNames[0] != "istio" || len(r.Resources) != 1 {
				t.Errorf("the rule is %+v", r)
			}
		}
	}
	if !found {
		t.Error("nobody may read the mesh's configuration")
	}
}
