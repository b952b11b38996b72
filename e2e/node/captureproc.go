package node

import (
	"bufio"
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
)

// captureProc is a running capture process.
type captureProc struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // of Wait; read after done
}

// launch starts the process and waits until it serves.
func (c *captor) launch(ctx context.Context, e enrolment) error {
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	tokenFile, err := c.token(ctx)
	if err != nil {
		return err
	}
	obj, _ := c.pod.current()
	hook, err := c.pod.player.cfg.Capture(ctx, CapturePod{
		Namespace: obj.Namespace, Name: obj.Name, UID: string(obj.UID), ServiceAccount: serviceAccount(obj),
		Node: c.pod.player.cfg.name(), IP: c.pod.addr(), TokenFile: tokenFile, Dir: c.dir, BypassInbound: e.bypassInbound,
		ServicePorts: c.pod.player.servicePorts(),
	})
	if err != nil {
		return fmt.Errorf("make capture process: %w", err)
	}
	log, err := c.pod.openLog(captureLog)
	if err != nil {
		return err
	}
	defer log.Close()
	if hook.Cmd.Stdout == nil {
		hook.Cmd.Stdout = log
	}
	if hook.Cmd.Stderr == nil {
		hook.Cmd.Stderr = log
	}
	ready := hook.Ready
	if ready == nil {
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		defer r.Close()
		defer w.Close()
		hook.Cmd.ExtraFiles = []*os.File{w}
		ready = func(ctx context.Context) error { return readLine(ctx, r, w) }
	}
	hook.Cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.pod.ns().Start(hook.Cmd); err != nil {
		return fmt.Errorf("start capture process: %w", err)
	}
	proc := &captureProc{cmd: hook.Cmd, done: make(chan struct{})}
	go func() {
		defer close(proc.done)
		proc.err = hook.Cmd.Wait()
	}()
	c.setProc(proc)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-proc.done:
			cancel(fmt.Errorf("the process has ended: %w", errors.Join(proc.err)))
		case <-ctx.Done():
		}
	}()
	if err := ready(ctx); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return fmt.Errorf("wait for capture process: %w: %s", err, c.pod.tail(captureLog, 3))
	}
	return nil
}

// readLine waits for a line, or for ctx's end. w is our own write end, which would keep r from ending.
func readLine(ctx context.Context, r, w *os.File) error {
	w.Close()
	stop := context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(time.Now()) })
	defer stop()
	_, err := bufio.NewReader(r).ReadString('\n')
	if errors.Is(err, io.EOF) {
		return errors.New("it closed its ready pipe without a word")
	}
	return err
}

// process is the capture process; nil while there is none.
func (c *captor) process() *os.Process {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.live
}

// token renews the token file when it is due, and returns its path.
func (c *captor) token(ctx context.Context) (string, error) {
	obj, _ := c.pod.current()
	tok, err := c.toks.get(ctx, obj, tokenKey{audience: captureAudience})
	if err != nil {
		return "", err
	}
	path := filepath.Join(c.dir, "token")
	if have, err := os.ReadFile(path); err == nil && string(have) == tok {
		return path, nil
	}
	next := path + ".next"
	if err := os.WriteFile(next, []byte(tok), 0o600); err != nil {
		return "", fmt.Errorf("write token: %w", err)
	}
	if err := os.Rename(next, path); err != nil {
		return "", fmt.Errorf("write token: %w", err)
	}
	return path, nil
}

// end asks the process to end by a signal, and after a while, or with ctx, makes it.
func (c *captor) end(ctx context.Context, by unix.Signal) {
	if c.proc == nil {
		return
	}
	_ = c.proc.cmd.Process.Signal(by) // gone already: done tells
	t := time.NewTimer(captureStop)
	defer t.Stop()
	select {
	case <-c.proc.done:
	case <-t.C:
	case <-ctx.Done():
	}
	c.kill()
}

// kill ends the process and its group at once.
func (c *captor) kill() {
	if c.proc == nil {
		return
	}
	_ = unix.Kill(-c.proc.cmd.Process.Pid, unix.SIGKILL)
	<-c.proc.done
	c.setProc(nil)
}

func (c *captor) setProc(p *captureProc) {
	c.proc = p
	c.mu.Lock()
	defer c.mu.Unlock()
	c.live = nil
	if p != nil {
		c.live = p.cmd.Process
	}
}
