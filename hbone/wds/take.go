package wds

import (
	"errors"
	"fmt"
	"maps"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"

	"github.com/isthmus-mesh/isthmus/hbone/authz"
	"github.com/isthmus-mesh/isthmus/hbone/route"
)

// held is what istiod told.
type held struct {
	table    *route.Table
	texts    texts
	versions map[string]string // of the Address resources in table
	policies map[string]*authz.Policy
	polVers  map[string]string
	badPols  map[string]badPolicy
	newPols  bool            // the stream is new: its first answer for policies is all that there is
	fresh    bool            // the stream is new and istiod was not told what is held: its first answer for addresses is all that there is
	freshOf  map[string]bool // of what is held; nil: of everything
	freshPol bool            // likewise for policies
	restored bool            // from a file, and istiod has not answered since
	dropped  map[string]bool // names unsubscribed of late: istiod may have sent them before it knew
	expected map[string]bool // what is held by the names of the group in flight
	whole    bool            // in wildcard: the stream has brought all there is
}

func newHeld() held {
	return held{
		table: route.NewTable(), versions: map[string]string{}, policies: map[string]*authz.Policy{}, polVers: map[string]string{},
		badPols: map[string]badPolicy{}, dropped: map[string]bool{},
	}
}

// maxComplaints bounds the errors that one NACK tells of.
const maxComplaints = 10

// maxUnread bounds the resources that are remembered as unreadable.
const maxUnread = 1000

// tooMany is the name of what stands for policies that there was no room for.
const tooMany = "others"

// complaints are the errors of one response.
type complaints struct {
	list []error
	more int
}

func (c *complaints) add(name string, err error) {
	if len(c.list) == maxComplaints {
		c.more++
		return
	}
	c.list = append(c.list, fmt.Errorf("%s: %w", name, err))
}

func (c *complaints) err() error {
	if c.more > 0 {
		return errors.Join(append(c.list, fmt.Errorf("and %d more", c.more))...)
	}
	return errors.Join(c.list...)
}

// take applies a response and returns its ACK, or its NACK: what could not be read keeps its old value.
func (c *Client) take(res *discovery.DeltaDiscoveryResponse) *discovery.DeltaDiscoveryRequest {
	var bad error
	switch res.GetTypeUrl() {
	case addressType:
		bad = c.takeAddresses(res)
	case authorizationType:
		bad = c.takePolicies(res)
	}
	select {
	case <-c.ready:
	default:
		close(c.ready)
	}
	ack := &discovery.DeltaDiscoveryRequest{TypeUrl: res.GetTypeUrl(), ResponseNonce: res.GetNonce()}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastErr = nil
	c.stats.answered(time.Now())
	if bad != nil {
		c.stats.Refused++
		c.stats.LastRefusal = bad
		c.cfg.logger().Warn("wds: a resource cannot be read; its old value stays", "error", bad)
		ack.ErrorDetail = &status.Status{Code: int32(codes.InvalidArgument), Message: bad.Error()}
	}
	return ack
}

func (c *Client) takeAddresses(res *discovery.DeltaDiscoveryResponse) error {
	h := &c.held
	var bad complaints
	unread := map[string]error{}
	var touched []string
	touch := func(name string) { // also the addresses that it had: it may be elsewhere now
		if c.wildcard() {
			return // nobody is asked for by name
		}
		touched = append(append(touched, name), h.table.Names(name)...)
	}
	answered := func(r *discovery.Resource, name string) { touched = append(append(touched, name), r.GetAliases()...) }
	var landed []string       // names whose answers came and could not be read
	lost := map[string]bool{} // Services that a pod has gone from
	var told map[string]bool
	if h.fresh || h.expected != nil {
		told = make(map[string]bool, len(res.GetResources()))
	}
	for _, r := range res.GetResources() {
		name := r.GetName()
		if told != nil {
			told[name] = true
		}
		if version := r.GetVersion(); version != "" && h.versions[name] == version {
			answered(r, name) // it was asked for anew, and is as it was
			continue
		}
		w, s, err := decodeAddress(r.GetResource().GetValue(), &h.texts)
		if err == nil {
			err = sameName(name, w, s)
		}
		_, known := h.versions[name] // a version may be empty
		if err == nil && !known && len(h.versions) >= c.cfg.maxResources() {
			err = fmt.Errorf("%d resources are held already, which is the limit (Config.MaxResources)", len(h.versions))
		}
		if err != nil {
			bad.add(name, err)
			if !known {
				unread[name] = err
			}
			landed = append(append(landed, name), r.GetAliases()...)
			continue
		}
		if h.dropped[name] && !c.wanted(r, w) {
			continue
		}
		touch(name)
		answered(r, name)
		if w != nil {
			for _, m := range w.Services { // they may have had none
				touched = append(touched, m.Service)
			}
			name = w.UID // one string less
			h.table.SetWorkload(w)
		} else {
			h.table.SetService(s)
		}
		h.versions[name] = h.texts.of([]byte(r.GetVersion()))
	}
	gone := res.GetRemovedResources()
	if h.fresh {
		for name := range h.versions {
			if !told[name] && (h.freshOf == nil || h.freshOf[name]) {
				gone = append(gone, name)
			}
		}
	}
	if h.expected != nil && c.answers(touched, landed, gone) {
		for name := range h.expected {
			if _, held := h.versions[name]; held && !told[name] {
				gone = append(gone, name)
			}
		}
		h.expected = nil
	}
	h.fresh, h.freshOf, h.restored = false, nil, false
	for _, name := range gone {
		touch(name)
		if w := h.table.WorkloadByUID(name); w != nil {
			for _, m := range w.Services {
				lost[m.Service] = true
			}
		}
		h.table.Remove(name)
		delete(h.versions, name)
	}
	if c.wildcard() {
		lost = nil // who asks for all is told of all
	}
	c.show(res, gone, touched, landed, unread, lost)
	return bad.err()
}

