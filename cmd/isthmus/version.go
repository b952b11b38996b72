package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// versionDocument is the output of isthmus version.
type versionDocument struct {
	header
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Modified bool   `json:"modified,omitempty"` // built from files that were not committed
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func newVersion(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Show which build this is",
		Long:  "Show the version, the commit it was built from, and the Go release that\nbuilt it. isthmus --version is the same.",
		Example: `  isthmus version
  isthmus version -o json`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error { return a.version() },
	}
}

// version shows which build this is.
func (a *app) version() error {
	v := buildVersion()
	if a.output == outputJSON {
		return a.writeJSON(v)
	}
	commit := v.Commit
	if v.Modified {
		commit += " with changes"
	}
	if commit != "" {
		commit = " (" + commit + ")"
	}
	_, err := fmt.Fprintf(a.stdout, "isthmus %s%s, %s, %s\n", v.Version, commit, v.Go, v.Platform)
	return err
}

// buildVersion is what the Go toolchain wrote into the binary.
func buildVersion() versionDocument {
	v := versionDocument{header: newHeader("Version"), Version: "devel", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if m := info.Main.Version; m != "" && m != "(devel)" {
		v.Version = m
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Commit = s.Value[:min(12, len(s.Value))]
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}
