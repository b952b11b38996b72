package wds

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/route"
)

// asked is a name that istiod was asked for.
type asked struct {
	absent time.Time // when istiod said that there is nothing, or a Service without pods; zero: it did not
	anew   bool      // asked for again since
	pinned bool      // never given up
	told   time.Time // when istiod answered last; zero: not yet
	epoch  int64     // when it was last asked for
	flight time.Time // when it was asked for on this stream; zero: it was not, or the answer is there
	large  tooBig    // its own answer
	came   bool      // istiod has answered for it, so that it could be read or not
	hello  bool      // this stream has begun with asking for it
}

// settled reports whether istiod, which has answered on this stream, has said what there is by that name, or that is too large.
func (a *asked) settled() bool { return a != nil && (a.came || a.hello || !a.large.since.IsZero()) }

// namesOf is what a look-up looked at.
func namesOf(w *route.Ways, err error) []string {
	if final, ok := errors.AsType[*route.Error](err); ok {
		return final.Names
	}
	if w == nil {
		return nil
	}
	return w.Names()
}

// unsettled is those of the names, which an answer hangs on, that istiod has to be asked for before that answer counts: an address that came with something
// else may be that of others too, and what is held since all was asked for is kept up to date no more.
func (c *Client) unsettled(v *view, names []string) []string {
	narrowed := c.narrowed.Load()
	if c.wildcard() || len(names) == 0 {
		return nil
	}
	if _, isAddress := route.ParseNetAddr(names[0]); !narrowed {
		if !isAddress {
			return nil
		}
		names = names[:1]
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []string
	for _, name := range names {
		// Others are hostnames, which istiod does not know things by.
		if strings.Contains(name, "/") && route.ValidName(name) && !c.names[name].settled() {
			list = append(list, name)
		}
	}
	return list
}

// absentIn says of names that istiod has nothing by them.
func (c *Client) absentIn(v *view) func(name string) bool {
	if c.wildcard() {
		return func(string) bool { return v.complete }
	}
	return func(name string) bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.isAbsent(name, v.online)
	}
}

// isAbsent says of a name that istiod has nothing by it: for a short while after it said so, and for as long as it is away. mu is held.
func (c *Client) isAbsent(name string, online bool) bool {
	a := c.names[name]
	if a == nil {
		return false
	}
	a.epoch = c.epoch.Load()
	return !a.absent.IsZero() && (!online || !c.expired(a))
}

// expired reports whether an absence was remembered for long enough; mu is held.
func (c *Client) expired(a *asked) bool {
	return !a.absent.IsZero() && time.Since(a.absent) >= c.cfg.absentFor()
}

// offline notes that the stream has ended; mu is not held.
func (c *Client) offline() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now.Load().online { // who waits for an absent name to be asked for anew takes the old answer
		c.publish(func(v *view) { v.online = false })
	}
}

// ask subscribes to names that are not known.
func (c *Client) ask(names ...string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	table, now := c.now.Load().table, time.Now()
	for _, name := range names {
		if c.wildcard() {
			break // it has all, or will
		}
		if !route.ValidName(name) { // no message could hold it
			return fmt.Errorf("wds: istiod cannot be asked for %.100q", name)
		}
		a := c.names[name]
		if err := c.refusal(name, a, now); err != nil {
			return err
		}
		switch {
		case a == nil && len(c.names) > c.cfg.maxNames() && !c.evict(now): // one is our own
			return fmt.Errorf("wds: %d names are asked for already, which is the limit (Config.MaxNames)", c.cfg.maxNames())
		case a == nil && table.Has(name): // a Service without pods that came by another name
			a = &asked{}
			c.names[name] = a
			c.renew(name)
		case a == nil:
			a = &asked{}
			c.names[name] = a
			c.pending = append(c.pending, name)
		case c.expired(a) && !a.anew:
			c.renew(name)
		}
		a.epoch = c.epoch.Load()
	}
	c.stir()
	return nil
}

// stir lets the stream look for names to ask for.
func (c *Client) stir() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// pin keeps a name that was asked for.
func (c *Client) pin(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if a := c.names[name]; a != nil {
		a.pinned = true
	}
}

// evict forgets the names that led nowhere and that were not asked for again; it reports whether there were any. When there were none it does not look again
// for a while: who is asked for thousands of names that nobody has must not go through all others each time. mu is held.
func (c *Client) evict(now time.Time) bool {
	if now.Before(c.full) {
		return false
	}
	n, table := len(c.names), c.now.Load().table
	for name, a := range c.names {
		// What is held stays subscribed to, also a Service without pods: it would be served as it was for ever.
		if !a.pinned && c.expired(a) && !table.Has(name) {
			delete(c.names, name)
			c.again = append(c.again, name)
		}
	}
	if len(c.names) == n {
		c.full = now.Add(c.cfg.absentFor() / 16)
		return false
	}
	return true
}
