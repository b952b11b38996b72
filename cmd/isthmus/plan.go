package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	ctl "github.com/isthmus-mesh/isthmus/controller/run"
)

const planLong = `Show what the controller would do for an AmbientEdge now: its steps, how far
each is, and what stands in the way. The AmbientEdge is one of the cluster, or
one in a file that nobody has applied yet; then the API server checks it in a
dry run, if you may create it.

-o diff shows each object that would be written, with the fields that would,
before and after: what is left to do, in all steps together. -o json and -o yaml
have all of it, and are what isthmus apply carries out. Besides these objects
the controller writes status and finalizer of the AmbientEdge.

With --from no cluster is asked: the objects of files, or of standard input, are
all that there is. What files cannot tell is assumed, or unknown, and notes say
so: pods that are captured, waypoints that answer, routes that are accepted,
policies that the cluster alone has.

Nothing is written. Waypoints are not asked whether they answer: what the
controller has seen, and told in the status of the AmbientEdge, counts. When a
finding of severity Error blocks the plan, or holds some of it back, the exit
code is 1.

` + planWords

// planWords explains the columns of plan and status.
const planWords = `Steps stand in their order. STATE is Done (it was seen to hold), Next (it is its
turn: it is written now, or waited for), Later (steps before it come first),
Held (a finding about its backend says why, and the other backends go on),
Blocked (a finding says why) or Unknown (it takes asking a waypoint, which only
the controller does). VENDOR custom is a gateway that Isthmus has no entry for.
SWITCH is the setting that makes a vendor's gateway send to the waypoint.`

const planExample = `  # Before it is applied
  isthmus plan -f edge.yaml

  # What is left to do for one that is there
  isthmus plan edge/public

  # What would change
  isthmus plan -f edge.yaml -o diff

  # Without a cluster, from what is in a repository
  isthmus plan --from deploy/

  # From what a cluster is said to have
  kinds=namespaces,pods,services,deployments,daemonsets,ambientedges
  kinds=$kinds,ingresses,ingressclasses,gatewayclasses,httproutes
  kinds=$kinds,gateways.gateway.networking.k8s.io,referencegrants
  kinds=$kinds,authorizationpolicies,peerauthentications,requestauthentications
  kubectl get -A -o yaml $kinds | isthmus plan edge/public --from -

  # The objects and fields that would be written now
  isthmus plan -f edge.yaml -o json | jq '.steps[] | select(.write)'`

// planFlags are the flags of isthmus plan.
type planFlags struct {
	kube   kubeFlags
	config configFlags
	file   string
	files  []string
	from   []string
}

func newPlan(a *app) *cobra.Command {
	f := &planFlags{}
	cmd := &cobra.Command{
		Use:     "plan (-f FILE | [NAMESPACE/]NAME | --from FILE)",
		Short:   "Show what the controller would do",
		Long:    planLong,
		Example: planExample,
		Args:    cobra.MaximumNArgs(1),

		Annotations: map[string]string{moreOutputs: outputYAML + "," + outputDiff},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(f.files) > 1 {
				return usagef(cmd.CommandPath(), "-f names one file, not %d: plan them one by one", len(f.files))
			}
			f.file = strings.Join(f.files, "")
			switch {
			case f.file != "" && len(args) > 0, f.file == "" && len(args) == 0 && len(f.from) == 0:
				return usagef(cmd.CommandPath(), "name either an AmbientEdge, or a file with -f")
			case f.file == "-" && slices.Contains(f.from, "-"):
				return usagef(cmd.CommandPath(), "standard input is for -f or for --from, not for both")
			}
			if err := f.config.check(cmd); err != nil {
				return err
			}
			if len(args) > 0 {
				if err := f.kube.checkEdge(cmd.CommandPath(), args[0]); err != nil {
					return err
				}
			}
			return a.plan(cmd.Context(), f, args)
		},
	}
	fs := cmd.Flags()
	fs.StringArrayVarP(&f.files, "filename", "f", nil, "YAML `FILE` with one AmbientEdge; - is standard input")
	fs.StringArrayVar(&f.from, "from", nil, "ask no cluster, but take what is in `FILE`: YAML, a folder of it, or - for standard input; may be repeated")
	f.config.register(cmd)
	f.kube.register(cmd)
	f.kube.registerNamespace(cmd)
	cmd.ValidArgsFunction = f.kube.completeEdge
	_ = cmd.MarkFlagFilename("filename", "yaml", "yml")
	completeFiles(cmd, "from")
	return cmd
}

