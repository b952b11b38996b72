package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

const statusLong = `Show how AmbientEdges are: a line each, or everything about one: its conditions,
the gateway, the backends and the way to them, findings with what to do about
them, and the steps of its plan.

What is shown is what the controller saw and wrote last; a note on standard
error tells when none seems to be at work, or how to find out whether one is
there that has not looked yet. Nothing is written. The exit code says whether
the cluster could be read; with --require-ready it also is 1 when an AmbientEdge
is not ready. With --watch it goes on until it is interrupted, or until the
AmbientEdge that was named is gone; when the cluster cannot be read a note says
so, and when it can again.

` + planWords

const statusExample = `  # All edges
  isthmus status -A

  # One, with findings and plan
  isthmus status edge/public

  # While steps are taken
  isthmus status edge/public --watch

  # In a script
  isthmus status edge/public --require-ready -o json`

// statusFlags are the flags of isthmus status.
type statusFlags struct {
	kube  kubeFlags
	all   bool
	ready bool
	watch bool
}

// statusDocument is the output of isthmus status.
type statusDocument struct {
	header
	Edges []edgeStatus `json:"edges"`
	Notes []string     `json:"notes,omitempty"` // why this may be out of date, or is not there yet
}

// edgeStatus is one AmbientEdge.
type edgeStatus struct {
	Namespace  string                     `json:"namespace"`
	Name       string                     `json:"name"`
	Mode       v1alpha1.Mode              `json:"mode"`
	Ready      bool                       `json:"ready"`
	Current    bool                       `json:"current"`            // the status is about the newest spec
	Deleting   bool                       `json:"deleting,omitempty"` // it is being undone
	Generation int64                      `json:"generation"`
	Created    metav1.Time                `json:"created"`
	Status     v1alpha1.AmbientEdgeStatus `json:"status"`
}

func newStatus(a *app) *cobra.Command {
	f := &statusFlags{}
	cmd := &cobra.Command{
		Use:     "status [[NAMESPACE/]NAME]",
		Short:   "Show how the edges are",
		Long:    statusLong,
		Example: statusExample,
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 && f.all {
				return usagef(cmd.CommandPath(), "-A and a name exclude each other")
			}
			if f.kube.namespace != "" && f.all {
				return usagef(cmd.CommandPath(), "-A and -n exclude each other")
			}
			if len(args) > 0 {
				if err := f.kube.checkEdge(cmd.CommandPath(), args[0]); err != nil {
					return err
				}
			}
			if f.watch && f.ready {
				return usagef(cmd.CommandPath(), "--watch and --require-ready exclude each other")
			}
			if f.watch {
				return a.statusWatch(cmd.Context(), len(args) == 1, f.reader(args))
			}
			return a.status(cmd.Context(), f, args)
		},
	}
	f.kube.register(cmd)
	f.kube.registerNamespace(cmd)
	cmd.ValidArgsFunction = f.kube.completeEdge
	cmd.Flags().BoolVarP(&f.all, "all-namespaces", "A", false, "look in all namespaces")
	cmd.Flags().BoolVarP(&f.watch, "watch", "w", false, "go on, and show it again whenever it changes; with -o json, one document a line")
	cmd.Flags().BoolVar(&f.ready, "require-ready", false, "fail when an AmbientEdge is not ready")
	return cmd
}

func (a *app) status(ctx context.Context, f *statusFlags, args []string) error {
	done := a.progress("reading the cluster")
	doc, where, err := f.reader(args)(ctx)
	done()
	if err != nil {
		return err
	}
	if a.output != outputJSON {
		for _, n := range doc.Notes {
			fmt.Fprintln(a.stderr, "note:", oneLine(n))
		}
	}
	switch {
	case a.output == outputJSON:
		err = a.writeJSON(doc)
	case len(doc.Edges) == 0:
		fmt.Fprintf(a.stderr, "There is no AmbientEdge in %s.\n", where)
	default:
		err = doc.show(a.page(a.stdout), len(args) == 1)
	}
	if err != nil || !f.ready {
		return err
	}
	return doc.allReady()
}

// show is everything about the one that was named, or a line for each.
func (d *statusDocument) show(p *page, one bool) error {
	if one {
		return d.Edges[0].print(p)
	}
	return d.print(p, time.Now())
}

