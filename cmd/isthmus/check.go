package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/check"
)

const checkLong = `Find what is wrong between edge gateways and the ambient mesh, before it hurts:
policies that deny everybody or nobody, gateways that walk past waypoints,
waypoints that serve nobody, identities that do not exist. Isthmus need not be
installed in the cluster, and rights to read are enough: those of the
ClusterRole isthmus-view. Kinds that the cluster does not know are done without.

With -f no cluster is asked: what is in the files is all that there is, and what
they leave to a cluster is assumed. With --against-cluster besides, the files
are laid over the cluster as kubectl apply would, and only findings that are new
are shown; a note tells those that go away.

A finding names the object and field, what happens to whom, and the fix. Error:
something is broken, or open, for sure. Warning: it is very likely, or degrades.
Info: worth knowing. --explain tells more about a code, and docs/checks.md has
all of them. An object's annotation
  isthmus.dev/ignore: "ISM204: reason"
has findings of that code ignored for this object; they are listed at the end,
and do not count.

The exit code is 0 when there is nothing at or above --fail-on, 1 when there is,
2 for a wrong command line, and 3 when it could not be looked, as the cluster or
a file cannot be read, or has no objects, or when what was found cannot be
written. An object that is not as its kind should be is a finding too (ISM130):
the others are looked at, and the exit code is 3 whatever --fail-on says.

With -o sarif a finding in a file has its place there. One in a cluster or
standard input has only the object's name, and code hosts show it beside no
line.`

const checkExample = `  # A cluster
  isthmus check

  # A repository, as in CI, where code hosts show findings beside the lines
  isthmus check -f deploy/ --fail-on warning -o sarif > isthmus.sarif

  # What would change for the worse if this were applied?
  isthmus check --against-cluster -f new.yaml

  # From a pipe
  kustomize build deploy | isthmus check -f -

  # What is behind a code?
  isthmus check --explain ISM201`

// never is the value of --fail-on with which findings fail nothing.
const never = "never"

// checkFlags are the flags of isthmus check.
type checkFlags struct {
	world   worldFlags
	against bool
	failOn  string
	explain string
	list    bool
	checks  []check.Check // all
}

