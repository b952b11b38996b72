package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// app is what all commands share.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string

	output  string // -o
	started bool   // a command of ours runs: errors are no longer about usage
}

const rootLong = `Isthmus joins an edge gateway to an Istio ambient mesh: its traffic goes over
HBONE with a SPIFFE identity, through waypoints, and under the policies of both
sides.

Exit codes:
  0  it did what was asked
  1  it failed; standard error says what, where, and what to do next
  2  it was asked wrongly: an unknown command or flag, or a senseless value
  3  isthmus check could not look; with it, 1 says that there are findings

Data goes to standard output, everything else to standard error. With -o json
the output of a command is one JSON document with apiVersion and kind, and so is
an error. Colours are used on terminals, unless NO_COLOR is set.`

const rootExample = `  # Which gateways does this cluster have, and what could be done for them?
  isthmus observe

  # What is wrong between its edges and the mesh?
  isthmus check

  # What would the controller do for this edge? Nothing is written.
  isthmus plan -f edge.yaml

  # The same, to be reviewed, and to be carried out as it was reviewed
  isthmus plan -f edge.yaml -o json > plan.json
  isthmus apply --plan plan.json

  # How are the edges of all namespaces?
  isthmus status -A

  # Does the gateway really send to the waypoint, as its proxies have it?
  isthmus inspect edge/http

  # Who may call this Service, by which way, and why?
  isthmus explain --from edge/http --to shop/orders:80

  # Which way does a request take, and does it arrive?
  isthmus dial orders.shop.svc.cluster.local:80 --http /orders`

// helpWidth is how wide the help of a command may be, in columns.
const helpWidth = 80

func newRoot(a *app) *cobra.Command {
	version := false
	root := &cobra.Command{
		Use:                        "isthmus",
		Short:                      "Join edge gateways to an Istio ambient mesh",
		Long:                       rootLong,
		Example:                    rootExample,
		SilenceErrors:              true,
		SilenceUsage:               true,
		SuggestionsMinimumDistance: 2,
		Args:                       knownCommand,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if t := cmd.Flags().Lookup("timeout"); t != nil {
				if d, err := cmd.Flags().GetDuration("timeout"); err == nil && d <= 0 {
					return fmt.Errorf("--timeout takes a time above zero, as 30s, not %s", t.Value)
				}
			}
			if known := outputs(cmd); !slices.Contains(known, a.output) {
				last := len(known) - 1
				return fmt.Errorf("-o takes %s or %s here, not %q", strings.Join(known[:last], ", "), known[last], a.output)
			}
			a.started = true
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if version {
				return a.version()
			}
			return cmd.Help()
		},
	}
	root.Flags().BoolVar(&version, "version", false, "show which build this is, as isthmus version does")
	root.PersistentFlags().StringVarP(&a.output, "output", "o", outputText, "`FORMAT` of the output: text or json; of plan also yaml or diff, of observe yaml, of check yaml or sarif, of explain html")
	_ = root.RegisterFlagCompletionFunc("output", func(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return outputs(cmd), cobra.ShellCompDirectiveNoFileComp
	})
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), ".FlagUsages ", fmt.Sprintf(".FlagUsagesWrapped %d ", helpWidth)))
	root.SetHelpCommand(newHelp(a))
	root.AddCommand(newController(a), newObserve(a), newCheck(a), newPlan(a), newApply(a), newStatus(a), newInspect(a), newExplain(a), newDial(a), newVersion(a), newCompletion(a))
	return root
}

// undecorate takes the marks from the texts of flags that name a value: what completes them shows them as they are.
func undecorate(cmd *cobra.Command) {
	plain := func(f *pflag.Flag) { f.Usage = strings.ReplaceAll(f.Usage, "`", "") }
	cmd.PersistentFlags().VisitAll(plain)
	cmd.Flags().VisitAll(plain)
	for _, c := range cmd.Commands() {
		undecorate(c)
	}
}

// newHelp is cobra's command help, but that it refuses what does not exist.
func newHelp(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND]",
		Short:   "Show the help of a command",
		Long:    "Show the help of a command, as COMMAND --help does.",
		Example: "  isthmus help plan",
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) (names []cobra.Completion, _ cobra.ShellCompDirective) {
			for _, c := range cmd.Root().Commands() {
				if len(args) == 0 && c.IsAvailableCommand() {
					names = append(names, c.Name())
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		Args: func(cmd *cobra.Command, args []string) error {
			_, rest, err := cmd.Root().Find(args)
			if err != nil {
				return err
			}
			return knownCommand(cmd.Root(), rest)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			of, _, err := cmd.Root().Find(args)
			if err != nil {
				return err
			}
			of.InitDefaultHelpFlag()
			of.SetOut(a.stdout)
			return of.Help()
		},
	}
}

// knownCommand refuses the names of commands that do not exist.
func knownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
		return fmt.Errorf("there is no command %q; is %s meant?", args[0], strings.Join(like, " or "))
	}
	return fmt.Errorf("there is no command %q", args[0])
}

// oneArg wants one argument, by that name.
func oneArg(name string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch len(args) {
		case 0:
			return fmt.Errorf("%s is missing", name)
		case 1:
			return nil
		}
		return fmt.Errorf("one %s at a time, not %d", name, len(args))
	}
}

// noArgs wants no argument.
func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("it takes no argument, and got %q", args[0])
	}
	return nil
}
