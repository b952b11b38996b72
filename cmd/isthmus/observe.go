package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
	ctl "github.com/isthmus-mesh/isthmus/controller/run"
)

const observeLong = `Find every Gateway of a cluster and every known Ingress controller, and show
what an AmbientEdge would do for each, without one being written. With a name:
one of them, what its vendor needs before, its whole plan, the AmbientEdge that
would do it, and the commands of those who consent. -o yaml then has the
AmbientEdge alone, as kubectl apply takes it.

Nothing is written, and rights to read are enough: those of the ClusterRole
isthmus-view. The CRDs of Isthmus, the Gateway API and Istio need not be there.
No waypoint and no proxy is asked.

VENDOR is the kind of gateway; custom is one that Isthmus has no entry for.
CAPTURED counts pods whose connections the mesh carries, and all pods; HBONE are
those that speak it themselves. EDGE is the AmbientEdge that the gateway has, if
any. WHAT names the steps that would be taken, or the findings that stand in the
way.`

const observeExample = `  # All gateways of the cluster
  isthmus observe

  # One, with its plan; the AmbientEdge for it stands at the end
  isthmus observe edge/http

  # Apply that
  isthmus observe edge/http -o yaml | kubectl apply -f -

  # Which gateways are outside the mesh?
  isthmus observe -o json | jq -r '.gateways[] | select(.captured < .pods).name'

  # Whenever something changes
  isthmus observe --watch`

// observeFlags are the flags of isthmus observe.
type observeFlags struct {
	kube     kubeFlags
	config   configFlags
	mesh     ctl.Mesh // as it was read
	notes    []string
	watch    bool
	only     string // NAMESPACE/NAME; empty: all
	lookedIn string // the namespace of a name alone
	observer ctl.Observer
}

func newObserve(a *app) *cobra.Command {
	f := &observeFlags{}
	cmd := &cobra.Command{
		Use:     "observe [[NAMESPACE/]NAME]",
		Short:   "Show what could be done for every gateway of a cluster",
		Long:    observeLong,
		Example: observeExample,
		Args:    cobra.MaximumNArgs(1),

		Annotations: map[string]string{moreOutputs: outputYAML},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 && a.output == outputYAML {
				return usagef(cmd.CommandPath(), "-o yaml is the AmbientEdge for one gateway: name it")
			}
			if len(args) > 0 {
				if f.watch {
					return usagef(cmd.CommandPath(), "--watch is for all gateways: leave the name out")
				}
				if err := f.kube.checkName(cmd.CommandPath(), args[0], "a gateway"); err != nil {
					return err
				}
				f.only = args[0]
			}
			if err := f.config.check(cmd); err != nil {
				return err
			}
			if f.watch {
				return a.observeWatch(cmd.Context(), f)
			}
			return a.observe(cmd.Context(), f)
		},
	}
	fs := cmd.Flags()
	fs.BoolVarP(&f.watch, "watch", "w", false, "go on, and show it again whenever it changes; with -o json, one document a line")
	f.config.register(cmd)
	f.kube.register(cmd)
	f.kube.registerNamespace(cmd)
	cmd.Flags().Lookup("namespace").Usage = "`NAMESPACE` of the gateways to show (default: all; for a name, that of the context)"
	cmd.ValidArgsFunction = f.kube.completeGateways
	return cmd
}

func (a *app) observe(ctx context.Context, f *observeFlags) error {
	done := a.progress("reading the cluster")
	doc, err := f.read(ctx)
	done()
	if err != nil {
		return err
	}
	a.notes(f.notes)
	if f.only != "" {
		return a.observeOne(doc, f)
	}
	if a.output == outputJSON {
		return a.writeJSON(doc)
	}
	if len(doc.Gateways) == 0 {
		fmt.Fprintf(a.stderr, "%s\n  next:  %s\n", doc.nothing(f.kube.namespace), nextOther)
		return nil
	}
	return doc.print(a.page(a.stdout))
}

// nextOther is for gateways that nothing here knows.
const nextOther = "any other workload can be named in an AmbientEdge: isthmus plan -f FILE, and samples are in manifests/samples"

