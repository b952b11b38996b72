package world

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	initName   = "isthmus-world-init"  // argv[0] of pid 1
	funcPrefix = "isthmus-world-func:" // argv[0] of a process made by FuncCommand
	selfExe    = "/proc/self/exe"

	// enterEnv tells the program that pid 1 started it: its value is the control socket's file descriptor. Enter takes it
	// out of the environment, so that children make worlds of their own.
	enterEnv = "ISTHMUS_WORLD_ENTER"
	// insideEnv is "pid:fd" of the program inside. Children inherit it, but have another pid.
	insideEnv = "ISTHMUS_WORLD_INSIDE"
)

// relayed are the signals that travel from the process outside to the program inside.
func relayed() []os.Signal {
	return []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2}
}

// FuncEnv names a function of Funcs that this program is to run when it is started by somebody who chooses argv[0] himself.
const FuncEnv = "ISTHMUS_WORLD_FUNC"

// Funcs are Go functions that can be started as processes: by name, with the arguments of FuncCommand; the result is the
// exit code.
type Funcs map[string]func(args []string) int

// FuncCommand returns a command that runs Funcs[name] of this program in a process of its own. The name travels in
// argv[0], so Env may be replaced freely; with SysProcAttr.Chroot the new root needs /proc.
func FuncCommand(name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(context.Background(), selfExe, args...)
	cmd.Args[0] = funcPrefix + name
	return cmd
}

// Enter puts the program into its world; it is the first statement of main or TestMain.
//
// Outside it does not return: it re-executes the program inside, relays SIGINT, SIGTERM, SIGHUP, SIGQUIT,
// SIGUSR1 and SIGUSR2, and exits with the program's exit code (128+n after signal n). In a process made by
// FuncCommand it runs that function and exits. Inside it returns.
func Enter(funcs Funcs) {
	name, isFunc := strings.CutPrefix(os.Args[0], funcPrefix)
	if !isFunc && os.Getenv(FuncEnv) != "" {
		name, isFunc = os.Getenv(FuncEnv), true
	}
	switch {
	case isFunc:
		f, ok := funcs[name]
		if !ok {
			fmt.Fprintf(os.Stderr, "world: this program has no function %q\n", name)
			os.Exit(127)
		}
		os.Args[0] = name
		os.Exit(f(os.Args[1:]))
	case os.Args[0] == initName:
		os.Exit(initMain(os.Args[1:]))
	case os.Getenv(enterEnv) != "":
		if err := inside(); err != nil {
			fmt.Fprintln(os.Stderr, "world:", err)
			os.Exit(1)
		}
	default:
		os.Exit(outside())
	}
}

// IsReexec says whether this process was started by a world: inside one, as its pid 1, or as a function. Enter then must be called.
func IsReexec() bool {
	return strings.HasPrefix(os.Args[0], funcPrefix) || os.Args[0] == initName || os.Getenv(FuncEnv) != "" || os.Getenv(enterEnv) != ""
}

// inside takes over the control socket.
func inside() error {
	v := os.Getenv(enterEnv)
	if err := os.Unsetenv(enterEnv); err != nil {
		return err
	}
	fd, err := strconv.Atoi(v)
	if err != nil {
		return fmt.Errorf("read %s: %w", enterEnv, err)
	}
	unix.CloseOnExec(fd)
	return os.Setenv(insideEnv, fmt.Sprintf("%d:%d", os.Getpid(), fd))
}

// controlFD is the control socket of the program inside.
func controlFD() (int, error) {
	pid, fd, ok := strings.Cut(os.Getenv(insideEnv), ":")
	if !ok || pid != strconv.Itoa(os.Getpid()) {
		return 0, errors.New("not inside a world: call world.Enter first")
	}
	return strconv.Atoi(fd)
}

// outside starts pid 1 of the world and waits for it.
func outside() int {
	// Pdeathsig is tied to the thread that starts the child.
	runtime.LockOSThread()
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, relayed()...)

	cmd, here, err := initCommand()
	if err != nil {
		fmt.Fprintln(os.Stderr, "world:", err)
		return 1
	}
	if err := cmd.Start(); err != nil {
		return impossible(fmt.Errorf("start a process in new namespaces: %w", err))
	}
	for _, f := range cmd.ExtraFiles {
		f.Close()
	}
	go serveHost(here)
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s) // gone already: Wait tells
		}
	}()
	return exitCode(cmd.Wait())
}

// initCommand is pid 1 with what it inherits: the control socket (3) and a pipe that ends with this process (4). The
// write end of the pipe stays open for as long as this process lives.
func initCommand() (*exec.Cmd, *os.File, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make control socket: %w", err)
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("make pipe: %w", err)
	}
	cmd := exec.CommandContext(context.Background(), selfExe, os.Args...)
	cmd.Args[0] = initName
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{os.NewFile(uintptr(pair[1]), "control"), os.NewFile(uintptr(pipe[0]), "alive")}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET,
		Pdeathsig:  unix.SIGKILL,
		Setpgid:    true, // the terminal's Ctrl-C reaches only the process outside, which relays it once
	}
	if !capable() {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	return cmd, os.NewFile(uintptr(pair[0]), "control"), nil
}

// capable reports whether namespaces can be made without a user namespace.
func capable() bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return false
	}
	const need = 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_NET_ADMIN
	return os.Geteuid() == 0 && data[0].Effective&need == need
}

// exitCode is what a shell would say of the result of Wait.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		fmt.Fprintln(os.Stderr, "world:", err)
		return 1
	}
	if st, ok := exit.Sys().(syscall.WaitStatus); ok && st.Signaled() {
		return 128 + int(st.Signal())
	}
	return exit.ExitCode()
}

// impossible says why there can be no world, and is the exit code: tests skip on a developer's machine, nowhere else.
func impossible(err error) int {
	why := explain(err, readSysctl)
	if flag.Lookup("test.v") != nil && os.Getenv("CI") != "true" {
		fmt.Fprintln(os.Stderr, "SKIP: world:", why)
		return 0
	}
	fmt.Fprintln(os.Stderr, "world:", why)
	return 1
}
