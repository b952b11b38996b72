package run

import (
	"cmp"
	"errors"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// peers are who may answer for a waypoint: its pods that are ready. Where it was made anew, the pods of the one before it answer by its name and with its
// identity until they have ended, and know nothing of what the new one will: nobody is asked while they are there.
func peers(s *plan.Snapshot, key types.NamespacedName) ([]spiffeid.ID, error) {
	pods := plan.WaypointPods(s, key)
	if len(pods) == 0 {
		return nil, errors.New("it has no pods")
	}
	if run := deploymentOf(s, key); run != nil {
		if !belongs(run, gatewayUID(s, key)) {
			return nil, errors.New("its Deployment is that of a Gateway before it, which is gone")
		}
		if slices.ContainsFunc(pods, func(p *plan.Pod) bool { return p.CreationTimestamp.Before(&run.CreationTimestamp) }) {
			return nil, errors.New("pods of a Gateway before it, which is gone, have not ended")
		}
	}
	pods = slices.DeleteFunc(pods, func(p *plan.Pod) bool { return p.DeletionTimestamp != nil || !ready(p) })
	if len(pods) == 0 {
		return nil, errors.New("none of its pods is ready")
	}
	var ids []spiffeid.ID
	for _, text := range plan.Identities(s, pods) {
		id, err := spiffeid.FromString(text)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// ready says whether a pod is not known to be unready.
func ready(p *plan.Pod) bool {
	return !slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status != corev1.ConditionTrue
	})
}

// deploymentOf is what runs a waypoint: of several, the newest. Nil: it is not run by a Deployment.
func deploymentOf(s *plan.Snapshot, key types.NamespacedName) *appsv1.Deployment {
	var of []*appsv1.Deployment
	for i := range s.Deployments {
		if d := &s.Deployments[i]; d.Namespace == key.Namespace && d.Labels[edge.LabelGatewayName] == key.Name {
			of = append(of, d)
		}
	}
	if len(of) == 0 {
		return nil
	}
	return slices.MaxFunc(of, func(a, b *appsv1.Deployment) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
}

// belongs says whether an object is of a Gateway, or of none that it tells. One that was taken over is of both for a moment, and stays.
func belongs(o metav1.Object, gateway types.UID) bool {
	other := false
	for _, r := range o.GetOwnerReferences() {
		if r.UID == gateway {
			return true
		}
		other = other || r.Kind == "Gateway"
	}
	return !other
}
