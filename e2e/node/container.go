package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// stableAfter is how long a container must run for its restart delay to begin anew.
const stableAfter = time.Minute

// container runs one container of a pod: a process at a time, restarted as the pod's policy says.
type container struct {
	pod  *pod
	spec *corev1.Container
	init bool // an init container that ends; sidecars are not
	side bool // an init container with restartPolicy Always

	launched bool // run has been called; the pod's loop owns it

	stopping chan struct{} // closed when no further process may start
	done     chan struct{} // closed when the loop has returned
	stopOnce sync.Once

	mu       sync.Mutex // guards the fields below
	state    corev1.ContainerState
	last     corev1.ContainerState
	restarts int32
	started  bool // the startup probe has passed, or there is none
	ready    bool
	over     bool // ended, and will not start again
	proc     *os.Process
}

func newContainer(p *pod, spec *corev1.Container, init bool) *container {
	side := init && spec.RestartPolicy != nil && *spec.RestartPolicy == corev1.ContainerRestartPolicyAlways
	return &container{
		pod: p, spec: spec, init: init && !side, side: side,
		stopping: make(chan struct{}), done: make(chan struct{}),
		state: waiting("PodInitializing", ""),
	}
}

func waiting(reason, message string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
}

// run is the container's loop. ctx ends it at once.
func (c *container) run(ctx context.Context) {
	defer close(c.done)
	delay := time.Duration(0)
	told := ""
	for {
		begin := time.Now()
		code, err := c.once(ctx)
		if err == nil && !c.again(code) {
			c.set(func() { c.over = true })
			return
		}
		if time.Since(begin) > stableAfter {
			delay = 0
		}
		if err != nil {
			c.set(func() { c.state = waiting("CreateContainerError", err.Error()) })
			if err.Error() != told && !c.ended(ctx) {
				told = err.Error()
				c.pod.tell(ctx, "Failed", told)
			}
			delay = max(delay, c.pod.player.cfg.backOff())
		} else if delay > 0 {
			c.set(func() {
				c.state = waiting("CrashLoopBackOff", fmt.Sprintf("back-off %v after exit code %d", delay, code))
			})
		}
		timer := time.NewTimer(delay)
		select {
		case <-timer.C:
		case <-c.stopping:
		case <-ctx.Done():
		}
		timer.Stop()
		if c.ended(ctx) {
			c.set(func() { c.over = true })
			return
		}
		if err == nil {
			c.set(func() { c.restarts++ })
		}
		delay = min(max(delay*2, c.pod.player.cfg.backOff()), 10*c.pod.player.cfg.backOff())
	}
}

func (c *container) ended(ctx context.Context) bool {
	select {
	case <-c.stopping:
		return true
	default:
		return ctx.Err() != nil
	}
}

// again reports whether a process that ended with code is followed by another.
func (c *container) again(code int) bool {
	select {
	case <-c.stopping:
		return false
	default:
	}
	policy := c.pod.spec.RestartPolicy
	switch {
	case c.side:
		return true
	case c.init:
		return code != 0 && policy != corev1.RestartPolicyNever
	case policy == corev1.RestartPolicyNever:
		return false
	case policy == corev1.RestartPolicyOnFailure:
		return code != 0
	}
	return true
}

