package node

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// tell writes an Event about the pod, as a kubelet does, so that kubectl describe says why it waits. That it cannot be written is only logged.
func (w *pod) tell(ctx context.Context, reason, message string) {
	obj, gone := w.current()
	if gone {
		return
	}
	now := metav1.Now()
	e := &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: obj.Namespace, GenerateName: obj.Name + "."},
		InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: obj.Namespace, Name: obj.Name, UID: obj.UID},
		Type:           corev1.EventTypeWarning, Reason: reason, Message: message,
		Source:         corev1.EventSource{Component: "kubelet", Host: obj.Spec.NodeName},
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
	}
	if _, err := w.player.client.CoreV1().Events(obj.Namespace).Create(ctx, e, metav1.CreateOptions{}); err != nil && ctx.Err() == nil {
		w.player.log.Info("cannot write an event", "pod", w.key, "err", err)
	}
}
