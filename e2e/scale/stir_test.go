package scale

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/e2e/world"
)

const (
	stirred = 100 // objects that change in a second
	atOnce  = 50  // of them, at most: an API server that cannot keep up is not flooded, which nobody would learn anything from
)

// stir changes objects of all edges, until the function that it returns is called, which waits for the end of the churn and says what it cost
// the controller. What it changes is of no consequence, but that takes a plan to see: labels of Services, routes, namespaces and pods.
func stir(t *testing.T, c client.Client, p *process) (stop func() string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	began, before, cpu := time.Now(), p.reconciled(), p.cpu()
	heap := p.heap()
	var wg sync.WaitGroup
	made := 0
	wg.Go(func() {
		var each sync.WaitGroup
		defer each.Wait()
		room := make(chan struct{}, atOnce)
		for tick := time.NewTicker(time.Second / stirred); ; made++ {
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
			}
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case room <- struct{}{}:
			}
			i := made
			each.Go(func() {
				defer func() { <-room }()
				nudge(ctx, c, i)
			})
		}
	})
	return func() string {
		time.Sleep(time.Until(began.Add(*churn)))
		cancel()
		wg.Wait()
		took := time.Since(began)
		rate := float64(made) / took.Seconds()
		if seen := fmt.Sprintf("of %d objects that should change in a second at least half do: %.0f did", stirred, rate); rate < stirred/2 && world.Judge(t, seen) {
			t.Error(seen)
		}
		now, highest := p.mb()
		return fmt.Sprintf("%.0f did; in %v %d reconciliations, %.0f %% of a core, heap %d MB > %d MB, resident %d MB, at most %d MB", rate, took.Round(time.Second),
			p.reconciled()-before, 100*(p.cpu()-cpu).Seconds()/took.Seconds(), heap, p.heap(), now, highest)
	}
}

// nudge changes one object. An error is no matter: others change.
func nudge(ctx context.Context, c client.Client, i int) {
	n := i * 7 % *services
	o := []client.Object{&corev1.Service{}, &gatewayv1.HTTPRoute{}, &corev1.Pod{}, &corev1.Namespace{}}[i%4]
	o.SetNamespace(fmt.Sprintf("shop-%d", shopOf(n)))
	o.SetName(fmt.Sprintf("service-%d", n))
	if _, ok := o.(*corev1.Namespace); ok {
		o.SetName(o.GetNamespace())
		o.SetNamespace("")
	}
	_ = c.Patch(ctx, o, client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"labels":{"test/stirred":"%d"}}}`, i)))
}