// once runs one process to its end and returns its exit code; an error means that none ran.
func (c *container) once(ctx context.Context) (int, error) {
	cmd, err := c.pod.command(c.spec)
	if err != nil {
		return 0, err
	}
	log, err := c.pod.openLog(c.spec.Name)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{
		// A process namespace of its own: with the first process all others of the container end.
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS,
		Setpgid:    true,
	}
	if err := c.pod.ns().Start(cmd); err != nil {
		return 0, fmt.Errorf("start container %s: %w", c.spec.Name, err)
	}
	begin := metav1.Now()
	probes, stopProbes := context.WithCancel(ctx)
	var wg sync.WaitGroup
	c.set(func() {
		c.proc = cmd.Process
		c.state = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: begin}}
		c.started = c.spec.StartupProbe == nil
		c.ready = c.started && c.spec.ReadinessProbe == nil
	})
	wg.Go(func() { c.probe(probes, cmd.Process.Pid) })
	kill := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() }) // gone already: Wait tells
	code, reason := exitOf(cmd.Wait())
	kill()
	stopProbes()
	wg.Wait()
	c.set(func() {
		c.proc = nil
		c.started, c.ready = false, false
		c.state = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
			ExitCode: int32(code), Reason: reason, StartedAt: begin, FinishedAt: metav1.Now(), ContainerID: c.id(),
		}}
		if code != 0 {
			c.state.Terminated.Message = c.pod.tail(c.spec.Name, 5)
		}
		c.last = c.state
	})
	c.pod.player.log.Debug("container ended", "pod", c.pod.key, "container", c.spec.Name, "code", code)
	return code, nil
}

// exitOf reads the result of Wait: 128+n after signal n, as a container runtime has it.
func exitOf(err error) (int, string) {
	if err == nil {
		return 0, "Completed"
	}
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return 255, "ContainerStatusUnknown"
	}
	if st, ok := exit.Sys().(syscall.WaitStatus); ok && st.Signaled() {
		return 128 + int(st.Signal()), "Error"
	}
	return exit.ExitCode(), "Error"
}

// stop asks the process to end, and after grace makes it. It returns when the loop has.
func (c *container) stop(ctx context.Context, grace time.Duration) {
	c.stopOnce.Do(func() { close(c.stopping) })
	c.preStop(ctx, grace)
	c.signal(unix.SIGTERM)
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-c.done:
		return
	case <-timer.C:
	case <-ctx.Done():
	}
	c.signal(unix.SIGKILL)
	<-c.done
}

// restart ends the process for a failed probe; the loop starts the next.
func (c *container) restart(ctx context.Context, grace time.Duration) {
	c.mu.Lock()
	proc := c.proc
	c.mu.Unlock()
	if proc == nil {
		return
	}
	_ = proc.Signal(unix.SIGTERM) // gone already: Wait tells
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-ctx.Done(): // the process has ended
	case <-timer.C:
		_ = proc.Kill()
	}
}

// signal sends sig to the container's first process; SIGKILL ends its process group and namespace with it.
func (c *container) signal(sig syscall.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.proc == nil {
		return
	}
	if sig == unix.SIGKILL {
		_ = unix.Kill(-c.proc.Pid, sig)
	}
	_ = c.proc.Signal(sig)
}

// set changes the container's state and lets the pod look at it.
func (c *container) set(f func()) {
	c.mu.Lock()
	f()
	c.mu.Unlock()
	c.pod.wake()
}

func (c *container) id() string {
	return fmt.Sprintf("isthmus://%s/%s/%d", c.pod.uid, c.spec.Name, c.restarts)
}

// status is what the pod's status says of the container.
func (c *container) status() corev1.ContainerStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := corev1.ContainerStatus{
		Name: c.spec.Name, Image: c.spec.Image, ImageID: c.spec.Image, RestartCount: c.restarts,
		State: c.state, Ready: c.ready, Started: new(c.started),
	}
	if c.init {
		s.Ready = c.state.Terminated != nil && c.state.Terminated.ExitCode == 0
	}
	if c.state.Running != nil || c.state.Terminated != nil {
		s.ContainerID = c.id()
	}
	if c.state.Terminated == nil {
		s.LastTerminationState = c.last
	}
	return s
}

// settled reports whether the containers after c may start: it is an init container that has succeeded or a sidecar
// that has started.
func (c *container) settled() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.side {
		return c.started && c.state.Running != nil
	}
	return c.over && c.state.Terminated != nil && c.state.Terminated.ExitCode == 0
}
