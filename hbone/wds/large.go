package wds

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/isthmus-mesh/isthmus/hbone/route"
)

const (
	// largeDoublings is how often the time doubles for which what had a larger answer is not asked for: 30 s, up to 8 min.
	largeDoublings = 4
	// longestAsk is how long others wait while a group is asked for by itself.
	longestAsk = 10 * time.Second
	// largeBackoff is the longest pause before the next connection while it is being found out whose answer is too large.
	largeBackoff = time.Second
	// fewNames are asked for one by one when their common answer was too large; more are first asked for in groups.
	fewNames = 32
)

// tooBig notes answers that were too large, of one kind.
type tooBig struct {
	since time.Time // of the last one; zero: there was none, or what was asked for since was not
	times int
}

func (b *tooBig) again(now time.Time) { b.since, b.times = now, b.times+1 }

// left is how much longer it is not asked for, where the first time takes first.
func (b *tooBig) left(first time.Duration, now time.Time) time.Duration {
	if b.since.IsZero() {
		return 0
	}
	return max(0, first<<min(max(0, b.times-1), largeDoublings)-now.Sub(b.since))
}

// group is what is asked for by itself.
type group struct {
	names    []string
	policies bool
}

// apart is what is asked for in groups, one after the other, since an answer was too large and it is not known yet which one. Client.mu guards it.
type apart struct {
	groups   []group
	names    map[string]bool // in the groups, also in that which is in flight
	policies bool            // likewise
	asking   *group          // in flight: all else waits for its answer, but not for ever
}

// flying reports whether what was asked for at since may still be answered; zero: it was.
func flying(since, now time.Time) bool { return !since.IsZero() && now.Sub(since) < longestAsk }

// tooManyError is a response of more resources than are taken.
type tooManyError struct{ err error }

func (e *tooManyError) Error() string { return e.err.Error() }

// Unwrap gives the cause.
func (e *tooManyError) Unwrap() error { return e.err }

// isLarge reports whether a stream ended by a response that is larger than is taken, in bytes or in resources.
func isLarge(err error) bool {
	if _, many := errors.AsType[*tooManyError](err); many {
		return true
	}
	s, ok := status.FromError(err)
	return ok && s.Code() == codes.ResourceExhausted && strings.Contains(s.Message(), "larger than max")
}

// tooLarge finds out whose answer it was that ended the stream, or gets nearer to it: of what was in flight, else (and also with the first answer on a
// stream) of all that istiod tells of unasked. One name is given up for a while, as are policies; what is held of it stays. More are asked for in
// groups from now on. A Client that asks for all there is asks for what is used instead, for a while. It reports whether anything was found out.
func (c *Client) tooLarge(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.TooLarge++
	defer c.publish(func(*view) {}) // who waits for an answer is told, or asks in another way
	policies := !c.polsFlight.IsZero()
	if c.wildcard() && (!policies || !c.held.whole) {
		c.narrow(now)
		return true
	}
	var names []string
	for name, a := range c.names {
		if !a.flight.IsZero() {
			names = append(names, name)
		}
	}
	if !c.greeted.IsZero() || len(names) == 0 && !policies { // what is held may have changed, too
		names = names[:0]
		for name, a := range c.names {
			if c.together(name, a) {
				names = append(names, name)
			}
		}
		policies = policies || c.togetherPolicies()
	}
	slices.Sort(names)
	if g := c.apart.asking; g != nil {
		c.apart.asking = nil
		c.apart.free(*g)
	}
	switch {
	case len(names) == 0 && !policies:
		return false
	case len(names) == 0:
		c.polsLarge.again(now)
	case len(names) == 1 && !policies:
		c.names[names[0]].large.again(now)
	default:
		var groups []group
		for part := range slices.Chunk(names, partOf(len(names))) {
			groups = append(groups, group{names: part})
		}
		if policies {
			groups = append(groups, group{policies: true})
		}
		c.apart.first(groups...)
	}
	return true
}

// partOf is how many of n names are asked for at a time.
func partOf(n int) int {
	if n <= fewNames {
		return 1
	}
	return int(math.Ceil(math.Sqrt(float64(n))))
}

