package run

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// Istiod says which istiod's mesh is meant. The zero value is the one without a revision, in istio-system.
type Istiod struct {
	// Namespace is istiod's. Empty means istio-system.
	Namespace string
	// Revision is istiod's, as label istio.io/rev has it. Empty, and default, mean the one that has none in its name.
	Revision string
}

// Home is istiod's namespace.
func (i Istiod) Home() string { return cmp.Or(i.Namespace, "istio-system") }

// named is a name of istiod's, with its revision.
func (i Istiod) named(name string) string {
	if i.Revision == "" || i.Revision == "default" {
		return name
	}
	return name + "-" + i.Revision
}

// Service is istiod's host name.
func (i Istiod) Service() string { return i.named("istiod") + "." + i.Home() + ".svc" }

// ConfigMap is that with the mesh's configuration.
func (i Istiod) ConfigMap() types.NamespacedName {
	return types.NamespacedName{Namespace: i.Home(), Name: i.named("istio")}
}

// Mesh is what istiod's configuration says of a mesh. What it does not say is empty.
type Mesh struct {
	TrustDomain   string // Istio has cluster.local where it is empty
	RootNamespace string // Istio has istio-system where it is empty
	ClusterID     string // istiod's name of the cluster
	Network       string // of istiod's namespace

	TrustDomainAliases []string
	PathNormalization  policy.Normalization
	Providers          []string // the names of extension providers; never nil

	// Unread says why the ConfigMap that istiod's variable SHARED_MESH_CONFIG names was not read: what it says may hold where nothing is said here. Empty: it
	// was, or there is none.
	Unread string
}

// meshConfig is the part of Istio's mesh configuration that matters here.
type meshConfig struct {
	TrustDomain   string `json:"trustDomain"`
	RootNamespace string `json:"rootNamespace"`
	DefaultConfig struct {
		ProxyMetadata map[string]string `json:"proxyMetadata"`
	} `json:"defaultConfig"`
	TrustDomainAliases []string `json:"trustDomainAliases"`
	PathNormalization  struct {
		Normalization string `json:"normalization"`
	} `json:"pathNormalization"`
	ExtensionProviders []struct {
		Name string `json:"name"`
	} `json:"extensionProviders"`
}

// normalization is that of a waypoint. What is not said, or is another name for it, is the default.
func (c *meshConfig) normalization() policy.Normalization {
	return map[string]policy.Normalization{
		"NONE": policy.None, "MERGE_SLASHES": policy.MergeSlashes, "DECODE_AND_MERGE_SLASHES": policy.DecodeAndMergeSlashes,
	}[c.PathNormalization.Normalization]
}

// labelNetwork on istiod's namespace is the network of what is in its cluster.
const labelNetwork = "topology.istio.io/network"

// ReadMesh reads what istiod's ConfigMap says of its mesh, and what its namespace and its Deployment add: its variable SHARED_MESH_CONFIG names another
// ConfigMap there, before which the first comes. It blocks for four requests at most. An error is about the ConfigMap; what may not be read of the rest is left
// empty, but for the other ConfigMap, which is Mesh.Unread.
func ReadMesh(ctx context.Context, r client.Reader, at Istiod) (*Mesh, error) {
	key := at.ConfigMap()
	text, err := meshText(ctx, r, key)
	if err != nil {
		return nil, err
	}
	var c meshConfig
	env, unread := environment(ctx, r, at), ""
	if name := env["SHARED_MESH_CONFIG"]; name != "" {
		shared := types.NamespacedName{Namespace: at.Home(), Name: name}
		text, err := meshText(ctx, r, shared)
		if err == nil {
			err = c.apply(shared, text)
		}
		if err != nil {
			c, unread = meshConfig{}, err.Error()
		}
	}
	if err := c.apply(key, text); err != nil {
		return nil, err
	}
	meta := c.DefaultConfig.ProxyMetadata
	m := &Mesh{
		TrustDomain: c.TrustDomain, RootNamespace: c.RootNamespace,
		ClusterID: cmp.Or(env["CLUSTER_ID"], meta["ISTIO_META_CLUSTER_ID"]), Network: meta["ISTIO_META_NETWORK"],
		TrustDomainAliases: c.TrustDomainAliases, PathNormalization: c.normalization(), Providers: []string{}, Unread: unread,
	}
	for _, p := range c.ExtensionProviders {
		m.Providers = append(m.Providers, p.Name)
	}
	ns := &metav1.PartialObjectMetadata{}
	ns.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
	if r.Get(ctx, types.NamespacedName{Name: at.Home()}, ns) == nil {
		m.Network = cmp.Or(ns.Labels[labelNetwork], m.Network)
	}
	return m, nil
}

// meshText is the mesh configuration that a ConfigMap has.
func meshText(ctx context.Context, r client.Reader, key types.NamespacedName) (string, error) {
	var config corev1.ConfigMap
	if err := r.Get(ctx, key, &config); err != nil {
		return "", fmt.Errorf("read ConfigMap %s: %w", key, err)
	}
	text, is := config.Data["mesh"]
	if !is {
		return "", fmt.Errorf("read ConfigMap %s: it has no key mesh, but %q", key, slices.Sorted(maps.Keys(config.Data)))
	}
	return text, nil
}

// apply puts what a text says over what is there, as istiod does: providers and aliases are added, all else takes the place of what was.
func (c *meshConfig) apply(of types.NamespacedName, text string) error {
	aliases, providers := c.TrustDomainAliases, c.ExtensionProviders
	c.TrustDomainAliases, c.ExtensionProviders = nil, nil
	if err := yaml.Unmarshal([]byte(text), c); err != nil {
		return fmt.Errorf("read ConfigMap %s, key mesh: %w", of, err)
	}
	for _, p := range c.ExtensionProviders {
		if !slices.Contains(providers, p) {
			providers = append(providers, p)
		}
	}
	c.ExtensionProviders = providers
	if len(aliases) > 0 {
		c.TrustDomainAliases = slices.Compact(slices.Sorted(slices.Values(append(aliases, c.TrustDomainAliases...))))
	}
	return nil
}

// environment are the variables that istiod's Deployment gives it.
func environment(ctx context.Context, r client.Reader, at Istiod) map[string]string {
	env := map[string]string{}
	var list appsv1.DeploymentList
	if r.List(ctx, &list, client.InNamespace(at.Home()), client.MatchingLabels{"app": "istiod"}) != nil {
		return env
	}
	for i := range list.Items {
		d := &list.Items[i]
		if rev := cmp.Or(d.Labels["istio.io/rev"], "default"); rev != cmp.Or(at.Revision, "default") {
			continue
		}
		for _, c := range d.Spec.Template.Spec.Containers {
			for _, e := range c.Env {
				env[e.Name] = cmp.Or(env[e.Name], e.Value)
			}
		}
	}
	return env
}
