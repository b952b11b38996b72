package run

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// TestAWaypointThatWasMadeAnewIsAskedWhenItsOwnPodsAreThere: those of the one before it answer by its name, with its identity, until they have ended.
func TestAWaypointThatWasMadeAnewIsAskedWhenItsOwnPodsAreThere(t *testing.T) {
	key := types.NamespacedName{Namespace: "shop", Name: "waypoint"}
	begin := time.Now()
	labels := map[string]string{"gateway.networking.k8s.io/gateway-name": "waypoint"}
	pod := func(at int, status corev1.ConditionStatus, ending bool) plan.Pod {
		p := plan.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Labels: labels, CreationTimestamp: metav1.NewTime(begin.Add(time.Duration(at) * time.Second))}}
		p.Spec.ServiceAccountName = "waypoint"
		if status != "" {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: status}}
		}
		if ending {
			p.DeletionTimestamp = &metav1.Time{Time: begin}
		}
		return p
	}
	deployment := func(at int, of types.UID) appsv1.Deployment {
		return appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "waypoint", Labels: labels, CreationTimestamp: metav1.NewTime(begin.Add(time.Duration(at) * time.Second)),
			OwnerReferences: []metav1.OwnerReference{{Kind: "Gateway", Name: "waypoint", UID: of}},
		}}
	}
	both := deployment(0, "old")
	both.OwnerReferences = append(both.OwnerReferences, deployment(0, "new").OwnerReferences...)
	for name, c := range map[string]struct {
		runs []appsv1.Deployment
		pods []plan.Pod
		why  string
	}{
		"its own pod":                               {[]appsv1.Deployment{deployment(10, "new")}, []plan.Pod{pod(10, "True", false)}, ""},
		"a rollout of its own":                      {[]appsv1.Deployment{deployment(10, "new")}, []plan.Pod{pod(11, "True", true), pod(12, "True", false)}, ""},
		"it took over the Deployment":               {[]appsv1.Deployment{deployment(0, "new")}, []plan.Pod{pod(1, "True", false)}, ""},
		"nobody says whether it is ready":           {nil, []plan.Pod{pod(1, "", false)}, ""},
		"only the pod from before, which ends":      {nil, []plan.Pod{pod(1, "True", true)}, "none of its pods is ready"},
		"its own is not ready":                      {[]appsv1.Deployment{deployment(10, "new")}, []plan.Pod{pod(11, "False", false)}, "none of its pods is ready"},
		"the Deployment from before is there":       {[]appsv1.Deployment{deployment(0, "old")}, []plan.Pod{pod(1, "True", false)}, "its Deployment is that of a Gateway before it"},
		"the pod from before is there":              {[]appsv1.Deployment{deployment(10, "new")}, []plan.Pod{pod(1, "True", false)}, "pods of a Gateway before it"},
		"the pod from before ends beside its own":   {[]appsv1.Deployment{deployment(10, "new")}, []plan.Pod{pod(1, "True", true), pod(11, "True", false)}, "pods of a Gateway before it"},
		"both Deployments, and the pod from before": {[]appsv1.Deployment{deployment(0, "old"), deployment(10, "new")}, []plan.Pod{pod(1, "True", false)}, "pods of a Gateway before it"},
		"it has just taken over the Deployment":     {[]appsv1.Deployment{both}, []plan.Pod{pod(1, "True", false)}, ""},
		"no pods":                                   {nil, nil, "it has no pods"},
	} {
		s := &plan.Snapshot{Deployments: c.runs, Pods: c.pods, Gateways: []gatewayv1.Gateway{{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "waypoint", UID: "new"}}}}
		who, err := peers(s, key)
		switch {
		case c.why == "" && (err != nil || len(who) != 1 || who[0].String() != "spiffe://cluster.local/ns/shop/sa/waypoint"):
			t.Errorf("%s: got %v, %v", name, who, err)
		case c.why != "" && (err == nil || !strings.HasPrefix(err.Error(), c.why)):
			t.Errorf("%s: got %v, %v; want %s", name, who, err, c.why)
		}
	}
}