// observeOne shows the one gateway of doc.
func (a *app) observeOne(doc *observeDocument, f *observeFlags) error {
	if len(doc.Gateways) == 0 {
		fail := &failure{what: "there is no gateway " + f.only, next: "isthmus observe shows those that there are; " + nextOther}
		if !strings.Contains(f.only, "/") {
			fail.where = "namespace " + f.lookedIn
			fail.next = "name its namespace, with -n or as NAMESPACE/" + f.only + "; " + fail.next
		}
		return fail
	}
	if a.output == outputJSON {
		return a.writeJSON(doc)
	}
	for i := range doc.Gateways {
		if g := &doc.Gateways[i]; a.output == outputYAML {
			text, err := g.edgeYAML()
			if err == nil && i > 0 {
				text = append([]byte("---\n"), text...)
			}
			if err == nil {
				_, err = cleaner{w: a.stdout}.Write(text)
			}
			if err != nil {
				return err
			}
			continue
		}
		if err := doc.Gateways[i].printAll(a.page(a.stdout)); err != nil {
			return err
		}
	}
	return nil
}

// read reads the cluster once.
func (f *observeFlags) read(ctx context.Context) (*observeDocument, error) {
	ctx, cancel := context.WithTimeout(ctx, f.kube.timeout)
	defer cancel()
	scheme, err := ctl.Scheme()
	if err != nil {
		return nil, err
	}
	c, ns, err := f.kube.client(scheme)
	if err != nil {
		return nil, err
	}
	m, notes, err := f.config.read(ctx, c)
	if err != nil {
		return nil, err
	}
	f.mesh, f.notes, f.lookedIn = *m, notes, ns
	return f.from(ctx, c, ns)
}

// from makes the document from what r reads.
func (f *observeFlags) from(ctx context.Context, r client.Reader, namespace string) (*observeDocument, error) {
	rights := &missingRights{Reader: r}
	s, err := f.observer.Observe(ctx, rights, &v1alpha1.AmbientEdge{})
	if err == nil {
		err = rights.err()
	}
	if err != nil {
		return nil, explainKube("cannot read the cluster", "", err)
	}
	s.TrustDomain, s.TrustDomainAliases, s.RootNamespace, s.Hearsay = f.mesh.TrustDomain, f.mesh.TrustDomainAliases, f.mesh.RootNamespace, true
	doc := newObserveDocument(s, func(c *plan.Candidate) bool {
		if f.only != "" {
			return edgeKey(f.only, namespace) == c.Key
		}
		return f.kube.namespace == "" || f.kube.namespace == c.Key.Namespace
	})
	doc.Notes = f.notes
	if len(doc.Gateways) == 0 && f.kube.namespace != "" {
		if err := missingNamespace(ctx, r, f.kube.namespace); err != nil {
			return nil, err
		}
	}
	return doc, nil
}

// missingRights reads on where a right is missing, to tell all that are, and where a kind is not known: there are no objects of it.
type missingRights struct {
	client.Reader

	mu    sync.Mutex // guards the fields below
	kinds []string
	first error
}

// List is the reader's, but for what is forbidden: that counts as nothing.
func (m *missingRights) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	err := m.Reader.List(ctx, list, opts...)
	if meta.IsNoMatchError(err) {
		return nil
	}
	if !apierrors.IsForbidden(err) {
		return err
	}
	kind := kindOf(err)
	if s, ok := errors.AsType[*apierrors.StatusError](err); ok && s.ErrStatus.Details != nil && s.ErrStatus.Details.Group != "" {
		kind += "." + s.ErrStatus.Details.Group
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kinds, m.first = append(m.kinds, kind), cmp.Or(m.first, err)
	return nil
}

// err names what was forbidden, or is nil.
func (m *missingRights) err() error {
	if m.first == nil {
		return nil
	}
	slices.Sort(m.kinds)
	return fmt.Errorf("the rights to list %s are missing: %w", strings.Join(slices.Compact(m.kinds), ", "), m.first)
}

var _ client.Reader = (*missingRights)(nil)

// completeGateways gives Gateways: names in the namespace of -n, else namespace/name of all.
func (k *kubeFlags) completeGateways(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(schema.GroupVersionKind{Group: "gateway.networking.k8s.io", Version: "v1", Kind: "GatewayList"})
	return names(cmd, k, typed, list, func() (all []string) {
		for i := range list.Items {
			name := list.Items[i].Name
			if k.namespace == "" {
				name = list.Items[i].Namespace + "/" + name
			}
			all = append(all, name)
		}
		return all
	}, client.InNamespace(k.namespace))
}

// observeWatchPause is how often a watch looks whether what it shows has changed. It asks nobody: it has a cache.
const observeWatchPause = time.Second
