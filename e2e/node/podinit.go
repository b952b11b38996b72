package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/e2e/world"
)

// Names of the functions that the player starts as processes.
const (
	initFunc = "pod-init"
	execFunc = "pod-exec"
)

// Funcs are the functions that world.Enter must know for the player to start containers. Merge them with your own.
func Funcs() world.Funcs {
	return world.Funcs{
		initFunc: func(args []string) int { return exitWith(initFunc, podInit(args)) },
		execFunc: func(args []string) int { return exitWith(execFunc, podExec(args)) },
	}
}

// initSpec is what pod-init makes of itself.
type initSpec struct {
	Hostname string
	// Root is an empty folder that the root file system is mounted on.
	Root  string
	Binds []bind
	Files map[string]string // small files of the root file system
	Argv  []string          // program and arguments; with Func, arguments only
	Func  string
	Env   []string
	Dir   string // working directory
}

// bind shows Source, a file or folder of the host, at Target of the root file system.
type bind struct {
	Source, Target string
	ReadOnly       bool
}

// exitWith reports a function that could not become its program; 127 is what a shell says then.
func exitWith(name string, err error) int {
	fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
	return 127
}

// podInit reads the spec file named by its argument, builds the root file system in the mount namespace that it was
// started in, and becomes the container's program. It returns only on failure.
func podInit(args []string) error {
	if len(args) != 1 {
		return errors.New("need the path of a spec")
	}
	raw, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	var spec initSpec
	if err := json.Unmarshal(raw, &spec); err != nil {
		return fmt.Errorf("read spec: %w", err)
	}
	if err := unix.Sethostname([]byte(spec.Hostname)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	if err := newRootFS(&spec).assemble(); err != nil {
		return fmt.Errorf("assemble root file system: %w", err)
	}
	if err := enterRoot(spec.Root, spec.Dir); err != nil {
		return err
	}
	if spec.Func != "" {
		cmd := world.FuncCommand(spec.Func, spec.Argv...)
		return become(cmd.Path, cmd.Args, spec.Env)
	}
	return becomeProgram(spec.Argv, spec.Env)
}

// podExec runs a program in a running container: its arguments are the process id of the container's first process
// and the path of a spec, of which Argv, Env and Dir count.
func podExec(args []string) error {
	if len(args) != 2 {
		return errors.New("need a process id and the path of a spec")
	}
	raw, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	var spec initSpec
	if err := json.Unmarshal(raw, &spec); err != nil {
		return fmt.Errorf("read spec: %w", err)
	}
	if err := enterRoot("/proc/"+args[0]+"/root", spec.Dir); err != nil {
		return err
	}
	return becomeProgram(spec.Argv, spec.Env)
}

func enterRoot(root, dir string) error {
	if err := unix.Chroot(root); err != nil {
		return fmt.Errorf("enter root file system: %w", err)
	}
	if dir == "" {
		dir = "/"
	}
	if err := unix.Chdir(dir); err != nil {
		return fmt.Errorf("enter working directory %s: %w", dir, err)
	}
	return nil
}

// becomeProgram looks argv's program up in the PATH of env, inside the root file system.
func becomeProgram(argv, env []string) error {
	if len(argv) == 0 {
		return errors.New("no command: neither the container nor its image names one")
	}
	for _, kv := range env {
		if path, ok := strings.CutPrefix(kv, "PATH="); ok {
			if err := os.Setenv("PATH", path); err != nil {
				return err
			}
		}
	}
	path := argv[0]
	if !strings.Contains(path, "/") {
		found, err := exec.LookPath(path)
		if err != nil {
			return fmt.Errorf("find program: %w", err)
		}
		path = found
	}
	return become(path, argv, env)
}

func become(path string, argv, env []string) error {
	if err := syscall.Exec(path, argv, env); err != nil {
		return fmt.Errorf("execute %s: %w", filepath.Clean(path), err)
	}
	return nil
}