// first puts groups before all others.
func (p *apart) first(groups ...group) {
	for _, g := range groups {
		p.policies = p.policies || g.policies
		for _, name := range g.names {
			p.names[name] = true
		}
	}
	p.groups = append(groups, p.groups...)
}

// free lets what is in g be asked for with all else.
func (p *apart) free(g group) {
	for _, name := range g.names {
		delete(p.names, name)
	}
	p.policies = p.policies && !g.policies
}

// together reports whether a name may be asked for with others; mu is held.
func (c *Client) together(name string, a *asked) bool {
	return a.large.since.IsZero() && !c.apart.names[name]
}

// togetherPolicies is together, of policies.
func (c *Client) togetherPolicies() bool {
	return c.cfg.Policies && c.polsLarge.since.IsZero() && !c.apart.policies
}

// refusal is why a name is not asked for now; nil when it may be. mu is held.
func (c *Client) refusal(name string, a *asked, now time.Time) error {
	if a == nil || a.large.since.IsZero() {
		return nil
	}
	left := a.large.left(c.cfg.largeFor(), now)
	if left == 0 {
		c.retry(name, a)
		return nil
	}
	most := fmt.Sprint(c.cfg.maxMessage(), " bytes")
	if c.cfg.maxMessage() >= 1<<20 {
		most = fmt.Sprint(c.cfg.maxMessage()>>20, " MiB")
	}
	return fmt.Errorf("wds: istiod's answer for %s has more than %s, or too many resources, and is not taken; it is asked for again in %v: %w",
		name, most, left.Round(time.Second), c.stats.LastError)
}

// retry asks again, by itself, for a name whose answer was too large; mu is held.
func (c *Client) retry(name string, a *asked) {
	a.large.since = time.Time{}
	c.apart.first(group{names: []string{name}})
	c.stir()
}

// retryHeld asks again for what is held and was too large the last time: nobody else would, as it is answered from what is held.
func (c *Client) retryHeld(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	table := c.now.Load().table
	for name, a := range c.names {
		if c.wildcard() {
			break
		}
		if !a.large.since.IsZero() && a.large.left(c.cfg.largeFor(), now) == 0 && (a.pinned || table.Has(name)) {
			c.retry(name, a)
		}
	}
	if !c.polsLarge.since.IsZero() && c.polsLarge.left(c.cfg.largeFor(), now) == 0 {
		c.polsLarge.since = time.Time{}
		c.apart.first(group{policies: true})
		c.stir()
	}
}

// waits reports whether a group is in flight for which all else has to wait; mu is held.
func (c *Client) waits(now time.Time) bool {
	g := c.apart.asking
	if g == nil {
		return false
	}
	open := g.policies && flying(c.polsFlight, now)
	for _, name := range g.names {
		a := c.names[name]
		open = open || a != nil && flying(a.flight, now)
	}
	if open {
		return true
	}
	c.apart.asking = nil
	c.apart.free(*g)
	return false
}

// next is the next group, once nothing is in flight; nil when there is none. mu is held.
func (c *Client) next(now time.Time) *group {
	if len(c.apart.groups) == 0 || flying(c.polsFlight, now) || flying(c.greeted, now) {
		return nil
	}
	for _, a := range c.names {
		if flying(a.flight, now) {
			return nil
		}
	}
	for len(c.apart.groups) > 0 {
		g := c.apart.groups[0]
		c.apart.groups = c.apart.groups[1:]
		g.names = slices.DeleteFunc(g.names, func(name string) bool {
			gone := c.names[name] == nil // it was given up
			if gone {
				delete(c.apart.names, name)
			}
			return gone
		})
		if len(g.names) > 0 || g.policies {
			c.apart.asking = &g
			c.held.expect(g.names)
			return &g
		}
	}
	return nil
}

// regroup lets the stream see whether the next group may be asked for; mu is held.
func (c *Client) regroup() {
	if c.apart.asking != nil || len(c.apart.groups) > 0 {
		c.stir()
	}
}

// answers reports whether a response, which has those names, is the one to the group in flight.
func (c *Client) answers(names ...[]string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.apart.asking
	if g == nil || len(g.names) == 0 {
		return false
	}
	has := map[string]bool{}
	for _, list := range names {
		for _, name := range list {
			has[name] = true
		}
	}
	for _, name := range g.names {
		if c.names[name] != nil && !has[name] {
			return false
		}
	}
	return true
}

