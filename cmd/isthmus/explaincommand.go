package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/isthmus-mesh/isthmus/controller/explain"
)

const explainLong = `Say who may call what, hop by hop, and why: what carries each hop, who is seen
at its end and who is expected there, who enforces policies, what is decided, by
which rule of which policy, and on what it depends. Way and verdict are told of
the objects of a cluster, or of files with -f; nobody is asked, and nothing is
sent, but with --live.

--from is a gateway (NAMESPACE/NAME), a service account (sa/NAMESPACE/NAME or a
SPIFFE id) or a workload (deployment/NAMESPACE/NAME, and so for daemonset and
pod). --to is a Service (NAMESPACE/NAME:PORT) or a pod
(pod/NAMESPACE/NAME:PORT). What is not said of the request is unknown: allow and
deny hold for every request that is left, and all else is depends, with what it
depends on. Where some pods of a gateway are in the mesh and some are not, or
nobody can see which way it sends, every way is shown.

--why-not names the smallest change that would allow what is denied, and the
patch of the policy. --matrix shows every gateway and each Service that its
routes lead to: with --from only that source, with --accounts the service
accounts of all pods too, with --all-services every Service. -o html is one file
that needs no other.

--live tries it too: through HBONE, as whom --service-account and its like say,
by the way that istiod tells, or that --via names; and says where that is not
what was told. If it is not --from whose identity we hold, the answer is told
for ours. A request is sent, GET / if nothing else is asked for.

Exit codes: 0 there is an answer, be it deny; with --live, 1 if probe and answer
differ.`

const explainExample = `  # May this gateway call that Service, and by which way?
  isthmus explain --from gateways/http --to shop/orders:80

  # One request, and what would have to change for it
  isthmus explain --from gateways/http --to shop/orders:80 \
    --method POST --path /x --why-not

  # With a token that the gateway forwards
  isthmus explain --from gateways/http --to shop/orders:80 \
    --jwt iss=https://id.example,sub=ann

  # What would manifests do, before they are applied?
  isthmus explain -f manifests/ --from deployment/web/front \
    --to shop/orders:80

  # Everybody's access, as a page to send around
  isthmus explain --matrix --accounts -o html > access.html

  # Does it do so? Probed from a pod of the gateway's service account
  isthmus explain --from gateways/http --to shop/orders:80 \
    --path /orders --live`

// outputHTML is a page for a browser.
const outputHTML = "html"

// explainFlags are the flags of isthmus explain.
type explainFlags struct {
	world   worldFlags
	request requestFlags
	mesh    meshFlags
	via     string
	peers   []string

	from, to              string
	whyNot, matrix, live  bool
	accounts, allServices bool
	question              explain.Question
	scope                 explain.Scope
	liveFlags             []string // that mean something with --live alone
}

func newExplain(a *app) *cobra.Command {
	f := &explainFlags{mesh: meshFlags{getenv: a.getenv}}
	cmd := &cobra.Command{
		Use:     "explain --from SOURCE --to TARGET",
		Short:   "Say who may call what, hop by hop, and why",
		Long:    explainLong,
		Example: explainExample,
		Args:    noArgs,

		Annotations: map[string]string{moreOutputs: outputHTML},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.check(cmd); err != nil {
				return err
			}
			return a.explain(cmd.Context(), f)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&f.from, "from", "", "`SOURCE`: a gateway or service account NAMESPACE/NAME, KIND/NAMESPACE/NAME of gateway, sa, deployment, "+
		"daemonset or pod, or a SPIFFE id")
	fs.StringVar(&f.to, "to", "", "`TARGET`: a Service NAMESPACE/NAME[:PORT], or pod/NAMESPACE/NAME[:PORT]")
	fs.BoolVar(&f.whyNot, "why-not", false, "name the smallest change that would allow what is denied")
	fs.BoolVar(&f.matrix, "matrix", false, "show all gateways and each Service that their routes lead to")
	fs.BoolVar(&f.accounts, "accounts", false, "with --matrix: the service accounts of all pods too")
	fs.BoolVar(&f.allServices, "all-services", false, "with --matrix: every Service, whether a route leads there or not")
	fs.BoolVar(&f.live, "live", false, "try it through HBONE too, with an identity that we hold, and say where that differs")
	f.request.register(cmd)
	f.world.register(cmd)
	f.registerLive(cmd)
	_ = cmd.RegisterFlagCompletionFunc("from", f.world.kube.completeSources)
	_ = cmd.RegisterFlagCompletionFunc("to", f.world.kube.completeServices)
	return cmd
}

