package wds

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/isthmus-mesh/isthmus/hbone/authz"
)

// Authorizer decides connections to one workload by the policies that istiod sends.
type Authorizer struct {
	c   *Client
	own netip.Addr
	// Wait is how long Decide waits for policies that the workload lists and that are not here; afterwards it denies. Zero means 5 s; negative
	// does not wait.
	Wait time.Duration
	// Lenient skips policies that are not here, as ztunnel does, instead of denying.
	Lenient bool
	// Names gives a source's other names, such as identity.Source.Names with Trust.Aliases: what a policy says of one holds for all. Nil compares
	// principals as ztunnel does, to which a peer of an aliased trust domain is another: a DENY of it by its other name does not hold.
	Names func(spiffeid.ID) []spiffeid.ID

	mu         sync.Mutex // guards the fields below
	version    uint64
	set        *authz.Set
	unreadable string
}

// Authorizer returns an Authorizer for the workload at own. The Client needs Config.Policies.
func (c *Client) Authorizer(own netip.Addr) *Authorizer { return &Authorizer{c: c, own: own} }

// Changed returns a channel that is closed when a policy or the workload may have changed: decide open tunnels anew then.
func (a *Authorizer) Changed() <-chan struct{} { return a.c.Changed() }

// Decide answers for one connection. It blocks while istiod has not told all that the answer needs, at most Wait or until ctx ends, and
// then denies, saying what is missing.
func (a *Authorizer) Decide(ctx context.Context, conn authz.Conn) authz.Decision {
	if !a.c.cfg.Policies {
		return authz.Decision{Rule: -1, Missing: true, Reason: "the Client asks for no policies: set Config.Policies"}
	}
	ctx, cancel := context.WithTimeout(ctx, max(0, cmp.Or(a.Wait, 5*time.Second)))
	defer cancel()
	for {
		changed := a.c.Changed()
		set, missing := a.current(ctx)
		if missing == "" {
			return set.Decide(a.named(conn))
		}
		select {
		case <-changed:
			continue
		case <-a.c.done:
		case <-ctx.Done():
		}
		return authz.Decision{Rule: -1, Missing: true, Reason: missing + " is not here yet; denied until it is"}
	}
}

// named is conn with its source's other names.
func (a *Authorizer) named(conn authz.Conn) authz.Conn {
	if a.Names != nil && !conn.Source.IsZero() {
		conn.Also = append(slices.Clip(conn.Also), a.Names(conn.Source)...)
	}
	return conn
}

// current is the set for what is known now, or what is missing.
func (a *Authorizer) current(ctx context.Context) (*authz.Set, string) {
	// Read first: what changes from here on makes the set that is built below an old one.
	version := a.c.now.Load().version
	w, err := a.c.Workload(ctx, a.own)
	if err != nil {
		return nil, fmt.Sprintf("the workload itself (%v)", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.set == nil || a.version != version {
		v := a.c.now.Load()
		if !v.allPols {
			return nil, "the list of policies"
		}
		policies := slices.Collect(maps.Values(v.policies))
		a.set, a.version, a.unreadable = authz.NewSet(policies, w.Namespace, w.Policies), version, v.unreadable(w.Namespace)
	}
	switch m := a.set.Missing(); {
	case a.Lenient:
	case a.unreadable != "":
		return nil, "policy " + a.unreadable
	case len(m) > 0:
		return nil, "policy " + strings.Join(m, ", ")
	}
	return a.set, ""
}