// reader gives what gets the AmbientEdges that are meant, and says where it looked. It makes a client when it is called first, and keeps it.
func (f *statusFlags) reader(args []string) func(context.Context) (*statusDocument, string, error) {
	var c client.Client
	var ns string
	return func(ctx context.Context) (*statusDocument, string, error) {
		ctx, cancel := context.WithTimeout(ctx, f.kube.timeout)
		defer cancel()
		if c == nil {
			scheme := runtime.NewScheme()
			for _, add := range []func(*runtime.Scheme) error{v1alpha1.AddToScheme, appsv1.AddToScheme, coordinationv1.AddToScheme} {
				if err := add(scheme); err != nil {
					return nil, "", err
				}
			}
			var err error
			if c, ns, err = f.kube.client(scheme); err != nil {
				return nil, "", err
			}
		}
		return f.read(ctx, c, ns, args)
	}
}

// read gets the AmbientEdges that are meant, by a client and in the namespace that is meant where none is said.
func (f *statusFlags) read(ctx context.Context, c client.Reader, ns string, args []string) (*statusDocument, string, error) {
	doc := &statusDocument{header: newHeader("Status"), Edges: []edgeStatus{}}
	if len(args) == 1 {
		key := edgeKey(args[0], ns)
		var e v1alpha1.AmbientEdge
		if err := getEdge(ctx, c, key, &e); err != nil {
			return nil, "", err
		}
		doc.Edges = append(doc.Edges, newEdgeStatus(&e))
		doc.note(ctx, c)
		return doc, key.Namespace, nil
	}
	where := "all namespaces"
	var opts []client.ListOption
	if !f.all {
		opts, where = append(opts, client.InNamespace(ns)), "namespace "+ns
	}
	var list v1alpha1.AmbientEdgeList
	if err := c.List(ctx, &list, opts...); err != nil {
		return nil, "", explainKube("cannot list AmbientEdges", where, err)
	}
	if len(list.Items) == 0 && !f.all {
		if err := missingNamespace(ctx, c, ns); err != nil {
			return nil, "", err
		}
	}
	for i := range list.Items {
		doc.Edges = append(doc.Edges, newEdgeStatus(&list.Items[i]))
	}
	slices.SortFunc(doc.Edges, func(x, y edgeStatus) int {
		return cmp.Or(cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Name, y.Name))
	})
	doc.note(ctx, c)
	return doc, where, nil
}

// note tells why what is shown may be out of date, or is nothing yet. Without AmbientEdges nothing is.
func (d *statusDocument) note(ctx context.Context, c client.Reader) {
	if len(d.Edges) == 0 {
		return
	}
	if why := idleController(ctx, c, time.Now()); why != "" {
		d.Notes = append(d.Notes, "what is shown may be out of date: "+why)
		return
	}
	for i := range d.Edges {
		if note := notSeen(ctx, c, &d.Edges[i]); note != "" {
			d.Notes = append(d.Notes, note)
			return // of the others it is the same
		}
	}
}

func newEdgeStatus(e *v1alpha1.AmbientEdge) edgeStatus {
	s := edgeStatus{
		Namespace: e.Namespace, Name: e.Name, Mode: cmp.Or(e.Spec.Mode, v1alpha1.ModeObserve), Generation: e.Generation,
		Created: e.CreationTimestamp, Status: e.Status, Deleting: e.DeletionTimestamp != nil,
		Current: e.Status.ObservedGeneration == e.Generation,
	}
	s.Ready = s.Current && meta.IsStatusConditionTrue(e.Status.Conditions, v1alpha1.ConditionReady)
	return s
}

// allReady is an error that names the AmbientEdges that are not ready.
func (d *statusDocument) allReady() error {
	if len(d.Edges) == 0 {
		return &failure{what: "there is no AmbientEdge", next: "create one: isthmus plan -f FILE shows what it would do"}
	}
	for _, e := range d.Edges {
		if e.Ready {
			continue
		}
		f := &failure{what: "AmbientEdge " + e.Namespace + "/" + e.Name + " is not ready", next: "isthmus status " + e.Namespace + "/" + e.Name}
		if _, why := e.ready(); why != "" {
			f.where = why
		}
		return f
	}
	return nil
}
