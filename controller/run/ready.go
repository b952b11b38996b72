package run

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// typedCache is a cache that is full when it has what no plan can do without. Kinds that come and go may never be read.
type typedCache struct {
	cache.Cache
	over <-chan struct{}
}

func (d *Denied) newCache(cfg *rest.Config, o cache.Options) (cache.Cache, error) {
	c, err := cache.New(cfg, o)
	if err != nil {
		return nil, err
	}
	return typedCache{c, d.over}, nil
}

// WaitForCacheSync waits for the kinds that have Go types. It is true too when all is over: who reads what is not there yet waits then, until he is stopped.
func (c typedCache) WaitForCacheSync(ctx context.Context) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-c.over:
			cancel()
		case <-ctx.Done():
		}
	}()
	var synced []toolscache.InformerSynced
	for _, kind := range watched() {
		if i := c.informer(ctx, kind); i != nil {
			synced = append(synced, i.HasSynced)
		}
	}
	if ctx.Err() == nil && toolscache.WaitForCacheSync(ctx.Done(), synced...) {
		return true
	}
	select {
	case <-c.over:
		return true
	default:
		return false
	}
}

// informer is that of a kind, nil when ctx ends first. It is asked for until it is there: a manager asks once whether its cache is full, and one to which
// the API server did not say which kinds there are, at that moment, would wait for ever, in silence.
func (c typedCache) informer(ctx context.Context, kind client.Object) cache.Informer {
	for ctx.Err() == nil {
		i, err := c.GetInformer(ctx, kind, cache.BlockUntilSynced(false))
		if err == nil {
			return i
		}
		log.FromContext(ctx).Info("objects are not watched yet", "kind", fmt.Sprintf("%T", kind), "reason", err.Error())
		select {
		case <-ctx.Done():
		case <-time.After(unknowing):
		}
	}
	return nil
}

// watched are the kinds that have Go types.
func watched() []client.Object { return append(kinds(), &v1alpha1.AmbientEdge{}) }

// hasRead says why a controller is not ready, or nil: it has not read the cluster yet. All replicas read it; which kinds of routes and gateways there are is found out by
// the one that leads. A manager begins to lead when its cache is full, so that one which does not lead yet may have read nothing.
func hasRead(mgr ctrl.Manager, f *feed) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for _, kind := range watched() {
		i, err := mgr.GetCache().GetInformer(ctx, kind, cache.BlockUntilSynced(false))
		if err != nil {
			return fmt.Errorf("read the cluster: %w", err)
		}
		if !i.HasSynced() {
			return fmt.Errorf("the cluster has not been read yet: %T", kind)
		}
	}
	select {
	case <-mgr.Elected():
	default:
		return nil
	}
	select {
	case <-f.ready:
		return nil
	default:
		return errors.New("the cluster has not been read yet: which kinds of routes and gateways there are is not known")
	}
}

var _ cache.Cache = typedCache{}
