package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/e2e/story"
	"github.com/isthmus-mesh/isthmus/e2e/world"
)

// serveCommand is what the process in the background is called with.
const serveCommand = "serve"

// Files in the state folder.
const (
	pidFile        = "pid"
	logFile        = "log"
	usageFile      = "usage" // written when all is ready
	kubeconfigFile = "kubeconfig"
	programFile    = "demo"
	binFolder      = "bin" // for PATH
	execSocket     = "exec"
	lockName       = "lock"
)

// stopWait is how long a world has to end before it is killed.
const stopWait = 20 * time.Second

// up starts a world in the background, and returns when it is ready. When ctx ends before, so does the world.
func up(ctx context.Context, out io.Writer) error {
	dir, err := stateDir()
	if err != nil {
		return err
	}
	cmd, log, err := start(out, dir)
	if err != nil || cmd == nil {
		return err
	}
	defer log.Close()
	if err := await(ctx, out, dir, cmd); err != nil {
		return errors.Join(err, down(io.Discard))
	}
	return nil
}

// start starts the process, unless there is one that runs already: cmd is then nil.
func start(out io.Writer, dir string) (*exec.Cmd, *os.File, error) {
	alone, err := lock(dir)
	if err != nil {
		return nil, nil, err
	}
	defer alone.Close()
	pid, err := readPID(filepath.Join(dir, pidFile))
	if err != nil {
		return nil, nil, err
	}
	if pid != 0 {
		if since, ready := readySince(dir); ready {
			fmt.Fprintf(out, "A world was running already, since %s: what was changed in it is so still. make demo-down ends it.\n", since.Format("15:04 on January 2"))
			return nil, nil, show(out, dir)
		}
		return nil, nil, fmt.Errorf("a world is being started already by process %d: wait for it, or end it with make demo-down", pid)
	}
	return background(dir)
}

// background starts this program as a process of its own, from a copy: what go run has built does not stay.
func background(dir string) (*exec.Cmd, *os.File, error) {
	if err := os.Remove(filepath.Join(dir, usageFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, nil, err
	}
	exe := filepath.Join(dir, programFile)
	if err := os.Remove(exe); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, nil, err
	}
	text, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return nil, nil, err
	}
	if err := os.WriteFile(exe, text, 0o700); err != nil {
		return nil, nil, world.Full(err)
	}
	log, err := os.Create(filepath.Join(dir, logFile))
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.CommandContext(context.Background(), exe, serveCommand)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		log.Close()
		return nil, nil, err
	}
	if err := writePID(filepath.Join(dir, pidFile), cmd.Process.Pid); err != nil {
		log.Close()
		return nil, nil, errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	return cmd, log, nil
}

// await shows the log until the world is ready or has failed.
func await(ctx context.Context, out io.Writer, dir string, cmd *exec.Cmd) error {
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	shown := 0
	for {
		var end error
		done := false
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case end = <-ended:
			done = true
		case <-tick.C:
		}
		if text, err := os.ReadFile(filepath.Join(dir, logFile)); err == nil && len(text) > shown {
			if _, err := out.Write(text[shown:]); err != nil {
				return err
			}
			shown = len(text)
		}
		if done {
			return fmt.Errorf("the world did not come up: %w", end)
		}
		if show(out, dir) == nil {
			return nil
		}
	}
}

// readySince says when the world that runs was ready, if it is.
func readySince(dir string) (time.Time, bool) {
	info, err := os.Stat(filepath.Join(dir, usageFile))
	if err != nil {
		return time.Time{}, false
	}
	return info.ModTime(), true
}

func show(out io.Writer, dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, usageFile))
	if err != nil {
		return err
	}
	_, err = out.Write(text)
	return err
}

// serve is the process in the background: it runs until it is told to end.
func serve(ctx context.Context, out io.Writer) (err error) {
	dir, err := stateDir()
	if err != nil {
		return err
	}
	w, err := story.Start(ctx, out)
	if err != nil {
		return err
	}
	defer func() {
		if removeErr := os.Remove(filepath.Join(dir, usageFile)); err == nil {
			err = removeErr
		}
		err = errors.Join(err, w.Stop())
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	text, err := publish(ctx, dir, w)
	if err != nil {
		return err
	}
	wait, err := world.ServeExec(ctx, filepath.Join(dir, execSocket), executor(w))
	if err != nil {
		return err
	}
	defer func() {
		cancel()
		wait()
	}()
	if err := replaceFile(filepath.Join(dir, usageFile), []byte(text)); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// down ends a world that up has left, and all processes of it.
func down(out io.Writer) error {
	dir, err := stateDir()
	if err != nil {
		return err
	}
	alone, err := lock(dir)
	if err != nil {
		return err
	}
	defer alone.Close()
	path := filepath.Join(dir, pidFile)
	pid, err := readPID(path)
	if err != nil {
		return err
	}
	if pid == 0 {
		fmt.Fprintln(out, "no world is running")
		return errors.Join(world.Sweep(), forget(dir)) // it may have been killed
	}
	// The process group is that of the session which up has made.
	if err := unix.Kill(-pid, unix.SIGTERM); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("end process group %d: %w", pid, err)
	}
	for deadline := time.Now().Add(stopWait); ; time.Sleep(50 * time.Millisecond) {
		if now, err := readPID(path); err != nil || now == 0 {
			break
		}
		if time.Now().After(deadline) {
			fmt.Fprintf(out, "it did not end within %v: killing it\n", stopWait)
			if err := unix.Kill(-pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
			break
		}
	}
	fmt.Fprintln(out, "the world is gone")
	return errors.Join(world.Sweep(), forget(dir))
}
