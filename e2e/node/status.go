package node

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
)

// podView is what the node knows of a pod when it writes its status.
type podView struct {
	ip, hostIP netip.Addr
	started    time.Time
	init, main []corev1.ContainerStatus
	initOver   bool // every init container has succeeded, every sidecar has started
	mainOver   bool // no container runs or will run again
	gates      []bool
}

// statusOf makes the status of obj from v. What others have written stays: their conditions, the QoS class.
func statusOf(obj *corev1.Pod, v podView, now metav1.Time) corev1.PodStatus {
	s := *obj.Status.DeepCopy()
	s.Phase = phaseOf(v)
	s.StartTime = &metav1.Time{Time: v.started.Truncate(time.Second)}
	s.HostIP = v.hostIP.String()
	s.HostIPs = []corev1.HostIP{{IP: s.HostIP}}
	if v.ip.IsValid() {
		s.PodIP = v.ip.String()
		s.PodIPs = []corev1.PodIP{{IP: s.PodIP}}
	}
	s.InitContainerStatuses, s.ContainerStatuses = v.init, v.main

	notReady := names(v.main, func(c corev1.ContainerStatus) bool { return !c.Ready })
	set := func(t corev1.PodConditionType, ok bool, reason, message string) {
		setCondition(&s, t, ok, reason, message, now)
	}
	set(corev1.PodReadyToStartContainers, v.ip.IsValid(), "", "")
	set(corev1.PodInitialized, v.initOver, "ContainersNotInitialized", "")
	ready := v.initOver && len(notReady) == 0 && s.Phase == corev1.PodRunning
	message := ""
	if len(notReady) > 0 {
		message = fmt.Sprintf("containers with unready status: %v", notReady)
	}
	set(corev1.ContainersReady, ready, "ContainersNotReady", message)
	for _, gate := range obj.Spec.ReadinessGates {
		if !conditionTrue(&s, gate.ConditionType) {
			ready, message = false, fmt.Sprintf("readiness gate %s is not true", gate.ConditionType)
		}
	}
	set(corev1.PodReady, ready, "ContainersNotReady", message)
	return s
}

func phaseOf(v podView) corev1.PodPhase {
	bad := slices.ContainsFunc(slices.Concat(v.init, v.main), func(c corev1.ContainerStatus) bool {
		return c.State.Terminated != nil && c.State.Terminated.ExitCode != 0
	})
	begun := slices.ContainsFunc(v.main, func(c corev1.ContainerStatus) bool {
		return c.State.Running != nil || c.State.Terminated != nil || c.LastTerminationState.Terminated != nil
	})
	switch {
	case v.mainOver && bad:
		return corev1.PodFailed
	case v.mainOver:
		return corev1.PodSucceeded
	case begun:
		return corev1.PodRunning
	}
	return corev1.PodPending
}

func setCondition(s *corev1.PodStatus, t corev1.PodConditionType, ok bool, reason, message string, now metav1.Time) {
	c := corev1.PodCondition{Type: t, Status: corev1.ConditionTrue, LastTransitionTime: now}
	if !ok {
		c.Status, c.Reason, c.Message = corev1.ConditionFalse, reason, message
	}
	i := slices.IndexFunc(s.Conditions, func(c corev1.PodCondition) bool { return c.Type == t })
	if i < 0 {
		s.Conditions = append(s.Conditions, c)
		return
	}
	if s.Conditions[i].Status == c.Status {
		c.LastTransitionTime = s.Conditions[i].LastTransitionTime
	}
	s.Conditions[i] = c
}

func conditionTrue(s *corev1.PodStatus, t corev1.PodConditionType) bool {
	return slices.ContainsFunc(s.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == t && c.Status == corev1.ConditionTrue
	})
}

func names(list []corev1.ContainerStatus, keep func(corev1.ContainerStatus) bool) []string {
	var out []string
	for _, c := range list {
		if keep(c) {
			out = append(out, c.Name)
		}
	}
	return out
}

// view gathers what the pod's containers say.
func (w *pod) view() podView {
	v := podView{ip: w.addr(), hostIP: w.player.cfg.gateway(), started: w.started, initOver: true, mainOver: true}
	failed := false
	for _, c := range w.init {
		v.init = append(v.init, w.explained(c))
		v.initOver = v.initOver && c.settled()
		failed = failed || c.init && c.finished() && !c.settled()
	}
	for _, c := range w.main {
		v.main = append(v.main, w.explained(c))
		v.mainOver = v.mainOver && c.finished()
	}
	v.mainOver = v.mainOver || failed
	return v
}

// explained is c's status, with the reason why the pod does not get to it.
func (w *pod) explained(c *container) corev1.ContainerStatus {
	s := c.status()
	if !c.launched && s.State.Waiting != nil && w.trouble.Reason != "" {
		s.State = corev1.ContainerState{Waiting: w.trouble.DeepCopy()}
	}
	return s
}

// publish writes the status when what it says has changed since the last time. A failure is tried again after a
// second.
func (w *pod) publish(ctx context.Context, obj *corev1.Pod) {
	if terminal(obj) {
		return
	}
	v := w.view()
	for _, gate := range obj.Spec.ReadinessGates {
		v.gates = append(v.gates, conditionTrue(&obj.Status, gate.ConditionType))
	}
	if w.published != nil && reflect.DeepEqual(*w.published, v) {
		return
	}
	pods := w.player.client.CoreV1().Pods(obj.Namespace)
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		now, err := pods.Get(ctx, obj.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if now.UID != w.uid {
			return apierrors.NewNotFound(corev1.Resource("pods"), obj.Name)
		}
		now.Status = statusOf(now, v, metav1.Now())
		_, err = pods.UpdateStatus(ctx, now, metav1.UpdateOptions{})
		return err
	})
	switch {
	case err == nil:
		w.published = &v
	case apierrors.IsNotFound(err) || ctx.Err() != nil:
	default:
		w.player.log.Warn("status not written", "pod", w.key, "err", err)
		time.AfterFunc(retryPod, w.wake)
	}
}

// finished reports whether c has ended for good.
func (c *container) finished() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.over && c.state.Terminated != nil
}

// nodeMemory is the memory in bytes that the Node object claims to have.
const nodeMemory = int64(8) << 30

// nodeMessage is the one line that WaitReady gives of a pod that is not ready.
func nodeMessage(obj *corev1.Pod) string {
	for _, c := range slices.Concat(obj.Status.InitContainerStatuses, obj.Status.ContainerStatuses) {
		if wt := c.State.Waiting; wt != nil {
			return fmt.Sprintf("container %s: %s: %s", c.Name, wt.Reason, wt.Message)
		}
		if t := c.State.Terminated; t != nil && t.ExitCode != 0 {
			return fmt.Sprintf("container %s ended with %d: %s", c.Name, t.ExitCode, t.Message)
		}
	}
	return string(cmp.Or(obj.Status.Phase, corev1.PodPending))
}
