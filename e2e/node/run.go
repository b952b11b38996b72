package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// RunPod creates a pod and waits until it is ready. Where obj leaves them open it runs as service account default and gets
// one second to end.
func (p *Player) RunPod(ctx context.Context, obj *corev1.Pod) (*corev1.Pod, error) {
	obj = obj.DeepCopy()
	if obj.Spec.ServiceAccountName == "" {
		obj.Spec.ServiceAccountName = "default"
	}
	if obj.Spec.TerminationGracePeriodSeconds == nil {
		obj.Spec.TerminationGracePeriodSeconds = new(int64(1))
	}
	made, err := p.client.CoreV1().Pods(obj.Namespace).Create(ctx, obj, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("create pod %s/%s: %w", obj.Namespace, obj.Name, err)
	}
	return p.WaitReady(ctx, made.Namespace, made.Name)
}

// WaitReady waits until the pod is ready. When ctx ends before, the error says why the pod is not.
func (p *Player) WaitReady(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	obj, err := p.WaitPod(ctx, namespace, name, func(obj *corev1.Pod) bool {
		return obj != nil && (conditionTrue(&obj.Status, corev1.PodReady) || terminal(obj))
	})
	if err == nil && terminal(obj) {
		err = errors.New("it has ended")
	}
	if err != nil {
		return nil, fmt.Errorf("wait for pod %s/%s: %w: %s", namespace, name, err, p.describe(namespace, name))
	}
	return obj, nil
}

// WaitGone waits until there is no pod of that name, nor a process or network of it.
func (p *Player) WaitGone(ctx context.Context, namespace, name string) error {
	_, err := p.WaitPod(ctx, namespace, name, func(obj *corev1.Pod) bool { return obj == nil })
	if err != nil {
		return fmt.Errorf("wait for the end of pod %s/%s: %w", namespace, name, err)
	}
	return nil
}

// WaitCaptured waits until the pod is captured, or with want false until nothing of its capture is left. When ctx ends
// before, the error says why.
func (p *Player) WaitCaptured(ctx context.Context, namespace, name string, want bool) error {
	state := errors.New("no such pod here")
	_, err := p.WaitPod(ctx, namespace, name, func(obj *corev1.Pod) bool {
		w := p.find(namespace, name)
		if obj == nil || w == nil {
			return false
		}
		if w.captor == nil {
			state = errors.New("the node has no capture for it")
			return !want
		}
		if state = w.captor.settled(); state != nil {
			return false
		}
		state = errors.New("its labels and its namespace's do not say so")
		return (w.captor.process() != nil) == want && (obj.Annotations[annotationRedirection] == "enabled") == want
	})
	if err != nil {
		return fmt.Errorf("wait for capture = %v of pod %s/%s: %w: %w; %s", want, namespace, name, err, state, p.Tail(namespace, name, captureLog, 5))
	}
	return nil
}

// WaitPod waits until ok is true of the pod's object as the player sees it, which is nil while there is none, and
// returns that object.
func (p *Player) WaitPod(ctx context.Context, namespace, name string, ok func(*corev1.Pod) bool) (*corev1.Pod, error) {
	for {
		p.mu.Lock()
		changed := p.changed
		p.mu.Unlock()
		obj, err := p.podLister.Pods(namespace).Get(name)
		if err != nil && !apierrors.IsNotFound(err) {
			return nil, err
		}
		if ok(obj) {
			return obj, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// PodIP is the address of a pod; the zero Addr when there is no such pod or it has none yet.
func (p *Player) PodIP(namespace, name string) netip.Addr {
	if w := p.find(namespace, name); w != nil {
		return w.addr()
	}
	return netip.Addr{}
}

// Exec runs a program in a running container of a pod and returns what it wrote to standard output. An empty container means the
// first.
func (p *Player) Exec(ctx context.Context, namespace, name, container string, argv ...string) ([]byte, error) {
	w, c, pid, err := p.running(namespace, name, container)
	if err != nil {
		return nil, err
	}
	return w.exec(ctx, c, pid, argv)
}

// ExecStd is Exec with standard input, output and error of the caller's. It returns the program's exit code, 128+n when signal n ended it.
func (p *Player) ExecStd(ctx context.Context, namespace, name, container string, argv []string, std [3]*os.File) (int, error) {
	w, c, pid, err := p.running(namespace, name, container)
	if err != nil {
		return 0, err
	}
	err = w.execStd(ctx, c, pid, argv, std[0], std[1], std[2])
	if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
		return 0, err
	}
	code, _ := exitOf(err)
	return code, nil
}

// running is a container that runs, and the process id of its first process.
func (p *Player) running(namespace, name, container string) (*pod, *corev1.Container, int, error) {
	w := p.find(namespace, name)
	if w == nil {
		return nil, nil, 0, fmt.Errorf("execute in %s/%s: no such pod here", namespace, name)
	}
	for _, c := range append(w.main[:len(w.main):len(w.main)], w.init...) {
		if container != "" && c.spec.Name != container {
			continue
		}
		c.mu.Lock()
		proc := c.proc
		c.mu.Unlock()
		if proc == nil {
			return nil, nil, 0, fmt.Errorf("execute in %s/%s: container %s does not run", namespace, name, c.spec.Name)
		}
		return w, c.spec, proc.Pid, nil
	}
	return nil, nil, 0, fmt.Errorf("execute in %s/%s: no container %q", namespace, name, container)
}

// PIDs are the first processes of a pod's containers, by container name; that of its capture is "capture". Those that do not run
// are left out, and a pod that is not there has none.
func (p *Player) PIDs(namespace, name string) map[string]int {
	pids := map[string]int{}
	w := p.find(namespace, name)
	if w == nil {
		return pids
	}
	for _, c := range append(w.main[:len(w.main):len(w.main)], w.init...) {
		c.mu.Lock()
		if c.proc != nil {
			pids[c.spec.Name] = c.proc.Pid
		}
		c.mu.Unlock()
	}
	if w.captor != nil {
		if proc := w.captor.process(); proc != nil {
			pids[captureLog] = proc.Pid
		}
	}
	return pids
}

// Tail returns the last lines of a container's log; the capture process's container name is "capture". It works for
// pods that are gone too.
func (p *Player) Tail(namespace, name, container string, lines int) string {
	return lastLines(p.logPath(namespace, name, container), lines)
}

// LogPath is the file of a container's log.
func (p *Player) LogPath(namespace, name, container string) string {
	return p.logPath(namespace, name, container)
}

// find is the living pod of that name.
func (p *Player) find(namespace, name string) *pod {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.pods {
		if obj, gone := w.current(); !gone && obj.Namespace == namespace && obj.Name == name {
			return w
		}
	}
	return nil
}

// describe says in what state a pod is, with the end of its logs.
func (p *Player) describe(namespace, name string) string {
	obj, err := p.podLister.Pods(namespace).Get(name)
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	b.WriteString(nodeMessage(obj))
	for _, c := range obj.Spec.Containers {
		if t := p.Tail(namespace, name, c.Name, 8); t != "" {
			fmt.Fprintf(&b, "\nlog of %s: %s", c.Name, t)
		}
	}
	if t := p.Tail(namespace, name, captureLog, 8); t != "" {
		fmt.Fprintf(&b, "\nlog of %s: %s", captureLog, t)
	}
	return b.String()
}
