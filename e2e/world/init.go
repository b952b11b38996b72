package world

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// initMain is pid 1 of the world: it prepares the namespaces, starts the program as its child, gives it the signals, and
// reaps everybody. It returns with the program, and with it the kernel ends every process of the world. args are
// the program's argv.
func initMain(args []string) int {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, relayed()...)
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)

	control, alive := os.NewFile(3, "control"), os.NewFile(4, "alive")
	unix.CloseOnExec(4)
	go watchOutside(alive)

	if err := prepare(); err != nil {
		return impossible(err)
	}
	cmd := exec.CommandContext(context.Background(), selfExe)
	// Nothing but argv[0] differs from a plain start.
	cmd.Args = args
	cmd.Env = append(os.Environ(), enterEnv+"=3")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{control}
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "world: start the program:", err)
		return 1
	}
	control.Close()
	for {
		if st, gone := reap(cmd.Process.Pid); gone {
			if st.Signaled() {
				return 128 + int(st.Signal())
			}
			return st.ExitStatus()
		}
		select {
		case <-children:
		case s := <-signals:
			_ = unix.Kill(cmd.Process.Pid, s.(syscall.Signal)) // gone already: reap tells
		}
	}
}

// watchOutside ends the world when the process outside is gone. Pdeathsig does so too, but a program with other
// credentials, or one that lost them, is not told by it.
func watchOutside(alive *os.File) {
	_, _ = alive.Read(make([]byte, 1))
	os.Exit(128 + int(unix.SIGKILL))
}

// reap waits for all that have ended, without blocking, and reports whether pid was among them.
func reap(pid int) (syscall.WaitStatus, bool) {
	for {
		var st syscall.WaitStatus
		got, err := syscall.Wait4(-1, &st, syscall.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil || got <= 0:
			return 0, false
		case got == pid && (st.Exited() || st.Signaled()):
			return st, true
		}
	}
}

// prepare makes the new namespaces fit to live in.
func prepare() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	// A container that masks parts of /proc forbids a fresh one. The old one also works: it shows this world's processes
	// under their numbers outside.
	err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	if err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return linkUp("lo")
}

// linkUp sets a link up in the calling thread's network namespace.
func linkUp(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(name)
	if err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, req); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	req.SetUint16(req.Uint16() | unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}
