package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	ctl "github.com/isthmus-mesh/isthmus/controller/run"
)

// observeWatch shows all gateways, and again whenever that changes, until ctx ends.
func (a *app) observeWatch(ctx context.Context, f *observeFlags) error {
	done := a.progress("reading the cluster")
	doc, err := f.read(ctx) // which names the rights that are missing
	done()
	if err != nil {
		return err
	}
	a.notes(f.notes)
	outer := ctx
	ctx, cancel := context.WithCancelCause(outer)
	defer cancel(nil)
	r, wait, err := f.cache(ctx, cancel)
	if err != nil {
		return err
	}
	defer wait()
	defer cancel(nil)
	var shown []byte
	for tick := time.NewTicker(observeWatchPause); ; {
		text, err := json.Marshal(doc)
		if err != nil {
			return err
		}
		if !bytes.Equal(text, shown) {
			show := func(p *page) error {
				if len(doc.Gateways) == 0 {
					_, err := fmt.Fprintln(p.w, doc.nothing(f.kube.namespace))
					return err
				}
				return doc.print(p)
			}
			if err := a.showAgain(text, shown == nil, show); err != nil {
				return err
			}
			shown = text
		}
		select {
		case <-ctx.Done():
			tick.Stop()
			if outer.Err() != nil {
				return nil // that is how it ends
			}
			return explainKube("the cluster cannot be watched", "", context.Cause(ctx))
		case <-tick.C:
		}
		read, stop := context.WithTimeout(ctx, f.kube.timeout)
		next, err := f.from(read, r, "")
		stop()
		if ctx.Err() == nil && err != nil {
			return err
		} else if err == nil {
			doc = next
		}
	}
}

// cache reads the cluster once, and then what changes. It ends with ctx; wait waits for that. What forbids it is the cause with which it cancels.
func (f *observeFlags) cache(ctx context.Context, cancel context.CancelCauseFunc) (c cache.Cache, wait func(), err error) {
	scheme, err := ctl.Scheme()
	if err != nil {
		return nil, nil, err
	}
	cfg, _, err := f.kube.config()
	if err != nil {
		return nil, nil, err
	}
	c, err = cache.New(cfg, cache.Options{
		Scheme: scheme, ReaderFailOnMissingInformer: false,
		DefaultWatchErrorHandler: func(_ context.Context, _ *toolscache.Reflector, err error) {
			if apierrors.IsForbidden(err) {
				cancel(fmt.Errorf("watch: %w", err))
			}
		},
	})
	if err != nil {
		return nil, nil, explainKube("cannot watch the cluster", cfg.Host, err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := c.Start(ctx); err != nil {
			cancel(err)
		}
	})
	return c, wg.Wait, nil
}

// showAgain shows a document that has changed: on a terminal in place of the one before, else below it; JSON as one line.
func (a *app) showAgain(text []byte, first bool, show func(*page) error) error {
	if a.output == outputJSON {
		_, err := fmt.Fprintf(cleaner{w: a.stdout}, "%s\n", text)
		return err
	}
	p := a.page(a.stdout)
	switch {
	case p.width > 0 && !a.dumb():
		fmt.Fprint(a.stdout, "\x1b[H\x1b[2J")
	case !first:
		fmt.Fprintln(p.w)
	}
	fmt.Fprintln(p.w, p.paint(grey, time.Now().UTC().Format("2006-01-02T15:04:05Z")))
	return show(p)
}
