package controllertest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/run"
)

// life is that of a controller which dies after its first write.
type life struct {
	once  sync.Once
	ended chan struct{}
}

var errDead = errors.New("this controller is dead")

// one lets the first write pass, and ends the life. Trying writes nothing.
func (l *life) one(dryRun []string, write func() error) error {
	if len(dryRun) > 0 {
		return write()
	}
	err := errDead
	l.once.Do(func() {
		err = write()
		close(l.ended)
	})
	return err
}

func (l *life) client(cfg *rest.Config, o client.Options) (client.Client, error) {
	c, err := client.NewWithWatch(cfg, o)
	if err != nil {
		return nil, err
	}
	return interceptor.NewClient(c, interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			return l.one((&client.CreateOptions{}).ApplyOptions(opts).DryRun, func() error { return c.Create(ctx, o, opts...) })
		},
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			return l.one((&client.DeleteOptions{}).ApplyOptions(opts).DryRun, func() error { return c.Delete(ctx, o, opts...) })
		},
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			return l.one((&client.PatchOptions{}).ApplyOptions(opts).DryRun, func() error { return c.Patch(ctx, o, p, opts...) })
		},
		Apply: func(ctx context.Context, c client.WithWatch, o runtime.ApplyConfiguration, opts ...client.ApplyOption) error {
			return l.one((&client.ApplyOptions{}).ApplyOptions(opts).DryRun, func() error { return c.Apply(ctx, o, opts...) })
		},
		SubResourcePatch: func(ctx context.Context, c client.Client, sub string, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
			return l.one(nil, func() error { return c.SubResource(sub).Patch(ctx, o, p, opts...) })
		},
	}), nil
}

// lives runs controllers, each until its first write, until done. It returns how many there were.
func (s *site) lives(done func() bool) int {
	s.t.Helper()
	for n := range 60 {
		l := &life{ended: make(chan struct{})}
		stop, err := runController(s.mesh, account, run.Options{Prober: shared.ask}, func(_ *rest.Config, mo *ctrl.Options) { mo.NewClient = l.client }, s.edge)
		if err != nil {
			s.t.Fatal(err)
		}
		for alive := true; alive; {
			select {
			case <-l.ended:
				alive = false
			case <-time.After(20 * time.Millisecond):
				alive = !done()
			}
		}
		stop()
		if done() {
			return n + 1
		}
	}
	s.t.Fatal("60 controllers have not done it")
	return 0
}

func TestControllerMayDieAfterEveryWrite(t *testing.T) {
	t.Parallel()
	s := kgatewaySite(t, "crash")
	s.own = true
	before := s.state(false)
	s.apply(edgeOfKgateway)
	n := s.lives(func() bool {
		return meta.IsStatusConditionTrue(s.get("public").Status.Conditions, v1alpha1.ConditionReady)
	})
	t.Logf("%d controllers made it ready", n)
	s.delete(s.theEdge("public"))
	n = s.lives(func() bool {
		return apierrors.IsNotFound(s.c.Get(t.Context(), client.ObjectKeyFromObject(s.theEdge("public")), s.theEdge("public")))
	})
	t.Logf("%d controllers undid it", n)
	s.same(before, false)
}
