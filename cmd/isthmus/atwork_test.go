package main

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// works is a cluster with Deployments of controllers and a lease, which may not be readable.
type works struct {
	client.Reader
	deployments []appsv1.Deployment
	lease       *coordinationv1.Lease
	hidden      error // what the API server says of what may not be read
}

var errHidden = errors.New("not for you")

func (w works) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	if w.deployments == nil {
		return cmp.Or(w.hidden, errHidden)
	}
	list.(*appsv1.DeploymentList).Items = w.deployments
	return nil
}

func (w works) Get(_ context.Context, _ client.ObjectKey, o client.Object, _ ...client.GetOption) error {
	if w.lease == nil {
		return errHidden
	}
	w.lease.DeepCopyInto(o.(*coordinationv1.Lease))
	return nil
}

func TestAControllerThatDoesNotWorkIsTold(t *testing.T) {
	now := time.Unix(10000, 0)
	deployment := func(ready int32) appsv1.Deployment {
		return appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "isthmus-system", Name: "isthmus-controller"}, Status: appsv1.DeploymentStatus{ReadyReplicas: ready}}
	}
	lease := func(age time.Duration) *coordinationv1.Lease {
		seconds := int32(15)
		renewed := metav1.NewMicroTime(now.Add(-age))
		return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "isthmus-controller"}, Spec: coordinationv1.LeaseSpec{LeaseDurationSeconds: &seconds, RenewTime: &renewed}}
	}
	for name, c := range map[string]struct {
		is   works
		want string // empty: nothing is told
	}{
		"nothing may be read":                  {works{}, ""},
		"it runs outside, with no lease":       {works{deployments: []appsv1.Deployment{}}, ""},
		"it works":                             {works{deployments: []appsv1.Deployment{deployment(1)}, lease: lease(2 * time.Second)}, ""},
		"the API server's clock is ahead":      {works{lease: lease(-time.Minute)}, ""},
		"another beside it works":              {works{deployments: []appsv1.Deployment{deployment(0), deployment(1)}}, ""},
		"no replica is ready":                  {works{deployments: []appsv1.Deployment{deployment(0)}, lease: lease(0)}, "no replica of Deployment isthmus-system/isthmus-controller is ready"},
		"it runs outside, and is gone":         {works{deployments: []appsv1.Deployment{}, lease: lease(5 * time.Minute)}, "renewed 5m ago"},
		"it is ready, and does not work":       {works{deployments: []appsv1.Deployment{deployment(1)}, lease: lease(5 * time.Minute)}, "no controller holds it"},
		"the lease alone may be read, is over": {works{lease: lease(time.Hour)}, "renewed 1h ago"},
	} {
		t.Run(name, func(t *testing.T) {
			got := idleController(t.Context(), c.is, now)
			if !strings.Contains(got, c.want) || (got == "") != (c.want == "") {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestOfWhatNobodyHasLookedAtTheNextStepIsTold(t *testing.T) {
	ready := appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "meshops", Name: "isthmus-controller"}, Status: appsv1.DeploymentStatus{ReadyReplicas: 1}}
	idle := ready
	idle.Status.ReadyReplicas = 0
	forbidden := apierrors.NewForbidden(schema.GroupResource{Group: "apps", Resource: "deployments"}, "", errHidden)
	const ask = "kubectl get deployments -A -l app.kubernetes.io/name=isthmus-controller"
	for name, c := range map[string]struct {
		is   works
		want []string
	}{
		"nothing may be read":  {works{hidden: forbidden}, []string{"you may not see", "isthmus-view", ask}},
		"nothing can be read":  {works{}, []string{"not for you", ask}},
		"none is installed":    {works{deployments: []appsv1.Deployment{}}, []string{"none is installed", ask, "kubectl apply -k manifests"}},
		"one is, and is ready": {works{deployments: []appsv1.Deployment{ready}}, []string{"Deployment meshops/isthmus-controller", "kubectl logs -n meshops deployment/isthmus-controller"}},
		"one is, and is not":   {works{deployments: []appsv1.Deployment{idle}}, []string{"no replica of Deployment meshops/isthmus-controller is ready"}},
	} {
		t.Run(name, func(t *testing.T) {
			e := edgeStatus{Namespace: "edge", Name: "public"}
			result{code: exitOK}.want(t, exitOK, notSeen(t.Context(), c.is, &e), append([]string{"AmbientEdge edge/public"}, c.want...)...)
			e = anEdge()
			if got := notSeen(t.Context(), c.is, &e); got != "" {
				t.Errorf("of one that was looked at it says %q", got)
			}
		})
	}
	doc := statusDocument{Edges: []edgeStatus{anEdge(), {Namespace: "edge", Name: "new"}, {Namespace: "edge", Name: "newer"}}}
	doc.note(t.Context(), works{deployments: []appsv1.Deployment{}})
	if len(doc.Notes) != 1 || !strings.Contains(doc.Notes[0], "AmbientEdge edge/new yet: none is installed") {
		t.Errorf("notes are %q", doc.Notes)
	}
}