func (a *app) plan(ctx context.Context, f *planFlags, args []string) error {
	var fromFile *v1alpha1.AmbientEdge
	if f.file != "" {
		e, err := a.readEdge(f.file, len(f.from) > 0)
		if err != nil {
			return err
		}
		if ns := f.kube.namespace; ns != "" && e.Namespace != "" && ns != e.Namespace {
			return usagef("isthmus plan", "AmbientEdge %s of the file is in namespace %s, and -n says %s: leave one of them out", e.Name, e.Namespace, ns)
		}
		fromFile = e
	}
	var doc *planDocument
	var err error
	if len(f.from) > 0 {
		doc, err = a.planFiles(ctx, f, fromFile, args)
	} else {
		done := a.progress("reading the cluster")
		doc, err = f.make(ctx, fromFile, args)
		done()
	}
	if err != nil {
		return err
	}
	a.notes(doc.Notes)
	switch a.output {
	case outputJSON:
		err = a.writeJSON(doc)
	case outputYAML:
		err = a.writeYAML(doc)
	case outputDiff:
		err = doc.printDiff(a.page(a.stdout))
	default:
		err = doc.print(a.page(a.stdout))
	}
	if err != nil {
		return err
	}
	return doc.blocked()
}

// make reads the cluster and plans.
func (f *planFlags) make(ctx context.Context, e *v1alpha1.AmbientEdge, args []string) (*planDocument, error) {
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
	var notes []string
	if e == nil {
		key := edgeKey(args[0], ns)
		e = &v1alpha1.AmbientEdge{}
		if err := getEdge(ctx, c, key, e); err != nil {
			return nil, err
		}
		if s := newEdgeStatus(e); s.unseen() {
			notes = append(notes, notSeen(ctx, c, &s))
		}
	} else {
		if e.Namespace == "" {
			e.Namespace = ns
		}
		if notes, err = checkEdge(ctx, c, e, f.file); err != nil {
			return nil, err
		}
	}
	return f.of(ctx, c, e, notes)
}

// of plans for e, by what r reads.
func (f *planFlags) of(ctx context.Context, r client.Reader, e *v1alpha1.AmbientEdge, notes []string) (*planDocument, error) {
	mesh, more, err := f.config.read(ctx, r)
	if err != nil {
		return nil, err
	}
	s, err := ctl.Observe(ctx, withoutEdges{r}, e)
	if err != nil {
		return nil, explainKube("cannot read the cluster", "", err)
	}
	s.TrustDomain, s.TrustDomainAliases, s.RootNamespace = mesh.TrustDomain, mesh.TrustDomainAliases, mesh.RootNamespace
	return newPlanDocument(e, s, append(notes, more...)), nil
}

// checkEdge lets the API server check an AmbientEdge of a file in a dry run, and makes it look as if it had been applied.
func checkEdge(ctx context.Context, c client.Client, e *v1alpha1.AmbientEdge, file string) (notes []string, err error) {
	var there v1alpha1.AmbientEdge
	key := types.NamespacedName{Namespace: e.Namespace, Name: e.Name}
	err = c.Get(ctx, key, &there)
	switch {
	case err == nil:
		if !equality.Semantic.DeepEqual(there.Spec, e.Spec) {
			there.Generation++ // what the status tells is about another spec
		}
		there.Spec = e.Spec
		there.DeepCopyInto(e)
		err = c.Update(ctx, e.DeepCopy(), client.DryRunAll)
	case apierrors.IsNotFound(err) || apierrors.IsForbidden(err):
		err = c.Create(ctx, e.DeepCopy(), client.DryRunAll)
		e.CreationTimestamp = metav1.NewTime(time.Now())
	}
	switch {
	case err == nil:
	case meta.IsNoMatchError(err):
		notes = append(notes, "the CRD AmbientEdge is not installed in this cluster, so nobody has checked the fields")
		e.CreationTimestamp = metav1.NewTime(time.Now())
	case apierrors.IsForbidden(err) && strings.Contains(err.Error(), "ValidatingAdmissionPolicy"):
		notes = append(notes, "you may not apply this AmbientEdge yourself: "+err.Error())
	case apierrors.IsForbidden(err):
		notes = append(notes, "you may not apply AmbientEdges in namespace "+e.Namespace+", so nobody has checked the fields")
	case apierrors.IsNotFound(err) && kindOf(err) == "namespaces":
		return nil, &failure{
			what: "there is no namespace " + e.Namespace, where: file,
			next: "create it: kubectl create namespace " + e.Namespace + "; or correct metadata.namespace of the AmbientEdge: a gateway's stands in the gateway's namespace",
		}
	default:
		return nil, explainKube("AmbientEdge "+key.String()+" cannot be applied", file, err)
	}
	return notes, nil
}

// withoutEdges reads a cluster that may lack the CRD AmbientEdge.
type withoutEdges struct{ client.Reader }

// List takes AmbientEdges that cannot be for none.
func (r withoutEdges) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	err := r.Reader.List(ctx, list, opts...)
	if _, ok := list.(*v1alpha1.AmbientEdgeList); ok && meta.IsNoMatchError(err) {
		return nil
	}
	return err
}

var _ client.Reader = withoutEdges{}
