package envoyshim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Where things are in the pod.
const (
	envoyPath = "/opt/istio/bin/envoy-stock"
	shimPath  = "/opt/istio/bin/envoy"
	agentPath = "/opt/istio/bin/pilot-agent"
)

// Main is Envoy as pilot-agent knows it; args are Envoy's. It returns Envoy's exit code.
func Main(args []string) int {
	code, err := run(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "envoy shim:", err)
		return 1
	}
	return code
}

func run(args []string) (int, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if args = slices.Clone(args); slices.Contains(args, "-c") {
		at := slices.Index(args, "-c") + 1
		if at == len(args) {
			return 0, errors.New("-c needs a file")
		}
		path, err := prepare(args[at])
		if err != nil {
			return 0, err
		}
		args[at] = path
		args = flush(args)
		var said sync.Map
		f := &filter{drop: func(what string) {
			if _, again := said.LoadOrStore(what, true); !again {
				fmt.Fprintln(os.Stderr, "envoy shim: left out, as a stock Envoy does not have it:", what)
			}
		}}
		if err := serveRelay(ctx, shimSocket, agentSocket, f); err != nil {
			return 0, err
		}
	}
	return runEnvoy(ctx, args)
}

// prepare writes the rewritten bootstrap beside the agent's.
func prepare(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if text, err = rewriteBootstrap(text); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return path + ".shim.json", os.WriteFile(path+".shim.json", text, 0o600)
}

// flush makes Envoy write its access log at once.
func flush(args []string) []string {
	const flag = "--file-flush-interval-msec"
	if at := slices.Index(args, flag) + 1; at > 0 && at < len(args) {
		args[at] = "20"
		return args
	}
	return append(args, flag, "20")
}

// runEnvoy runs the stock Envoy to its end; signals go on to it.
func runEnvoy(ctx context.Context, args []string) (int, error) {
	cmd := exec.CommandContext(ctx, envoyPath, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start Envoy: %w", err)
	}
	done := make(chan struct{})
	go func() {
		for {
			select {
			case s := <-signals:
				_ = cmd.Process.Signal(s) // gone already: Wait tells
			case <-done:
				return
			}
		}
	}()
	err := cmd.Wait()
	close(done)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), nil
	}
	return 0, err
}
