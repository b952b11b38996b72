package story

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestBestPod: a pod that is ready comes before one that was made later, or earlier, and crashes.
func TestBestPod(t *testing.T) {
	pod := func(name, ip string, ready corev1.ConditionStatus) corev1.Pod {
		return corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.PodStatus{PodIP: ip, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}}}
	}
	gone := pod("gone", "10.0.0.1", corev1.ConditionTrue)
	gone.DeletionTimestamp = &metav1.Time{}
	crashed, good, fresh := pod("crashed", "10.0.0.2", corev1.ConditionFalse), pod("good", "10.0.0.3", corev1.ConditionTrue), pod("fresh", "", corev1.ConditionTrue)
	for name, tt := range map[string]struct {
		pods []corev1.Pod
		want string
	}{
		"the crashed one first":         {[]corev1.Pod{gone, fresh, crashed, good}, "good"},
		"the good one first":            {[]corev1.Pod{good, crashed}, "good"},
		"none that is ready":            {[]corev1.Pod{fresh, crashed}, "crashed"},
		"none that lives and has an IP": {[]corev1.Pod{gone, fresh}, ""},
	} {
		got := ""
		if p := best(tt.pods); p != nil {
			got = p.Name
		}
		if got != tt.want {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}