// registerLive adds the flags of isthmus dial that --live needs, but those that reading the world has already.
func (f *explainFlags) registerLive(cmd *cobra.Command) {
	dial := &cobra.Command{}
	dial.Flags().StringVar(&f.via, "via", "", "`IP:PORT` of the HBONE listener to go through, instead of asking istiod; needs --peer")
	dial.Flags().StringArrayVar(&f.peers, "peer", nil, "SPIFFE `ID` that --via may show; may be repeated")
	f.mesh.register(dial)
	dial.Flags().VisitAll(func(flag *pflag.Flag) {
		if cmd.Flags().Lookup(flag.Name) == nil {
			flag.Usage = "with --live: " + flag.Usage
			f.liveFlags = append(f.liveFlags, flag.Name)
			cmd.Flags().AddFlag(flag)
		}
	})
}

// qualified is a name with the namespace of -n where it has none.
func (f *explainFlags) qualified(name string) string {
	if f.world.kube.namespace != "" && !strings.Contains(name, "/") {
		return f.world.kube.namespace + "/" + name
	}
	return name
}

func (f *explainFlags) check(cmd *cobra.Command) (err error) {
	name := cmd.CommandPath()
	switch {
	case f.matrix && (f.whyNot || f.live):
		return usagef(name, "--matrix asks many questions, --why-not and --live go with one")
	case !f.matrix && (f.accounts || f.allServices):
		return usagef(name, "--accounts and --all-services go with --matrix")
	case f.matrix && f.to != "":
		return usagef(name, "--matrix takes all Services: leave --to out, or --matrix")
	case !f.matrix && (f.from == "" || f.to == ""):
		return usagef(name, "--from and --to say who calls what; --matrix shows all")
	}
	if f.from != "" {
		if f.question.From, err = explain.ParseSource(f.qualified(f.from)); err != nil {
			return usagef(name, "--from: %v", err)
		}
	}
	if f.to != "" {
		if f.question.To, err = explain.ParseTarget(f.qualified(f.to)); err != nil {
			return usagef(name, "--to: %v", err)
		}
	}
	if f.question.Request, err = f.request.read(name); err != nil {
		return err
	}
	f.scope = explain.Scope{Accounts: f.accounts, AllServices: f.allServices, Request: f.question.Request}
	if f.from != "" {
		f.scope.From = []explain.Source{f.question.From}
	}
	if err := f.world.config.check(cmd); err != nil {
		return err
	}
	return f.checkLive(cmd)
}

// explain answers.
func (a *app) explain(ctx context.Context, f *explainFlags) error {
	f.world.assumeClasses = true
	w, err := a.readWorld(ctx, &f.world)
	if err != nil {
		return err
	}
	if err := w.unreadError(); err != nil {
		return err // an answer without it may be a wrong one
	}
	w.noteFaults()
	a.notes(w.notes)
	x := explain.New(w.World)
	if f.matrix {
		m, err := x.Matrix(f.scope)
		if err != nil {
			return f.missing(err)
		}
		return a.showMatrix(f, &m, w.notes)
	}
	if f.live {
		return a.explainLive(ctx, f, w, x)
	}
	answer, err := x.Answer(f.question)
	if err != nil {
		return f.missing(err)
	}
	return a.showAnswer(f, x, &answer, nil, w.notes)
}

// narrower says how to ask a matrix for less.
func (f *explainFlags) narrower() string {
	var ways []string
	if f.from == "" {
		ways = append(ways, "name one source with --from")
	}
	if f.from == "" && f.accounts {
		ways = append(ways, "leave --accounts out")
	}
	if f.allServices {
		ways = append(ways, "leave --all-services out")
	}
	return strings.Join(append(ways, "look at fewer manifests with -f"), ", or ")
}

// missing says what is there instead of what a question names.
func (f *explainFlags) missing(err error) error {
	if large, ok := errors.AsType[*explain.TooLargeError](err); ok {
		return &failure{what: large.Error(), next: f.narrower()}
	}
	no, ok := errors.AsType[*explain.NotFoundError](err)
	if !ok {
		return err
	}
	fail := &failure{what: no.Error(), where: strings.Join(f.world.files, ", "), next: "check namespace and name"}
	if len(no.Known) > 0 {
		fail.next = "name one that is there: " + strings.Join(no.Known, ", ")
		if no.More > 0 {
			fail.next += fmt.Sprintf(" and %d more", no.More)
		}
	}
	fail.where = cmp.Or(fail.where, "the cluster")
	return fail
}
