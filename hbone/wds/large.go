package wds

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// maxResponse is how many bytes a response may have.
	maxResponse = 64 << 20
	// largeFor is how long a name is not asked for whose answer was larger.
	largeFor = 30 * time.Second
	// longestAsk is how long others wait while a name is asked for by itself.
	longestAsk = 10 * time.Second
)

// isLarge reports whether a stream ended by a response that is larger than is taken.
func isLarge(err error) bool {
	s, ok := status.FromError(err)
	return ok && s.Code() == codes.ResourceExhausted && strings.Contains(s.Message(), "larger than max")
}

// tooLarge finds out whose answer it was that ended the stream: of one name in flight it was that one's, which is given up for largeFor. Several are
// asked for one by one from now on.
func (c *Client) tooLarge(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var flight []string
	for name, a := range c.names {
		if a.flight && !a.pinned {
			flight = append(flight, name)
		}
	}
	for _, name := range flight {
		c.alone[name] = true
	}
	if len(flight) == 1 {
		c.names[flight[0]].large = now
		c.publish(func(*view) {}) // who waits for it is told
	}
}

// together reports whether a name may be asked for with others; mu is held.
func (c *Client) together(name string, a *asked) bool { return a.large.IsZero() && !c.alone[name] }

// refusal is why a name is not asked for now; nil when it may be. mu is held.
func (c *Client) refusal(name string, a *asked, now time.Time) error {
	if a == nil || a.large.IsZero() {
		return nil
	}
	if now.Sub(a.large) >= largeFor {
		a.large = time.Time{}
		return nil
	}
	return fmt.Errorf("wds: istiod's answer for %s has more than %d MiB, and is not taken; it is asked for again in %v: %w",
		name, maxResponse>>20, (largeFor - now.Sub(a.large)).Round(time.Second), c.stats.LastError)
}

// lonely is a name that is to be asked for by itself, once nothing else is in flight; "" when there is none. mu is held.
func (c *Client) lonely() string {
	if len(c.alone) == 0 {
		return ""
	}
	for _, a := range c.names {
		if a.flight {
			return ""
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.alone)) {
		switch a := c.names[name]; {
		case a == nil: // it was given up
			delete(c.alone, name)
		case a.large.IsZero():
			return name
		}
	}
	return ""
}

// behind reports whether what is held by name is what one of names leads to.
func (c *Client) behind(name string, names map[string]bool) bool {
	return names[name] || slices.ContainsFunc(c.held.table.Names(name), func(alias string) bool { return names[alias] })
}
