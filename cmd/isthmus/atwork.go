package main

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/manifests"
)

// leaseOver is how long a lease may not have been renewed, on top of its own duration, before nobody is said to hold it: clocks differ.
const leaseOver = 30 * time.Second

// nextToController is what shows whether a controller is installed, with the rights of the ClusterRole isthmus-view.
const nextToController = "kubectl get deployments -A -l app.kubernetes.io/name=" + manifests.Controller

// notSeen says of an AmbientEdge that no controller has looked at it yet, and how to find out why. Empty: one has.
func notSeen(ctx context.Context, c client.Reader, e *edgeStatus) string {
	if !e.unseen() {
		return ""
	}
	why := idleController(ctx, c, time.Now())
	if why == "" {
		why = whoShouldLook(ctx, c)
	}
	return fmt.Sprintf("no controller has looked at AmbientEdge %s/%s yet: %s", e.Namespace, e.Name, why)
}

// whoShouldLook says how to find out why no controller has looked at an AmbientEdge yet, where idleController sees nothing amiss.
func whoShouldLook(ctx context.Context, c client.Reader) string {
	var list appsv1.DeploymentList
	err := c.List(ctx, &list, client.MatchingLabels{"app.kubernetes.io/name": manifests.Controller})
	switch {
	case apierrors.IsForbidden(err):
		return "whether one is installed you may not see: whoever has the rights of the ClusterRole isthmus-view asks " + nextToController
	case err != nil:
		return fmt.Sprintf("whether one is installed could not be seen (%v): ask %s", err, nextToController)
	case len(list.Items) == 0:
		return "none is installed in this cluster, as " + nextToController + " shows: kubectl apply -k manifests installs one; one that runs elsewhere says in its log what it lacks"
	}
	d := &list.Items[0]
	return fmt.Sprintf("Deployment %s/%s is there and takes a moment; if it takes longer, its log says why: kubectl logs -n %s deployment/%s, for whoever may read logs there",
		d.Namespace, d.Name, d.Namespace, d.Name)
}

// idleController says why no controller is at work, as far as that can be seen: one that runs elsewhere, or that may not be looked at, is not missed.
func idleController(ctx context.Context, c client.Reader, now time.Time) string {
	var list appsv1.DeploymentList
	if c.List(ctx, &list, client.MatchingLabels{"app.kubernetes.io/name": manifests.Controller}) != nil {
		list.Items = nil
	}
	namespaces := []string{manifests.Namespace}
	why := ""
	for i := range list.Items {
		d := &list.Items[i]
		if d.Status.ReadyReplicas > 0 {
			why = ""
			break
		}
		want := int32(1)
		if d.Spec.Replicas != nil {
			want = *d.Spec.Replicas
		}
		why = fmt.Sprintf("no replica of Deployment %s/%s is ready, and %d are wanted: kubectl describe deployment -n %s %s", d.Namespace, d.Name, want, d.Namespace, d.Name)
		namespaces = append(namespaces, d.Namespace)
	}
	if why != "" {
		return why
	}
	for _, ns := range namespaces {
		var l coordinationv1.Lease
		if c.Get(ctx, types.NamespacedName{Namespace: ns, Name: manifests.Controller}, &l) != nil || l.Spec.RenewTime == nil {
			continue
		}
		over := leaseOver
		if l.Spec.LeaseDurationSeconds != nil {
			over += time.Duration(*l.Spec.LeaseDurationSeconds) * time.Second
		}
		if since := now.Sub(l.Spec.RenewTime.Time); since > over {
			return fmt.Sprintf("Lease %s/%s was renewed %s ago, so that no controller holds it: kubectl get pods -n %s", ns, l.Name, ago(l.Spec.RenewTime.Time, now), ns)
		}
		return ""
	}
	return ""
}
