package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

const completionLong = `Write a script for a shell that completes commands, flags, and names of the
cluster: AmbientEdges, namespaces, contexts and the Services that can be
dialled. For names the cluster is asked for two seconds at most.`

const completionExample = `  # For this bash, and for every one
  source <(isthmus completion bash)
  dir=~/.local/share/bash-completion/completions
  mkdir -p "$dir" && isthmus completion bash > "$dir/isthmus"

  # For this zsh; for every one, write it to a folder of $fpath, as _isthmus
  source <(isthmus completion zsh)

  # For every fish
  isthmus completion fish > ~/.config/fish/completions/isthmus.fish`

// shells are those that there are scripts for.
func shells() []string { return []string{"bash", "fish", "powershell", "zsh"} }

func newCompletion(a *app) *cobra.Command {
	return &cobra.Command{
		Use:       "completion (" + strings.Join(shells(), "|") + ")",
		Short:     "Write a completion script for a shell",
		Long:      completionLong,
		Example:   completionExample,
		ValidArgs: shells(),
		Args: func(cmd *cobra.Command, args []string) error {
			if err := oneArg("the shell's name")(cmd, args); err != nil {
				return err
			}
			if !slices.Contains(shells(), args[0]) {
				return fmt.Errorf("there is no completion for %q; there is for %s", args[0], strings.Join(shells(), ", "))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			write := map[string]func(io.Writer) error{
				"bash":       func(w io.Writer) error { return root.GenBashCompletionV2(w, true) },
				"fish":       func(w io.Writer) error { return root.GenFishCompletion(w, true) },
				"powershell": root.GenPowerShellCompletionWithDesc,
				"zsh":        root.GenZshCompletion,
			}
			return write[args[0]](a.stdout)
		},
	}
}
