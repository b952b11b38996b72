package node

import (
	"context"
	"fmt"
	"runtime"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
)

// register makes the Node object, Ready.
func (p *Player) register(ctx context.Context) error {
	nodes := p.client.CoreV1().Nodes()
	name := p.cfg.name()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
		corev1.LabelHostname: name, corev1.LabelOSStable: runtime.GOOS, corev1.LabelArchStable: runtime.GOARCH,
	}}}
	if _, err := nodes.Create(ctx, node, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create node %s: %w", name, err)
	}
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		node, err := nodes.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		have := corev1.ResourceList{
			corev1.ResourceCPU:    *resource.NewQuantity(int64(runtime.NumCPU()), resource.DecimalSI),
			corev1.ResourceMemory: *resource.NewQuantity(nodeMemory, resource.BinarySI),
			corev1.ResourcePods:   *resource.NewQuantity(1000, resource.DecimalSI),
		}
		now := metav1.Now()
		node.Status.Capacity, node.Status.Allocatable = have, have
		// No host name: the API server would prefer it, and nobody resolves it.
		node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: p.cfg.gateway().String()}}
		node.Status.DaemonEndpoints.KubeletEndpoint.Port = kubeletPort
		node.Status.NodeInfo.KubeletVersion = "v1.36.3"
		node.Status.NodeInfo.OperatingSystem, node.Status.NodeInfo.Architecture = runtime.GOOS, runtime.GOARCH
		node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue,
			Reason: "KubeletReady", LastHeartbeatTime: now, LastTransitionTime: now}}
		_, err = nodes.UpdateStatus(ctx, node, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		return fmt.Errorf("write status of node %s: %w", name, err)
	}
	return nil
}

// schedule binds a pod that waits for a node. There is one node, and it has room.
func (p *Player) schedule(o metav1.Object, deleted bool) {
	obj := o.(*corev1.Pod)
	if deleted || obj.Spec.NodeName != "" || obj.DeletionTimestamp != nil || terminal(obj) ||
		obj.Spec.SchedulerName != corev1.DefaultSchedulerName || len(obj.Spec.SchedulingGates) > 0 {
		return
	}
	bind := &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: obj.Namespace, Name: obj.Name, UID: obj.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: p.cfg.name()},
	}
	for wait := 100 * time.Millisecond; ; wait *= 2 {
		err := p.client.CoreV1().Pods(obj.Namespace).Bind(p.ctx, bind, metav1.CreateOptions{})
		if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) || p.ctx.Err() != nil {
			return // bound, gone, or bound by another event
		}
		p.log.Warn("pod not bound", "pod", obj.Namespace+"/"+obj.Name, "err", err)
		if wait > 5*time.Second || !pause(p.ctx, wait) {
			return
		}
	}
}
