package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestNeedOfGo runs the check that stands before every build, with other versions of Go in PATH.
func TestNeedOfGo(t *testing.T) {
	bin := t.TempDir()
	for _, tool := range []string{"sh", "sed", "awk", "df", "dirname", "ls", "mktemp", "rmdir"} {
		path, err := exec.LookPath(tool)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(bin, tool)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		version string // "": there is no Go
		want    string // "": it will do
	}{
		{"", "there is no go command in PATH"},
		{"go1.9", "this is go1.9;"},
		{"go1.21.13", "this is go1.21.13;"},
		{"go1.25.9", "Go 1.26 or newer is needed"},
		{"weird", "this is weird;"},
		{"go1.26rc1", ""},
		{"go1.26.0", ""},
		{"go1.26.8 X:nodwarf5", ""},
		{"go1.30", ""},
		{"devel go1.27-b2c4d1e Thu Mar 5 10:00:00 2026 +0000", ""},
		{"devel go1.25-b2c4d1e Thu Mar 5 10:00:00 2025 +0000", "this is devel go1.25-"},
	} {
		t.Run(c.version, func(t *testing.T) {
			path := bin
			if c.version != "" {
				dir := t.TempDir()
				script := "#!/bin/sh\ncase \"$GOTOOLCHAIN $*\" in 'local env GOVERSION') echo '" + c.version + "' ;; ' env GO'*) ;; *) exit 1 ;; esac\n"
				if err := os.WriteFile(filepath.Join(dir, "go"), []byte(script), 0o700); err != nil {
					t.Fatal(err)
				}
				path += ":" + dir
			}
			cmd := exec.CommandContext(t.Context(), "sh", filepath.Join(repoRoot, ".ci", "need"), "go")
			cmd.Env = []string{"PATH=" + path, "HOME=" + bin}
			out, err := cmd.CombinedOutput()
			if c.want == "" {
				if err != nil || len(out) > 0 {
					t.Errorf("%v: %s", err, out)
				}
				return
			}
			exit, ok := errors.AsType[*exec.ExitError](err)
			if !ok || exit.ExitCode() != 1 || strings.Count(string(out), "\n") != 1 {
				t.Errorf("%v, and it says %q; want one line and exit code 1", err, out)
			}
			for _, want := range []string{"isthmus: ", c.want, "https://go.dev/doc/install"} {
				if !strings.Contains(string(out), want) {
					t.Errorf("it does not say %q: %s", want, out)
				}
			}
		})
	}
}

// TestNeedOfAHome runs the same check for somebody without a home.
func TestNeedOfAHome(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	for _, c := range []struct {
		name string
		env  []string
		ok   bool
	}{
		{"none", nil, false},
		{"one cache alone", []string{"GOCACHE=" + a}, false},
		{"both caches", []string{"GOCACHE=" + a, "GOMODCACHE=" + b}, true},
		{"a folder for caches and one for modules", []string{"XDG_CACHE_HOME=" + a, "GOPATH=" + b}, true},
		{"a home", []string{"HOME=" + a}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), "sh", filepath.Join(repoRoot, ".ci", "need"), "go")
			cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, c.env...)
			out, err := cmd.CombinedOutput()
			if c.ok && (err != nil || len(out) > 0) {
				t.Errorf("%v: %s", err, out)
			}
			if !c.ok && (err == nil || strings.Count(string(out), "\n") != 1 || !strings.Contains(string(out), "isthmus: HOME is not set")) {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// TestFlagsOfTheUserStay asks for flags that scripts set, with those that GOFLAGS has.
func TestFlagsOfTheUserStay(t *testing.T) {
	for goflags, want := range map[string]string{
		"":                          "-p=2\n",
		"-p=1":                      "",
		"-mod=mod --p=1 -trimpath":  "",
		"-parallel=7 -pgo=off":      "-p=2\n",
		"-trimpath -ldflags=-w -p=": "",
	} {
		cmd := exec.CommandContext(t.Context(), "sh", filepath.Join(repoRoot, ".ci", "unless"), "p", "2")
		cmd.Env = append(os.Environ(), "GOFLAGS="+goflags)
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != want {
			t.Errorf("with GOFLAGS=%s: %q, %v; want %q", goflags, out, err, want)
		}
	}
}
