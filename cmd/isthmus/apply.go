package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	ctl "github.com/isthmus-mesh/isthmus/controller/run"
)

const applyLong = `Carry out a plan that was reviewed, and nothing else. The plan is what isthmus
plan -o json (or -o yaml) has written. It is made anew, and compared: where an
object, or a field that is concerned, is not as it was then, nothing is written,
and a table says what differs. A plan that is blocked as a whole is refused.
Where findings hold back some backends only, the others are approved.

Otherwise the AmbientEdge of the plan is applied, with the annotation
isthmus.dev/plan, which binds the controller to what was reviewed. It is the
controller that takes the steps. When its plan has changed meanwhile, or later,
it writes nothing, and finding ISM346 says what is new: until the plan of then
is applied, or the annotation is removed. What was approved and is taken back by
others is mended. Deleting the AmbientEdge needs no approval.

The steps are followed until the AmbientEdge is ready. This needs the rights to
create and patch AmbientEdges, and those to read what a plan depends on.`

const applyExample = `  isthmus plan -f edge.yaml -o json > plan.json
  isthmus apply --plan plan.json

  # Is it still as it was reviewed?
  isthmus apply --plan plan.json --dry-run

  # Go on when it is applied, and look later
  isthmus apply --plan plan.json --wait=false
  isthmus status edge/public`

// applyFlags are the flags of isthmus apply.
type applyFlags struct {
	kube    kubeFlags
	config  configFlags
	file    string
	dryRun  bool
	wait    bool
	force   bool
	timeout time.Duration
}

func newApply(a *app) *cobra.Command {
	f := &applyFlags{}
	cmd := &cobra.Command{
		Use:     "apply --plan FILE",
		Short:   "Carry out a plan that was reviewed",
		Long:    applyLong,
		Example: applyExample,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.file == "" {
				return usagef(cmd.CommandPath(), "--plan is missing: isthmus plan -o json writes one")
			}
			if err := f.config.check(cmd); err != nil {
				return err
			}
			return a.apply(cmd.Context(), f)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&f.file, "plan", "", "`FILE` with the plan, as isthmus plan -o json writes it; - is standard input")
	fs.BoolVar(&f.dryRun, "dry-run", false, "compare, and let the API server check the AmbientEdge, but write nothing")
	fs.BoolVar(&f.wait, "wait", true, "follow the steps until the AmbientEdge is ready")
	fs.BoolVar(&f.force, "force-conflicts", false, "take fields of the AmbientEdge's spec from their field managers")
	fs.DurationVar(&f.timeout, "timeout", 5*time.Minute, "how long it may take to get ready")
	f.kube.registerCluster(cmd)
	f.kube.timeout = 30 * time.Second
	f.config.register(cmd)
	_ = cmd.MarkFlagFilename("plan", "json", "yaml", "yml")
	return cmd
}

// applyDocument is the output of isthmus apply.
type applyDocument struct {
	header
	Namespace   string                      `json:"namespace"`
	Name        string                      `json:"name"`
	Approval    string                      `json:"approval"`
	Differences []difference                `json:"differences"` // nothing is applied where there are any
	Applied     bool                        `json:"applied"`
	DryRun      bool                        `json:"dryRun,omitempty"`
	Ready       bool                        `json:"ready"`
	Status      *v1alpha1.AmbientEdgeStatus `json:"status,omitempty"` // as it was seen last
	Notes       []string                    `json:"notes,omitempty"`
}

// apply carries out a plan.
func (a *app) apply(ctx context.Context, f *applyFlags) error {
	then, err := a.readPlan(f.file)
	if err != nil {
		return err
	}
	doc := &applyDocument{header: newHeader("Apply"), Namespace: then.Namespace, Name: then.Name, Approval: then.Approval, Differences: []difference{}, DryRun: f.dryRun}
	err = a.carryOut(ctx, f, then, doc)
	if a.output == outputJSON && (err == nil || len(doc.Differences) > 0 || doc.Applied) {
		err = errors.Join(a.writeJSON(doc), err)
	}
	return err
}

// carryOut compares, applies and waits, and fills in the document.
func (a *app) carryOut(ctx context.Context, f *applyFlags, then *planDocument, doc *applyDocument) error {
	scheme, err := ctl.Scheme()
	if err != nil {
		return err
	}
	c, _, err := f.kube.client(scheme)
	if err != nil {
		return err
	}
	done := a.progress("reading the cluster")
	there, now, err := f.again(ctx, c, then)
	done()
	if err != nil {
		return err
	}
	doc.Notes = now.Notes
	a.notes(now.Notes)
	if again := there != nil && carries(there, then); !again {
		doc.Differences = differences(then, now)
	} else {
		a.notes([]string{"this plan was applied before, and is under way"})
	}
	if len(doc.Differences) > 0 {
		return a.moved(then, doc)
	}
	if err := now.unapprovable(); err != nil {
		if a.output != outputJSON {
			err = errors.Join(a.page(a.stdout).findings(now.Findings, 0), err)
		}
		return err
	}
	if note := now.heldNote(); note != "" {
		doc.Notes = append(doc.Notes, note)
		a.notes([]string{note})
	}
	applied, err := f.write(ctx, c, there, then)
	if err != nil {
		return err
	}
	doc.Applied = !f.dryRun
	name := then.Namespace + "/" + then.Name
	switch {
	case f.dryRun:
		a.say("The plan for AmbientEdge %s is still what it was: %d objects would be written. Nothing is, as this is a dry run.\n", name, len(now.Changes))
		return nil
	case now.Mode != v1alpha1.ModeManage:
		a.say("AmbientEdge %s is applied, with plan %s. Mode %s carries nothing out.\n", name, then.Approval, now.Mode)
		return nil
	}
	a.say("AmbientEdge %s is applied, with plan %s.\n", name, then.Approval)
	if !f.wait {
		return nil
	}
	return a.follow(ctx, f, c, applied, doc)
}

