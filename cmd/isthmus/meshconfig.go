package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	ctl "github.com/isthmus-mesh/isthmus/controller/run"
)

// configFlags say which mesh is meant, to whoever may read its configuration.
type configFlags struct {
	istiod                     ctl.Istiod
	trustDomain, rootNamespace string
	named                      []string // flags that name istiod, as they were given
}

func registerIstiod(cmd *cobra.Command, at *ctl.Istiod) {
	f := cmd.Flags()
	f.StringVar(&at.Namespace, "istio-namespace", ctl.Istiod{}.Home(), "istiod's `NAMESPACE`")
	_ = cmd.RegisterFlagCompletionFunc("istio-namespace", completeNamespacesOf(cmd))
	f.StringVar(&at.Revision, "revision", "", "istiod's `REVISION`, as label istio.io/rev has it (default: the one without)")
}

func (c *configFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&c.trustDomain, "trust-domain", "", "trust `DOMAIN` of the mesh (default: what its configuration says, else cluster.local)")
	f.StringVar(&c.rootNamespace, "root-namespace", "", "root `NAMESPACE` of the mesh (default: what its configuration says, else istio-system)")
	_ = cmd.RegisterFlagCompletionFunc("root-namespace", completeNamespacesOf(cmd))
	registerIstiod(cmd, &c.istiod)
}

// check refuses values that make no sense.
func (c *configFlags) check(cmd *cobra.Command) error {
	c.named = nil
	for _, name := range []string{"istio-namespace", "revision"} {
		if f := cmd.Flags().Lookup(name); f != nil && f.Changed {
			c.named = append(c.named, "--"+name+" "+f.Value.String())
		}
	}
	if c.trustDomain == "" {
		return nil
	}
	if _, err := spiffeid.TrustDomainFromString(c.trustDomain); err != nil {
		return usagef(cmd.CommandPath(), "--trust-domain: %v", err)
	}
	return nil
}

// assumed is the mesh where nobody can be asked.
func (c *configFlags) assumed() *ctl.Mesh {
	return &ctl.Mesh{TrustDomain: cmp.Or(c.trustDomain, "cluster.local"), RootNamespace: cmp.Or(c.rootNamespace, "istio-system")}
}

// read finds out about the mesh: flags come before what its configuration says, which comes before what Istio has by default. A configuration that may
// not be read is a note; that flags name an istiod or a root namespace which is not there is an error. One that contradicts the trust domain of a flag is an error, as no principal would be what it is taken for.
func (c *configFlags) read(ctx context.Context, r client.Reader) (*ctl.Mesh, []string, error) {
	m, err := ctl.ReadMesh(ctx, r, c.istiod)
	if apierrors.IsNotFound(err) && len(c.named) > 0 {
		return nil, nil, &failure{
			what: "there is no mesh's configuration where " + strings.Join(c.named, " and ") + " has it", where: "ConfigMap " + c.istiod.ConfigMap().String(), err: err,
			next: "kubectl get configmaps -A -l release=istio shows those that are there; leave out what is not so",
		}
	}
	if ns := (&corev1.Namespace{}); c.rootNamespace != "" {
		if err := r.Get(ctx, types.NamespacedName{Name: c.rootNamespace}, ns); apierrors.IsNotFound(err) {
			return nil, nil, &failure{what: "there is no namespace " + c.rootNamespace + ", which --root-namespace names", next: "name the one that is meant, or leave the flag out: the mesh's configuration says it"}
		}
	}
	if err != nil {
		m = c.assumed()
		return m, []string{fmt.Sprintf("the mesh's configuration cannot be read (%v): trust domain %s and root namespace %s are assumed", err, m.TrustDomain, m.RootNamespace)}, nil
	}
	notes, err := c.settle(m)
	return m, notes, err
}

// settle has flags override what the configuration says, and fills in what neither does. A trust domain of a flag that is neither contradicted nor
// confirmed is a note: istiod may have it from another ConfigMap.
func (c *configFlags) settle(m *ctl.Mesh) (notes []string, err error) {
	where := "ConfigMap " + c.istiod.ConfigMap().String()
	if m.Unread != "" {
		notes = append(notes, fmt.Sprintf("istiod has a part of its mesh's configuration from elsewhere (%s): what is not said in %s is assumed; let get it, or say what is so with --trust-domain and --root-namespace", m.Unread, where))
	}
	assumed := c.assumed()
	m.RootNamespace = cmp.Or(c.rootNamespace, m.RootNamespace, assumed.RootNamespace)
	if m.TrustDomain == "" {
		if m.TrustDomain = assumed.TrustDomain; m.TrustDomain != "cluster.local" {
			notes = append(notes, fmt.Sprintf("%s says no trust domain, where Istio has cluster.local: %s counts, as --trust-domain says", where, m.TrustDomain))
		}
		return notes, nil
	}
	if _, err := spiffeid.TrustDomainFromString(m.TrustDomain); err != nil {
		return nil, &failure{what: "the mesh's trust domain makes no sense", where: where + ", key mesh", err: err, next: "correct trustDomain there"}
	}
	if c.trustDomain != "" && c.trustDomain != m.TrustDomain {
		return nil, &failure{
			what:  fmt.Sprintf("--trust-domain says %s, and the mesh's configuration %s: every principal would be taken for another", c.trustDomain, m.TrustDomain),
			where: where, next: "leave --trust-domain out, or name the istiod that is meant with --istio-namespace and --revision",
		}
	}
	return notes, nil
}

