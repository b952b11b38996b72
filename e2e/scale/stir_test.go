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
)

// stirred is how many objects a second change.
const stirred = 100

// stir changes objects of all edges, until the function that it returns is called, which waits for the end of the churn and says what it cost
// the controller. What it changes is of no consequence, but that takes a plan to see: labels of Services, routes, namespaces and pods.
func stir(t *testing.T, c client.Client, p *process) (stop func() string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	began, before, cpu := time.Now(), p.reconciled(), p.cpu()
	heap := p.heap()
	var wg sync.WaitGroup
	wg.Go(func() {
		var each sync.WaitGroup
		defer each.Wait()
		for tick, i := time.NewTicker(time.Second/stirred), 0; ; i++ {
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
				each.Go(func() { nudge(ctx, c, i) })
			}
		}
	})
	return func() string {
		time.Sleep(time.Until(began.Add(*churn)))
		cancel()
		wg.Wait()
		took := time.Since(began)
		now, highest := p.mb()
		return fmt.Sprintf("in %v %d reconciliations, %.0f %% of a core, heap %d MB > %d MB, resident %d MB, at most %d MB", took.Round(time.Second),
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