// say is for people: with -o json the document has it.
func (a *app) say(format string, args ...any) {
	if a.output != outputJSON {
		fmt.Fprintf(a.page(a.stdout).w, format, args...)
	}
}

// again makes the plan anew, of the AmbientEdge that then was made for. there is that of the cluster, or nil.
func (f *applyFlags) again(ctx context.Context, c client.Client, then *planDocument) (there *v1alpha1.AmbientEdge, now *planDocument, err error) {
	ctx, cancel := context.WithTimeout(ctx, f.kube.timeout)
	defer cancel()
	there = &v1alpha1.AmbientEdge{}
	err = c.Get(ctx, types.NamespacedName{Namespace: then.Namespace, Name: then.Name}, there)
	if apierrors.IsNotFound(err) {
		there = nil
	} else if err != nil {
		return nil, nil, explainApply("cannot read AmbientEdge "+then.Namespace+"/"+then.Name, err)
	}
	if there != nil && there.DeletionTimestamp != nil {
		return nil, nil, &failure{what: "AmbientEdge " + then.Namespace + "/" + then.Name + " is being deleted", next: "wait until it is gone, and plan again"}
	}
	e := then.applied().DeepCopy()
	notes, err := checkEdge(ctx, c, e, f.file)
	if err != nil {
		return nil, nil, err
	}
	now, err = (&planFlags{config: f.config}).of(ctx, c, e, notes)
	return there, now, err
}

// carries says whether an AmbientEdge is as the plan has it already, and approved by it.
func carries(there *v1alpha1.AmbientEdge, then *planDocument) bool {
	return there.Annotations[v1alpha1.AnnotationPlan] == then.approval() && sameSpecs(&there.Spec, &then.Edge.Spec)
}

// moved shows what differs, and is the error.
func (a *app) moved(then *planDocument, doc *applyDocument) error {
	err := error(&failure{
		what: fmt.Sprintf("the world has moved since the plan for AmbientEdge %s/%s was made: %d differences; nothing was written", then.Namespace, then.Name, len(doc.Differences)),
		next: "plan again, review what is new, and apply that",
	})
	if a.output == outputJSON {
		return err
	}
	var rows [][]cell
	for _, d := range doc.Differences {
		rows = append(rows, cells(d.Object, d.Field, d.Then, d.Now))
	}
	return errors.Join(a.page(a.stdout).table([]string{"OBJECT", "FIELD", "THEN", "NOW"}, rows), err)
}

// explainApply is explainKube for who writes AmbientEdges.
func explainApply(what string, err error) error {
	f, ok := errors.AsType[*failure](explainKube(what, "", err))
	if !ok {
		return err
	}
	if apierrors.IsForbidden(err) {
		f.next = "this needs the right that is named here: ClusterRole isthmus-author has those that take AmbientEdges, isthmus-view those to read"
	}
	return f
}

// write applies the AmbientEdge. One that has the spec already, from somebody else, gets the approval alone: its spec stays theirs.
func (f *applyFlags) write(ctx context.Context, c client.Client, there *v1alpha1.AmbientEdge, then *planDocument) (*v1alpha1.AmbientEdge, error) {
	ctx, cancel := context.WithTimeout(ctx, f.kube.timeout)
	defer cancel()
	u, err := approvedEdge(there, then)
	if err != nil {
		return nil, err
	}
	opts := []client.ApplyOption{client.FieldOwner(v1alpha1.CommandOwner)}
	if f.force {
		opts = append(opts, client.ForceOwnership)
	}
	if f.dryRun {
		opts = append(opts, client.DryRunAll)
	}
	name := then.Namespace + "/" + then.Name
	if err := c.Apply(ctx, client.ApplyConfigurationFromUnstructured(u), opts...); apierrors.IsConflict(err) {
		return nil, &failure{what: "AmbientEdge " + name + " belongs to somebody else", err: err,
			next: "apply its new spec in the way of whoever manages it, plan isthmus plan " + name + ", and apply that; or take the fields with --force-conflicts"}
	} else if err != nil {
		return nil, explainApply("AmbientEdge "+name+" cannot be applied", err)
	}
	e := &v1alpha1.AmbientEdge{}
	e.Namespace, e.Name, e.Generation = then.Namespace, then.Name, u.GetGeneration()
	return e, nil
}
