package soak

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/manifests"
)

// controllerKilled kills the controller, as a node does that runs out of memory, and changes the AmbientEdge while it is away. Nothing is tolerated: what was
// written stands without it. It is over when the controller is ready again, and says Ready of the change.
func (e *events) controllerKilled(ctx context.Context) error {
	e.load.ledger.enter(&phase{event: "controller killed", name: "controller killed"})
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	before, err := e.controllers(ctx)
	if err != nil {
		return err
	}
	for i := range before {
		for container, pid := range e.w.Node.PIDs(before[i].Namespace, before[i].Name) {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				return fmt.Errorf("kill container %s of pod %s: %w", container, before[i].Name, err)
			}
		}
	}
	generation, err := e.changeEdges(ctx)
	if err != nil {
		return err
	}
	for why := "it was not looked at"; ; time.Sleep(100 * time.Millisecond) {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("the controller that was killed: %s: %w", why, err)
		}
		if why, err = e.controllerLacks(ctx, before, generation); err != nil {
			return err
		} else if why == "" {
			return e.stay(ctx)
		}
	}
}

// controllers are the controller's pods that run.
func (e *events) controllers(ctx context.Context) ([]corev1.Pod, error) {
	var list corev1.PodList
	if err := e.w.Client().List(ctx, &list, client.InNamespace(manifests.Namespace)); err != nil {
		return nil, err
	}
	pods := slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return p.Spec.ServiceAccountName != manifests.Controller })
	if len(pods) == 0 {
		return nil, errors.New("the controller has no pod")
	}
	return pods, nil
}

// changeEdges writes something into every AmbientEdge that means what was there before, and returns its generation since.
func (e *events) changeEdges(ctx context.Context) (map[types.NamespacedName]int64, error) {
	c, err := e.edges()
	if err != nil {
		return nil, err
	}
	var list v1alpha1.AmbientEdgeList
	if err := c.List(ctx, &list); err != nil {
		return nil, err
	}
	generation := map[types.NamespacedName]int64{}
	for i := range list.Items {
		o := &list.Items[i]
		before := o.DeepCopy()
		if o.Spec.OnDelete = v1alpha1.OnDeleteUndo; before.Spec.OnDelete == v1alpha1.OnDeleteUndo {
			o.Spec.OnDelete = ""
		}
		if err := c.Patch(ctx, o, client.MergeFrom(before)); err != nil {
			return nil, err
		}
		if o.Generation == before.Generation {
			return nil, fmt.Errorf("AmbientEdge %s/%s was not changed", o.Namespace, o.Name)
		}
		generation[client.ObjectKeyFromObject(o)] = o.Generation
	}
	if len(generation) == 0 {
		return nil, errors.New("there is no AmbientEdge")
	}
	return generation, nil
}

// controllerLacks says why the controller is not back, or "".
func (e *events) controllerLacks(ctx context.Context, before []corev1.Pod, generation map[types.NamespacedName]int64) (string, error) {
	pods, err := e.controllers(ctx)
	if err != nil {
		return "", err
	}
	for i := range pods {
		p := &pods[i]
		was := slices.IndexFunc(before, func(o corev1.Pod) bool { return o.UID == p.UID })
		if was >= 0 && restarts(p) == restarts(&before[was]) {
			return "pod " + p.Name + " has not begun anew", nil
		}
		if !slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue }) {
			return "pod " + p.Name + " is not ready", nil
		}
	}
	c, err := e.edges()
	if err != nil {
		return "", err
	}
	for key, want := range generation {
		o := &v1alpha1.AmbientEdge{}
		if err := c.Get(ctx, key, o); err != nil {
			return "", err
		}
		ready := meta.FindStatusCondition(o.Status.Conditions, v1alpha1.ConditionReady)
		if ready == nil || ready.Status != "True" || ready.ObservedGeneration < want {
			return fmt.Sprintf("AmbientEdge %s of generation %d: %+v", key, want, ready), nil
		}
	}
	return "", nil
}

// edges is a client that knows AmbientEdges.
func (e *events) edges() (client.Client, error) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	return client.New(e.w.Config, client.Options{Scheme: scheme})
}

func restarts(p *corev1.Pod) (n int32) {
	for _, s := range p.Status.ContainerStatuses {
		n += s.RestartCount
	}
	return n
}
