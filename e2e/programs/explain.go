package programs

import (
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// remedy is what to do about a command whose output has one of these words. There is nothing but text to go by: the
// commands are other people's programs.
type remedy struct {
	words []string
	do    string
}

func remedies() []remedy {
	return []remedy{
		{[]string{"no space left on device"},
			"the disk is full: the first build needs about 8 GB in the folders that go env GOCACHE GOMODCACHE GOTMPDIR shows, and 600 MB in the user's cache folder"},
		{[]string{"requires go >=", "requires go 1.", "toolchain not available", "GOTOOLCHAIN=local"},
			"this Go is too old: install the version that e2e/go.mod names, or newer, from https://go.dev/dl, or unset GOTOOLCHAIN"},
		{[]string{"no such host", "connection refused", "i/o timeout", "network is unreachable", "proxyconnect", "TLS handshake timeout",
			"module lookup disabled", "server misbehaving", "Max retries exceeded", "Temporary failure in name resolution", "NewConnectionError"},
			"the network is needed, this once, and cannot be reached: check the connection, HTTPS_PROXY and GOPROXY"},
		{[]string{"signal: killed", "cannot allocate memory", "exit status 137"},
			"the compiler ran out of memory: it needs about 3 GB; close other programs, or set GOFLAGS=-p=1"},
		{[]string{"permission denied"},
			"a folder is not writable: see what go env GOCACHE GOMODCACHE shows, or set HOME"},
		{[]string{"checksum mismatch", "SECURITY ERROR", "DO NOT MATCH THE HASHES"},
			"what was downloaded is not what is pinned: somebody between here and the source changes downloads; do not go on"},
	}
}

// explain adds the tail of a command's output to err, or where there is a remedy the first line that says why, and the remedy. Nil stays nil.
func explain(err error, output string) error {
	if err == nil {
		return nil
	}
	if missing, ok := errors.AsType[*exec.Error](err); ok && errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%w: install %s and put it into PATH", err, missing.Name)
	}
	said := err.Error()
	if errors.Is(err, unix.ENOSPC) {
		said += " " + unix.ENOSPC.Error()
	}
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EROFS) {
		said += " permission denied"
	}
	for _, r := range remedies() {
		has := func(text string) bool {
			return slices.ContainsFunc(r.words, func(w string) bool { return strings.Contains(text, w) })
		}
		lines := strings.Split(output, "\n")
		if i := slices.IndexFunc(lines, has); i >= 0 {
			return fmt.Errorf("%w:\n%s\n%s", err, lines[i], r.do)
		}
		if has(said) {
			return fmt.Errorf("%w\n%s", withOutput(err, output), r.do)
		}
	}
	return withOutput(err, output)
}

func withOutput(err error, output string) error {
	if output == "" {
		return err
	}
	return fmt.Errorf("%w:\n%s", err, output)
}
