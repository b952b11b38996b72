package envoyshim_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// rolls has two replicas of the waypoint, and all its pods replaced one by one, under traffic by send.
func rolls(t *testing.T, s shopMesh, send func(path string) error) {
	s.kubectl(t, "scale", "deployment/waypoint", "--replicas=2")
	before := s.waypoints(t, 2)

	ctx, cancel := context.WithCancel(t.Context())
	var sent, failed atomic.Int64
	var first atomic.Value
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			err := send(fmt.Sprintf("/ok/roll/%d", sent.Load()))
			sent.Add(1)
			if err != nil {
				failed.Add(1)
				first.CompareAndSwap(nil, fmt.Sprintf("request %d: %v", sent.Load(), err))
			}
		}
	}()
	s.kubectl(t, "rollout", "restart", "deployment/waypoint")
	for _, pod := range before {
		if err := s.Node.WaitGone(ctx, "shop", pod.Name); err != nil {
			t.Error(err)
		}
	}
	s.waypoints(t, 2)
	cancel()
	<-done
	t.Logf("%d requests during the rollout, %d failed", sent.Load(), failed.Load())
	if sent.Load() < 10 || failed.Load() > 0 {
		t.Errorf("%d of %d requests failed, the first: %v", failed.Load(), sent.Load(), first.Load())
	}
}

// waypoints waits for n pods of the waypoint, ready and not about to end.
func (s shopMesh) waypoints(t *testing.T, n int) []corev1.Pod {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		var pods corev1.PodList
		if err := s.Client().List(t.Context(), &pods, client.InNamespace("shop"), client.MatchingLabels{"gateway.networking.k8s.io/gateway-name": "waypoint"}); err != nil {
			t.Fatal(err)
		}
		ready := 0
		for i := range pods.Items {
			for _, c := range pods.Items[i].Status.Conditions {
				if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue && pods.Items[i].DeletionTimestamp == nil {
					ready++
				}
			}
		}
		if ready == n && len(pods.Items) == n {
			return pods.Items
		}
	}
	t.Fatalf("there are no %d ready waypoints", n)
	return nil
}

// kubectl runs in namespace shop.
func (s shopMesh) kubectl(t *testing.T, args ...string) {
	t.Helper()
	if _, err := s.Run(t.Context(), "kubectl", append([]string{"-n", "shop"}, args...)...); err != nil {
		t.Fatal(err)
	}
}
