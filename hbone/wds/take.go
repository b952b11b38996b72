package wds

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"

	"github.com/isthmus-mesh/isthmus/hbone/authz"
	"github.com/isthmus-mesh/isthmus/hbone/route"
)

// held is what istiod told.
type held struct {
	table        *route.Table
	texts        texts
	versions     map[string]string // of the Address resources in table
	policies     map[string]*authz.Policy
	polVers      map[string]string
	badPols      map[string]badPolicy
	more         weights         // of Address resources
	morePols     weights         // of policies
	newPols      bool            // the stream is new: its first answer for policies is all that there is
	fresh        bool            // the stream is new and istiod was not told what is held: its first answer for addresses is all that there is
	freshOf      map[string]bool // of what is held; nil: of everything
	freshPol     bool            // likewise for policies
	restored     bool            // from a file, and istiod has not answered for addresses since
	restoredPols bool            // likewise for policies
	dropped      map[string]bool // names unsubscribed of late: istiod may have sent them before it knew
	expected     map[string]bool // what is held by the names of the group in flight
	whole        bool            // in wildcard: the stream has brought all there is
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

func (c *complaints) add(name string, err error) error {
	err = short(err)
	if len(c.list) == maxComplaints {
		c.more++
		return err
	}
	c.list = append(c.list, fmt.Errorf("%s: %w", clip(name), err))
	return err
}

// maxComplaint bounds the bytes of an error, and of a name in it: what cannot be read may have any length, and istiod takes messages of 4 MiB.
const maxComplaint = 512

// short is err, or as much of its text as is kept.
func short(err error) error {
	if text := err.Error(); len(text) > maxComplaint {
		return errors.New(clip(text))
	}
	return err
}

func clip(text string) string {
	if len(text) <= maxComplaint {
		return text
	}
	return strings.ToValidUTF8(text[:maxComplaint], "") + "..."
}

// longestName is how many bytes the name of a resource may have. The longest that Kubernetes makes has some 1,000.
const longestName = 4096

// fits is an error when there is no room for a resource, which may be held already.
func (c *Client) fits(held, size int, more *weights, name string, known bool) error {
	count := held + more.sum - more.of[name] + weight(size)
	if !known {
		count++
	}
	switch {
	case len(name) > longestName:
		return fmt.Errorf("its name has %d bytes, of which %d are allowed", len(name), longestName)
	case count > c.cfg.maxResources() && (!known || weight(size) > more.of[name]):
		return fmt.Errorf("%d resources are held already, which is the limit (Config.MaxResources, where one of more than 1 KiB counts as several)", held+more.sum)
	}
	return nil
}

// weights is as how many resources more those count that are larger than 1 KiB, by name.
type weights struct {
	of  map[string]int
	sum int
}

func weight(size int) int { return max(0, size-1) >> 10 }

// set notes the size of a resource; 0 when it is held no more.
func (w *weights) set(name string, size int) {
	w.sum -= w.of[name]
	delete(w.of, name)
	if n := weight(size); n > 0 {
		if w.of == nil {
			w.of = map[string]int{}
		}
		w.of[name] = n
		w.sum += n
	}
}

// holds notes an Address resource.
func (h *held) holds(name, version string, size int) {
	h.versions[name] = version
	h.more.set(name, size)
}

// lets takes an Address resource away.
func (h *held) lets(name string) {
	h.table.Remove(name)
	delete(h.versions, name)
	h.more.set(name, 0)
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
		size := len(r.GetResource().GetValue())
		if err == nil {
			err = c.fits(len(h.versions), size, &h.more, name, known)
		}
		if err != nil {
			if err = bad.add(name, err); !known && len(name) <= longestName {
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
		h.holds(name, h.texts.of([]byte(r.GetVersion())), size)
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
		h.lets(name)
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
		a.anew, a.flight, a.absent, a.told, a.came = false, time.Time{}, time.Time{}, now, true
		if !table.Has(name) || table.Empty(name) {
			a.absent = now
		}
	}
	for _, name := range landed {
		if a := c.names[name]; a != nil {
			a.flight, a.came = time.Time{}, true
		}
	}
	if c.wildcard() && !c.held.whole {
		c.held.whole = true
		c.had.Store(true)
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
		if err == nil && p.Key() != name { // it could not be removed by the name that istiod knows it by
			err = fmt.Errorf("it is called %q inside", p.Key())
		}
		size := len(r.GetResource().GetValue())
		if err == nil {
			err = c.fits(len(h.policies), size, &h.morePols, name, h.policies[name] != nil)
		}
		if err != nil {
			err = bad.add(name, err)
			switch {
			case h.policies[name] != nil:
			case len(h.badPols) < min(maxUnread, c.cfg.maxResources()) && len(name) <= longestName:
				h.badPols[name] = badPolicy{err, p.Scope}
			default: // one that stands for all others, and denies as they might
				h.badPols[tooMany] = badPolicy{errors.New("there are more such policies than are remembered"), authz.ScopeGlobal}
			}
			continue
		}
		h.policies[name] = p
		h.polVers[name] = r.GetVersion()
		h.morePols.set(name, size)
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
	h.freshPol, h.restoredPols = false, false
	for _, name := range gone {
		h.morePols.set(name, 0)
		delete(h.policies, name)
		delete(h.polVers, name)
		delete(h.badPols, name)
	}
	h.newPols = false
	policies, badPols := maps.Clone(h.policies), maps.Clone(h.badPols)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.polsFlight, c.polsLarge, c.policiesFrom = time.Time{}, tooBig{}, time.Time{}
	c.regroup()
	c.publish(func(v *view) { v.policies, v.badPols, v.allPols = policies, badPols, true })
	return bad.err()
}