// show lets readers see the Address resources as they are now, and notes what is there of what was asked for.
func (c *Client) show(res *discovery.DeltaDiscoveryResponse, gone, touched, landed []string, unread map[string]error, lost map[string]bool) {
	table := c.held.table.Snapshot()
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.greeted = time.Time{}
	for _, name := range touched {
		a := c.names[name]
		if a == nil {
			continue
		}
		if !a.flight.IsZero() {
			a.large = tooBig{}
		}
		a.anew, a.flight, a.absent, a.told = false, time.Time{}, time.Time{}, now
		if !table.Has(name) || table.Empty(name) {
			a.absent = now
		}
	}
	for _, name := range landed {
		if a := c.names[name]; a != nil {
			a.flight = time.Time{}
		}
	}
	if c.wildcard() && !c.held.whole {
		c.held.whole = true
		c.whole()
	}
	if len(lost) > 0 {
		c.lostPods(table, lost)
	}
	if len(c.bad) > 0 {
		for _, r := range res.GetResources() {
			delete(c.bad, r.GetName())
		}
		for _, name := range gone {
			delete(c.bad, name)
		}
	}
	for name, err := range unread {
		if len(c.bad) < min(maxUnread, c.cfg.maxResources()) {
			c.bad[name] = err
		}
	}
	c.regroup()
	c.publish(func(v *view) { v.table, v.online, v.complete = table, true, true })
}

// wanted reports whether a resource that was unsubscribed is asked for again: itself, or the Service that it is an endpoint of.
func (c *Client) wanted(r *discovery.Resource, w *route.Workload) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	want := c.names[r.GetName()] != nil
	for _, alias := range r.GetAliases() {
		want = want || c.names[alias] != nil
	}
	if w != nil {
		for _, m := range w.Services {
			want = want || c.names[m.Service] != nil || c.held.table.Service(m.Service) != nil
		}
	}
	if want {
		delete(c.held.dropped, r.GetName())
	}
	return want
}

// sameName refuses what has another name inside: it could not be removed by the name that istiod knows it by.
func sameName(name string, w *route.Workload, s *route.Service) error {
	var inside string
	if w != nil {
		inside = w.UID
	} else {
		inside = s.Key()
	}
	if inside != name {
		return fmt.Errorf("it is called %q inside", inside)
	}
	return nil
}

func (c *Client) takePolicies(res *discovery.DeltaDiscoveryResponse) error {
	h := &c.held
	var bad complaints
	if h.newPols {
		clear(h.badPols)
	}
	for _, r := range res.GetResources() {
		name := r.GetName()
		p, err := decodeAuthorization(r.GetResource().GetValue())
		if err == nil && h.policies[name] == nil && len(h.policies) >= c.cfg.maxResources() {
			err = fmt.Errorf("%d policies are held already, which is the limit (Config.MaxResources)", len(h.policies))
		}
		if err != nil {
			bad.add(name, err)
			switch {
			case h.policies[name] != nil:
			case len(h.badPols) < min(maxUnread, c.cfg.maxResources()):
				h.badPols[name] = badPolicy{err, p.Scope}
			default: // one that stands for all others, and denies as they might
				h.badPols[tooMany] = badPolicy{errors.New("there are more such policies than are remembered"), authz.ScopeGlobal}
			}
			continue
		}
		h.policies[name] = p
		h.polVers[name] = r.GetVersion()
		delete(h.badPols, name)
	}
	gone := res.GetRemovedResources()
	if h.freshPol {
		told := map[string]bool{}
		for _, r := range res.GetResources() {
			told[r.GetName()] = true
		}
		for name := range h.policies {
			if !told[name] {
				gone = append(gone, name)
			}
		}
	}
	h.freshPol = false
	for _, name := range gone {
		delete(h.policies, name)
		delete(h.polVers, name)
		delete(h.badPols, name)
	}
	h.newPols = false
	policies, badPols := maps.Clone(h.policies), maps.Clone(h.badPols)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.polsFlight, c.polsLarge = time.Time{}, tooBig{}
	c.regroup()
	c.publish(func(v *view) { v.policies, v.badPols, v.allPols = policies, badPols, true })
	return bad.err()
}