// expect notes what is held by names that are asked for without telling of it: what their answer does not have is gone.
func (h *held) expect(names []string) {
	h.expected = map[string]bool{}
	for _, name := range names {
		for _, r := range h.table.Under(name) {
			h.expected[r] = true
		}
	}
}

// known is the versions of what is held by names.
func (h *held) known(names []string) map[string]string {
	versions := map[string]string{}
	for _, name := range names {
		for _, r := range h.table.Under(name) {
			if v, ok := h.versions[r]; ok {
				versions[r] = v
			}
		}
	}
	return versions
}

// wildcard reports whether all there is is asked for now.
func (c *Client) wildcard() bool { return c.cfg.Wildcard && !c.narrowed.Load() }

// narrow makes a Client in wildcard ask for what is dialled, as an answer with all there is was too large. What was dialled of late is asked for at once; what
// is held stays, until it is dialled (and asked for) or was not for long. mu is held.
func (c *Client) narrow(now time.Time) {
	c.allLarge.again(now)
	c.narrowed.Store(true)
	used := map[string]bool{}
	c.ways.sweep(0, used)
	c.all.sweep(0, used)
	c.ways.forget() // look-ups that find nothing there come by follow
	c.all.forget()
	for name := range used {
		if c.names[name] == nil && len(c.names) <= c.cfg.maxNames() && strings.Contains(name, "/") && route.ValidName(name) { // others are hostnames, which istiod does not know things by
			c.names[name] = &asked{epoch: c.epoch.Load()}
		}
	}
}

// widen makes it ask for all there is again.
func (c *Client) widen() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.narrowed.Store(false)
	policies := c.apart.policies
	c.apart = apart{names: map[string]bool{}}
	if policies {
		c.apart.first(group{policies: true})
	}
	c.publish(func(v *view) { v.complete = false })
}

// whole notes that all there is has come; mu is held.
func (c *Client) whole() {
	c.allLarge = tooBig{}
	for name, a := range c.names {
		if !a.pinned {
			delete(c.names, name)
		}
	}
}

// follow subscribes to names that an answer was made of which is held since all was asked for, so that it is kept up to date. When there is no room for
// them it stays as it is.
func (c *Client) follow(names []string) {
	for _, name := range names {
		if strings.Contains(name, "/") {
			_ = c.ask(name)
		}
	}
}

// maxTold bounds the versions, and the names, that one request tells of: istiod takes messages of 4 MiB.
const maxTold = 3 << 20

// tooMuchToTell reports whether no request can tell of those versions.
func tooMuchToTell(versions map[string]string) bool {
	size := 0
	for name, version := range versions {
		size += len(name) + len(version) + 8
	}
	return size > maxTold
}

// parts are names as requests can hold them, in so many bytes each.
func parts(names []string, most int) [][]string {
	var list [][]string
	begin, size := 0, 0
	for i, name := range names {
		if size += len(name) + 8; size > most && i > begin {
			list = append(list, names[begin:i])
			begin, size = i, len(name)+8
		}
	}
	if begin < len(names) {
		list = append(list, names[begin:])
	}
	return list
}

// split leaves of sorted names those that a hello can hold; the others are asked for in groups.
func (c *Client) split(names []string) (first []string, more bool) {
	list := parts(names, maxTold/4) // the rest is for their versions
	if len(list) < 2 {
		return names, false
	}
	for _, part := range list[1:] {
		c.apart.groups = append(c.apart.groups, group{names: part})
		for _, name := range part {
			c.apart.names[name] = true
			c.names[name].flight = time.Time{}
		}
	}
	return list[0], true
}

// policiesRequest asks for all policies. What is held is told of, or istiod sends all that there are.
func (c *Client) policiesRequest(held map[string]string) *discovery.DeltaDiscoveryRequest {
	c.polsFlight = time.Now()
	return &discovery.DeltaDiscoveryRequest{Node: c.cfg.Node.proto(), TypeUrl: authorizationType, InitialResourceVersions: held}
}
