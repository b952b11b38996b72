package push

import (
	"context"
	"fmt"
	"sync"

	"github.com/isthmus-mesh/isthmus/identity"
)

// Latest is what an authority has said last. Methods may be called from several goroutines.
type Latest struct {
	notify chan struct{}

	mu   sync.Mutex // guards the fields below
	m    *identity.Material
	err  error
	news chan struct{} // closed with the next Set or Fail
}

// New is before anything came.
func New() *Latest { return &Latest{notify: make(chan struct{}, 1), news: make(chan struct{})} }

// Set says that the authority has given m.
func (l *Latest) Set(m *identity.Material) { l.put(m, nil) }

// Fail says that the authority is away, or has given nothing of use. What it gave before is no answer until the next Set.
func (l *Latest) Fail(err error) { l.put(nil, err) }

func (l *Latest) put(m *identity.Material, err error) {
	l.mu.Lock()
	l.m, l.err = m, err
	close(l.news)
	l.news = make(chan struct{})
	l.mu.Unlock()
	select {
	case l.notify <- struct{}{}:
	default:
	}
}

// Fetch gives what came last, and waits for the first to come until ctx ends.
func (l *Latest) Fetch(ctx context.Context) (*identity.Material, error) {
	for {
		l.mu.Lock()
		m, err, news := l.m, l.err, l.news
		l.mu.Unlock()
		if m != nil || err != nil {
			return m, err
		}
		select {
		case <-news:
		case <-ctx.Done():
			return nil, fmt.Errorf("nothing came from the authority: %w", context.Cause(ctx))
		}
	}
}

// Notify tells of each Set and Fail, several at once where nobody has listened.
func (l *Latest) Notify() <-chan struct{} { return l.notify }