// configTimeout is how long the controller waits for the mesh's configuration at its start.
const configTimeout = 10 * time.Second

// learn fills in what the flags of a controller do not say from the mesh's configuration, and logs it. It reads once: a mesh gets another trust domain
// when istiod begins anew, and so has the controller to. Without --trust-domain, an error that may pass is the error; that the configuration is not there, or may not be read, is a
// warning.
func (f *controllerFlags) learn(ctx context.Context, cfg *rest.Config, log *slog.Logger) error {
	scheme, err := ctl.Scheme()
	if err != nil {
		return err
	}
	c, err := client.New(rest.CopyConfig(cfg), client.Options{Scheme: scheme, Mapper: configMapper()})
	if err != nil {
		return explainController("the controller cannot start", cfg.Host, err)
	}
	ctx, cancel := context.WithTimeout(ctx, configTimeout)
	defer cancel()
	return f.learnFrom(ctx, c, log)
}

// configMapper knows the kinds that tell of a mesh. The API server is not asked for them: that would not end with a context.
func configMapper() meta.RESTMapper {
	m := meta.NewDefaultRESTMapper(nil)
	m.Add(corev1.SchemeGroupVersion.WithKind("ConfigMap"), meta.RESTScopeNamespace)
	m.Add(corev1.SchemeGroupVersion.WithKind("Namespace"), meta.RESTScopeRoot)
	m.Add(appsv1.SchemeGroupVersion.WithKind("Deployment"), meta.RESTScopeNamespace)
	return m
}

func (f *controllerFlags) learnFrom(ctx context.Context, r client.Reader, log *slog.Logger) error {
	m := &f.mesh
	c := configFlags{istiod: m.at, rootNamespace: f.rootNamespace}
	if m.given["trust-domain"] {
		c.trustDomain = m.trustDomain
	}
	is, err := ctl.ReadMesh(ctx, r, c.istiod)
	switch {
	case err != nil && c.trustDomain == "" && !apierrors.IsForbidden(err) && !apierrors.IsNotFound(err):
		// It may be well in a moment, and what is assumed instead would count for as long as the controller runs.
		return &failure{
			what: "the mesh's configuration cannot be read, and its trust domain is not known without it", where: "ConfigMap " + c.istiod.ConfigMap().String(), err: err,
			next: "check that the API server answers, with kubectl version, and that the ConfigMap is well; Kubernetes starts the controller anew meanwhile. Or say what is so with --trust-domain",
		}
	case err != nil:
		is = c.assumed()
		next := "correct --istio-namespace and --revision, or say what is so with --trust-domain, --root-namespace, --cluster-id and --network"
		if apierrors.IsForbidden(err) {
			next = "let the controller's ClusterRole get ConfigMap " + c.istiod.ConfigMap().Name + ", by resourceNames; or " + next
		}
		log.Warn("the mesh's configuration cannot be read, and is assumed", "cause", err, "trustDomain", is.TrustDomain, "rootNamespace", is.RootNamespace, "next", next)
	default:
		notes, err := c.settle(is)
		if err != nil {
			return err
		}
		for _, note := range notes {
			log.Warn(note)
		}
	}
	m.trustDomain, f.rootNamespace = is.TrustDomain, is.RootNamespace
	f.aliases = slices.DeleteFunc(slices.Concat(m.trust.aliases, is.TrustDomainAliases), func(domain string) bool { return domain == is.TrustDomain })
	slices.Sort(f.aliases)
	f.aliases = slices.Compact(f.aliases)
	if !m.given["cluster-id"] {
		m.clusterID = cmp.Or(is.ClusterID, m.clusterID)
	}
	if !m.given["network"] {
		m.network = cmp.Or(is.Network, m.network)
	}
	if _, err := m.trust.config(m.trustDomain); err != nil {
		return &failure{what: "--trust-alias does not go with the mesh's trust domain " + m.trustDomain, err: err, next: "correct --trust-alias"}
	}
	log.Info("the mesh", "trustDomain", m.trustDomain, "aliases", f.aliases, "rootNamespace", f.rootNamespace, "clusterID", m.clusterID, "network", m.network, "istiod", m.istiod)
	return nil
}