func newCheck(a *app) *cobra.Command {
	f := &checkFlags{checks: check.All(), world: worldFlags{assumeClasses: true}}
	cmd := &cobra.Command{
		Use:     "check [-f FILE]...",
		Short:   "Find what is wrong between edges and the mesh",
		Long:    checkLong,
		Example: checkExample,
		Args:    noArgs,

		Annotations: map[string]string{moreOutputs: outputYAML + "," + outputSARIF},
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case f.list && f.explain != "":
				return usagef(cmd.CommandPath(), "--list and --explain do not go together")
			case (f.list || f.explain != "") && (a.output == outputSARIF || a.output == outputYAML):
				return usagef(cmd.CommandPath(), "--list and --explain take -o text or -o json")
			case f.list:
				return a.listChecks(f.checks)
			case f.explain != "":
				return a.explainCheck(cmd.CommandPath(), f)
			case f.against && len(f.world.files) == 0:
				return usagef(cmd.CommandPath(), "--against-cluster lays files over a cluster: name them with -f")
			case !slices.Contains(failOns(), f.failOn):
				return usagef(cmd.CommandPath(), "--fail-on takes %s, not %q", strings.Join(failOns(), ", "), f.failOn)
			}
			if err := f.world.config.check(cmd); err != nil {
				return err
			}
			return a.check(cmd.Context(), f)
		},
	}
	fs := cmd.Flags()
	f.world.register(cmd)
	fs.Lookup("namespace").Usage = "`NAMESPACE` whose findings are shown (default: all); with -f, that of objects without one"
	fs.BoolVar(&f.against, "against-cluster", false, "lay the files over the cluster, and show what findings would be new")
	fs.StringVar(&f.failOn, "fail-on", "error", "`SEVERITY` from which on findings make the exit code 1: error, warning, info or never")
	fs.StringVar(&f.explain, "explain", "", "tell what is behind a `CODE`, and look at nothing")
	fs.BoolVar(&f.list, "list", false, "list all checks, and look at nothing")
	_ = cmd.RegisterFlagCompletionFunc("fail-on", cobra.FixedCompletions(failOns(), cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("explain", func(*cobra.Command, []string, string) (codes []cobra.Completion, _ cobra.ShellCompDirective) {
		for i := range f.checks {
			codes = append(codes, cobra.CompletionWithDesc(f.checks[i].Code, f.checks[i].Title))
		}
		return codes, cobra.ShellCompDirectiveNoFileComp
	})
	return cmd
}

func failOns() []string { return []string{"error", "warning", "info", never} }

// severities are the worst first.
func severities() []v1alpha1.Severity {
	return []v1alpha1.Severity{v1alpha1.SeverityError, v1alpha1.SeverityWarning, v1alpha1.SeverityInfo}
}

// check looks, and shows what it finds.
func (a *app) check(ctx context.Context, f *checkFlags) error {
	begin := time.Now()
	doc, err := a.checked(ctx, f)
	if err != nil {
		return unseen(err)
	}
	doc.took = time.Since(begin)
	a.notes(doc.Notes)
	out := &firstError{w: a.stdout}
	page := a.page(a.stdout)
	page.w = cleaner{out, page.colours}
	to := &app{stdout: out}
	switch a.output {
	case outputJSON:
		err = to.writeJSON(doc)
	case outputYAML:
		err = to.writeYAML(doc)
	case outputSARIF:
		err = to.writeJSON(newSARIF(doc, f.checks))
	default:
		err = doc.print(page)
	}
	if err = cmp.Or(out.err, err); err != nil {
		return unseen(fmt.Errorf("write what was found: %w", err))
	}
	return doc.failed(f.failOn)
}

// firstError remembers the first error of writing, and writes nothing after it.
type firstError struct {
	w   io.Writer
	err error
}

func (f *firstError) Write(p []byte) (n int, err error) {
	if f.err == nil {
		n, f.err = f.w.Write(p)
	}
	return n, f.err
}

// checked is what was found.
func (a *app) checked(ctx context.Context, f *checkFlags) (*checkDocument, error) {
	if f.against {
		return a.checkedOver(ctx, f)
	}
	w, err := a.readWorld(ctx, &f.world)
	if err != nil {
		return nil, err
	}
	ns := f.world.kube.namespace
	if len(f.world.files) > 0 {
		ns = ""
	} else if ns != "" && w.Namespace(ns) == nil {
		return nil, &failure{what: "there is no namespace " + ns, next: nextNamespace}
	}
	done := a.progress("looking")
	defer done()
	found := slices.DeleteFunc(check.Run(w.World, f.checks), func(f check.Finding) bool { return ns != "" && !of(&f, ns) })
	return newCheckDocument(w, f.checks, found), nil
}

// of says whether a finding is about a namespace: it, or an object in it.
func of(f *check.Finding, namespace string) bool {
	return cmp.Or(f.Object.Namespace, f.Object.Name) == namespace && (f.Object.Namespace != "" || f.Object.Kind == "Namespace")
}

const nextFix = "do what the fixes say, or see isthmus check --explain CODE"

// failed is an error when there are findings at or above a severity. They are in the output, and not told again.
func (d *checkDocument) failed(on string) error {
	if d.unread != nil {
		return unseen(d.unread)
	}
	n := 0
	for i := range d.Findings {
		if at := slices.Index(severities(), d.Findings[i].Severity); on != never && at <= slices.Index(failOns(), on) {
			n++
		}
	}
	switch {
	case n == 0:
		return nil
	case on == "error":
		return &failure{what: count(n, "finding") + " of severity Error", next: nextFix}
	}
	return &failure{what: fmt.Sprintf("%s of severity %s or worse", count(n, "finding"), strings.ToUpper(on[:1])+on[1:]), next: nextFix}
}
