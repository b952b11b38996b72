package run

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/isthmus-mesh/isthmus/controller/edge"
)

// rested says how a feed's rest came to its end.
type rested int

const (
	restOver  rested = iota // by the time
	restWoken               // a CRD has changed
	restEnded               // with the feed
)

// rest waits, and meanwhile tries kinds again that may not be read.
func (f *feed) rest(ctx context.Context, q queue, wait time.Duration) rested {
	over := time.After(wait)
	for {
		var again <-chan time.Time
		if f.reveal(ctx, q) {
			again = time.After(retried)
		}
		select {
		case <-ctx.Done():
			return restEnded
		case <-f.wake:
			return restWoken
		case <-over:
			return restOver
		case <-f.look:
		case <-again:
		}
	}
}

// refused is told that the API server refused to have a kind listed or watched: its objects are hidden from now on. Who waits for them is told. It does not
// block.
func (f *feed) refused(gr schema.GroupResource) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.blind = f.blind || gr == crdResource()
	for k, s := range f.watched {
		if k.Group != gr.Group || k.Resource != gr.Resource {
			continue
		}
		if !s.hidden {
			s.end() // the wait of who reads it, not the watch itself
		}
		s.refused, s.hidden = true, true
		f.watched[k] = s
	}
	select {
	case f.look <- struct{}{}:
	default: // it looks
	}
}

// reveal tells those whom it concerns of kinds that may not be read, and of those that may again, and says whether there are any of the former. These are
// watched anew each time, as a watch that was refused waits ever longer: until one was not refused before the next time, and has read what there is.
func (f *feed) reveal(ctx context.Context, q queue) (some bool) {
	f.mu.Lock()
	hidden := map[edge.Kind]span{}
	news := false
	for k, s := range f.watched {
		if !s.hidden {
			continue
		}
		hidden[k] = s
		news = news || !s.told
		s.told = true
		f.watched[k] = s
	}
	blind := f.blind && !f.blindTold
	f.blindTold = f.blindTold || blind
	f.mu.Unlock()
	if blind {
		log.FromContext(ctx).Info("CRDs may not be read: give the rights to list and watch them; until then the API server is asked which kinds it has", "resource", crdResource().String(), "every", unwatched)
	}
	for k, s := range hidden {
		switch {
		case !s.told: // it has just been refused
			if f.listed[k] = s.synced(); f.listed[k] {
				log.FromContext(ctx).Info("objects may be listed and not watched: give the right to watch them", "kind", k.Kind, "apiVersion", k.APIVersion(), "listedEvery", unwatched)
			} else {
				log.FromContext(ctx).Info("objects may not be read", "kind", k.Kind, "apiVersion", k.APIVersion())
			}
			some = true
		case s.refused && time.Since(s.begun) < f.pause(k, &s):
			some = true
		case s.refused:
			some = true
			f.listed[k] = s.synced()
			if err := f.anew(ctx, k, q); err != nil {
				log.FromContext(ctx).Info("it cannot be watched anew", "kind", k.Kind, "reason", err.Error())
			}
		case !s.synced(), f.listed[k] && time.Since(s.begun) < retried: // its watch is refused right after
			some = true
		default:
			news = f.unhide(k) || news
		}
	}
	if news {
		f.watch.everybody(q)
	}
	return some
}

// pause is how long a kind that may not be read is left before it is tried again. One that may be listed is listed anew by each try. It takes two tries to know
// that, unless it was so from the beginning: where the rights come in the middle of one, the list is given after the watch was refused.
func (f *feed) pause(k edge.Kind, s *span) time.Duration {
	if f.listed[k] && s.synced() {
		return unwatched
	}
	return retried
}

// anew ends the watch of a hidden kind, and begins it anew.
func (f *feed) anew(ctx context.Context, k edge.Kind, q queue) error {
	if err := f.end(ctx, k); err != nil {
		return err
	}
	if err := f.begin(ctx, k, q); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.watched[k]
	s.hidden, s.told = true, true
	f.watched[k] = s
	return nil
}

// unhide has a kind be read again, unless it has been refused meanwhile.
func (f *feed) unhide(k edge.Kind) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.watched[k]
	if s.refused {
		return false
	}
	s.hidden, s.told = false, false
	f.watched[k] = s
	return true
}
