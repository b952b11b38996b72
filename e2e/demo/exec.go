package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/e2e/story"
	"github.com/isthmus-mesh/isthmus/e2e/world"
)

// execCommand is what runs a command in a pod.
const execCommand = "exec"

// inPod has a command run in a pod of the world that is up, and returns its exit code. args are the pod, by the namespace and the name of its
// Deployment, and the command.
func inPod(ctx context.Context, args []string) (int, error) {
	if len(args) > 1 && args[1] == "--" {
		args = append(args[:1:1], args[2:]...)
	}
	if len(args) < 2 || strings.Count(args[0], "/") != 1 {
		fmt.Fprintln(os.Stderr, "demo: give a pod and a command: demo exec edge/native-gateway isthmus version")
		return 2, nil
	}
	dir, err := stateDir()
	if err != nil {
		return 0, err
	}
	code, err := world.Exec(ctx, filepath.Join(dir, execSocket), args)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
		return 0, errors.New("no world is running: make demo-up starts one")
	}
	return code, err
}

// executor runs commands as inPod asks for them.
func executor(w *story.World) world.ExecFunc {
	return func(ctx context.Context, argv []string, std [3]*os.File) (int, error) {
		namespace, app, _ := strings.Cut(argv[0], "/")
		return w.Exec(ctx, namespace, app, argv[1:], std)
	}
}
