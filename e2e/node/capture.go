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
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	// captureLog is the container name under which a capture process logs.
	captureLog = "capture"
	// captureAudience is the audience of the token that Istio's CA takes.
	captureAudience = "istio-ca"
	// captureStart bounds a capture process's start, captureStop its end after SIGTERM.
	captureStart = 30 * time.Second
	captureStop  = 6 * time.Second
)

// captor keeps a pod captured or not, as it is told: process, rules, annotation, and back. run owns what stands outside
// mu.
type captor struct {
	pod   *pod
	dir   string
	once  sync.Once
	woken chan struct{} // capacity 1
	proc  *captureProc  // nil while there is none
	begun bool          // enable has begun, and disable has not ended
	toks  tokens

	mu     sync.Mutex // guards the fields below
	wanted enrolment
	have   enrolment
	known  bool  // want has been called
	err    error // why have is not wanted
	live   *os.Process
}

// captureProc is a running capture process.
type captureProc struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // of Wait; read after done
}

func newCaptor(w *pod) *captor {
	return &captor{
		pod: w, dir: filepath.Join(w.dir, "capture"), woken: make(chan struct{}, 1),
		toks: tokens{client: w.player.client, rotate: w.player.cfg.RotateTokens},
	}
}

// start runs the captor until ctx ends. Later calls do nothing.
func (c *captor) start(ctx context.Context, wg *sync.WaitGroup) {
	c.once.Do(func() { wg.Go(func() { c.run(ctx) }) })
}

// want says what the pod should have of the mesh.
func (c *captor) want(e enrolment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known && c.wanted == e {
		return
	}
	c.wanted, c.known = e, true
	select {
	case c.woken <- struct{}{}:
	default:
	}
}

// settled is nil when the pod has what it should have.
func (c *captor) settled() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.have == c.wanted:
		return nil
	case c.err != nil:
		return fmt.Errorf("capture: %w", c.err)
	}
	return errors.New("capture: under way")
}

// run keeps the pod as it is wanted until ctx ends; then the process may finish what it carries, unless the player ends.
func (c *captor) run(ctx context.Context) {
	defer c.end(c.pod.player.ctx)
	for ctx.Err() == nil {
		c.mu.Lock()
		want, have := c.wanted, c.have
		c.mu.Unlock()
		var err error
		switch {
		case !want.on && c.begun:
			err = c.disable(ctx)
			have = want
		case want.on && want != have:
			err = c.enable(ctx, want)
			have = want
		case want.on:
			_, err = c.token(ctx)
		default:
			have = want
		}
		if err != nil && ctx.Err() == nil {
			c.pod.player.log.Info("capture waits", "pod", c.pod.key, "err", err)
		}
		c.mu.Lock()
		if err == nil {
			c.have = have
		}
		c.err = err
		c.mu.Unlock()
		c.pod.wake()
		c.pod.player.notify()
		c.rest(ctx, err != nil)
	}
}

// rest waits for a new wish, the end of the process or the time to renew the token.
func (c *captor) rest(ctx context.Context, failed bool) {
	var due <-chan time.Time
	next := c.toks.next()
	if failed {
		next = time.Now().Add(retryPod)
	}
	if !next.IsZero() {
		t := time.NewTimer(time.Until(next))
		defer t.Stop()
		due = t.C
	}
	var ended chan struct{}
	if c.proc != nil && !failed {
		ended = c.proc.done
	}
	select {
	case <-ctx.Done():
	case <-c.woken:
	case <-due:
	case <-ended:
		c.pod.player.log.Warn("capture process ended, starting another", "pod", c.pod.key, "err", c.proc.err)
		c.mu.Lock()
		c.have, c.err = enrolment{}, errors.New("the process has ended")
		c.mu.Unlock()
	}
}

// enable captures the pod. The rules come when the process serves, so that nothing is refused in between; from then on
// what the process does not carry does not travel.
func (c *captor) enable(ctx context.Context, e enrolment) error {
	ctx, cancel := context.WithTimeout(ctx, captureStart)
	defer cancel()
	c.begun = true
	c.kill()
	if err := c.launch(ctx, e); err != nil {
		return err
	}
	if err := c.pod.ns().Do(func() error { return captureRules(&c.pod.player.cfg, c.pod.player.api, c.pod.addr(), e.bypassInbound) }); err != nil {
		return fmt.Errorf("write capture rules: %w", err)
	}
	return c.annotate(ctx, `"enabled"`)
}

// disable takes everything back in the opposite order.
func (c *captor) disable(ctx context.Context) error {
	if err := c.annotate(ctx, "null"); err != nil {
		return err
	}
	if err := c.pod.ns().Do(removeCaptureRules); err != nil {
		return fmt.Errorf("remove capture rules: %w", err)
	}
	c.end(ctx)
	c.begun, c.toks.have = false, nil
	return nil
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

// annotate tells the mesh whether the pod speaks HBONE; value is JSON, null takes the annotation away.
func (c *captor) annotate(ctx context.Context, value string) error {
	obj, _ := c.pod.current()
	patch := fmt.Sprintf(`{"metadata":{"uid":%q,"annotations":{%q:%s}}}`, c.pod.uid, annotationRedirection, value)
	_, err := c.pod.player.client.CoreV1().Pods(obj.Namespace).Patch(ctx, obj.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	if err != nil {
		return fmt.Errorf("annotate pod: %w", err)
	}
	return nil
}

// end asks the process to end, and after a while, or with ctx, makes it.
func (c *captor) end(ctx context.Context) {
	if c.proc == nil {
		return
	}
	_ = c.proc.cmd.Process.Signal(unix.SIGTERM) // gone already: done tells
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
