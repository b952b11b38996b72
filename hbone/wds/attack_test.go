package wds

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/isthmus-mesh/isthmus/hbone/authz"
	"github.com/isthmus-mesh/isthmus/hbone/route"
	"github.com/isthmus-mesh/isthmus/hbone/wds/internal/encode"
	"github.com/isthmus-mesh/isthmus/hbone/wds/wdstest"
)

// change is idle with another configuration.
func change(t testing.TB, edit func(*Config)) *Client {
	c := idle(t)
	edit(&c.cfg)
	c.src = c.cfg.source()
	return c
}

var noon = time.Unix(1_800_000_000, 0)

// A file's policies stand until istiod has said which there are, however often the connection ends before, and however little else it says.
func TestAPolicyThatWentWhileWeWereAway(t *testing.T) {
	c := idle(t)
	c.take(response(addressType, nil, map[string]msg{"uid": aPod, "shop/cart": aService}))
	c.take(response(authorizationType, nil, map[string]msg{"shop/p": policy(nil)}))
	file := c.snapshot(noon)
	again := idle(t)
	if err := again.load(file, noon); err != nil || again.Stats().Policies != 1 {
		t.Fatalf("%v, %+v", err, again.Stats())
	}
	again.hello()
	again.take(response(addressType, nil, map[string]msg{"uid": aPod, "shop/cart": aService}))
	again.hello() // of the next connection
	again.take(response(authorizationType, nil, nil))
	if st := again.Stats(); st.Policies != 0 || st.Services != 1 {
		t.Errorf("%+v", st)
	}
}

// Policies are as old as what istiod said of them, also where other things are newer; and where nobody asks for policies, none are kept from before.
func TestAFileMakesNoPolicyYounger(t *testing.T) {
	c := idle(t)
	c.take(response(addressType, nil, map[string]msg{"shop/cart": aService}))
	c.take(response(authorizationType, nil, map[string]msg{"shop/p": policy(nil)}))
	first := c.snapshot(noon)
	second := func(policies bool) []byte {
		c := change(t, func(c *Config) { c.Policies = policies })
		if err := c.load(first, noon); err != nil {
			t.Fatal(err)
		}
		c.hello()
		c.take(response(addressType, nil, map[string]msg{"shop/cart": aService}))
		return c.snapshot(noon.Add(2 * time.Hour))
	}
	third := change(t, func(c *Config) { c.SnapshotMaxAge = time.Hour })
	if err := third.load(second(true), noon.Add(2*time.Hour)); err == nil || !strings.Contains(err.Error(), "too long ago") {
		t.Errorf("policies of two hours ago: %v", err)
	}
	if err := third.load(second(false), noon.Add(2*time.Hour)); err != nil || third.Stats().Policies != 0 || third.now.Load().allPols || third.Stats().Services != 1 {
		t.Errorf("policies that nobody asked for: %v, %+v", err, third.Stats())
	}
}

// Only of a file that holds all there is can be said what there is not.
func TestANarrowedFileIsNotAllThereIs(t *testing.T) {
	all := func(c *Config) { c.Wildcard, c.Passthrough = true, true }
	for name, narrowed := range map[string]bool{"all there is": false, "narrowed": true} {
		t.Run(name, func(t *testing.T) {
			c := change(t, all)
			c.take(response(addressType, nil, map[string]msg{"uid": aPod, "shop/cart": aService}))
			if narrowed {
				c.mu.Lock()
				c.narrow(time.Now())
				c.mu.Unlock()
			}
			again := change(t, all)
			if err := again.load(c.snapshot(noon), noon); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			r, err := again.Resolve(ctx, "tcp", "10.96.0.66:80")
			if narrowed && (err == nil || !errors.Is(err, context.DeadlineExceeded)) || !narrowed && (err != nil || !r.Direct.IsValid()) {
				t.Errorf("%+v, %v", r, err)
			}
			if r, err = again.Resolve(ctx, "tcp", "10.96.0.1:80"); err != nil || len(r.Hops) != 1 {
				t.Errorf("what it holds: %+v, %v", r, err)
			}
		})
	}
}

// A Client that asked for all there is and asks for what is dialled now asks before it answers: nobody has told it what became of the rest.
func TestTheFirstDialOfANarrowedClient(t *testing.T) {
	w := newLarge(t, 5, func(c *Config) { c.Wildcard, c.largeTime = true, time.Minute })
	w.dial(0)
	for i := range 2 {
		sick := wdstest.FillWorkload(3, i)
		sick.Unhealthy = true
		w.istiod.SetWorkload(sick)
	}
	w.until("a Service without a healthy pod", func() bool { return w.dial(3) != nil })
	w.ways.forget() // who was not dialled of late is not asked for at once
	w.istiod.SetRaw(wdstest.AddressType, "shop/huge", oversized(), "/192.0.2.66")
	w.until("it asks for what is dialled", func() bool { st := w.Stats(); return st.Narrowed && st.Online })
	w.moves(2, 9002)
	for i := range 2 {
		w.istiod.SetWorkload(wdstest.FillWorkload(3, i))
	}
	pod := wdstest.FillWorkload(4, 0)
	pod.Policies = []string{"team-4/new"}
	w.istiod.SetWorkload(pod)
	if got := w.target(2); got != "9002" {
		t.Errorf("the first dial goes to port %s, as it was", got)
	}
	if err := w.dial(3); err != nil {
		t.Errorf("the first dial of what has healed: %v", err)
	}
	if got, err := w.Workload(soon(t), pod.Addresses[0]); err != nil || len(got.Policies) != 1 {
		t.Errorf("a workload is %+v, %v", got, err)
	}
	w.istiod.Stop()
	w.until("istiod is away", func() bool { return !w.Stats().Online })
	if err := w.dial(1); err != nil {
		t.Errorf("what is held, while nobody can be asked: %v", err)
	}
}

// However a Service is spelled, it is held once; who dials is told what he dialled.
func TestSpellingsAreOneEntry(t *testing.T) {
	c := change(t, func(c *Config) { c.Wildcard = true })
	c.take(response(addressType, nil, map[string]msg{
		wdstest.FillWorkload(0, 0).UID: encode.Workload(wdstest.FillWorkload(0, 0)), wdstest.FillService(0).Key(): encode.Service(wdstest.FillService(0)),
	}))
	host, port, _ := strings.Cut(addressOf(0), ":")
	spellings := []string{addressOf(0)}
	for i := range 8 {
		spellings = append(spellings, strings.ToUpper(host[:i])+host[i:]+":"+port, host+".:"+strings.Repeat("0", i)+port, fmt.Sprintf("ns%d/%s:%s", i, host, port))
	}
	first, err := c.Resolve(t.Context(), "tcp", spellings[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range spellings {
		r, err := c.Resolve(t.Context(), "tcp", s)
		if err != nil || r.Target != s || &r.Hops[0] != &first.Hops[0] {
			t.Errorf("%s: %+v, %v", s, r, err)
		}
		if !c.Admits(r) {
			t.Errorf("%s is no way to %s", s, r.Target)
		}
	}
	if a, b := c.ways.now.Load().taken, c.all.now.Load().taken; a != 1 || b != 1 {
		t.Errorf("%d and %d entries", a, b)
	}
}

// A cache is bounded by what it holds, and not by the number of addresses alone: a large Service has as many ends with each of its ports.
func TestCacheIsBoundedByEnds(t *testing.T) {
	const pods = 5000
	table := route.NewTable()
	s := wdstest.FillService(0)
	table.SetService(s)
	for i := range pods {
		w := wdstest.FillWorkload(0, 0)
		w.UID, w.Addresses = fmt.Sprint("uid-", i), []netip.Addr{netip.AddrFrom4([4]byte{20, 1, byte(i >> 8), byte(i)})}
		table.SetWorkload(w)
	}
	v := &view{table: table.Snapshot(), version: 1}
	w, err := v.table.Ways(route.Source{}, addressOf(0), func(string) bool { return false })
	if err != nil || w.Len() != pods+1 {
		t.Fatal(w.Len(), err)
	}
	var c cache
	for i := range 3 * maxEnds / pods {
		c.put(fmt.Sprint(i), w, v, 0)
		if x := c.now.Load(); x.ends > maxEnds || x.ends != x.taken*(pods+1) {
			t.Fatalf("%d ends of %d addresses", x.ends, x.taken)
		}
		c.put(fmt.Sprint(i), w, v, 0) // in its own place
	}
}

// What is wrong may have any length; what is kept and told of it has not.
func TestComplaintsAreShort(t *testing.T) {
	c := idle(t)
	long := strings.Repeat("x", 5<<20)
	ack := c.take(response(addressType, nil, map[string]msg{
		"a": msg{}.bytes(2, msg{}.str(3, long)), "b": msg{}.bytes(1, msg{}.str(20, long)), long: aService, "shop/" + long: msg{}.bytes(2, msg{}.str(2, "shop").str(3, long)),
	}))
	pols := c.take(response(authorizationType, nil, map[string]msg{"a": msg{}.str(1, long).str(2, long), long: {0xff}, "shop/" + long: msg{}.str(1, long).str(2, "shop")}))
	for _, m := range []proto.Message{ack, pols} {
		if n := proto.Size(m); n < 100 || n > 16<<10 {
			t.Errorf("a NACK of %d bytes", n)
		}
	}
	for name, err := range c.bad {
		if len(name)+len(err.Error()) > 8<<10 {
			t.Errorf("%d bytes of an error are kept", len(name)+len(err.Error()))
		}
	}
	if v := c.now.Load(); v.table.Service("shop/"+long) != nil || len(v.policies) > 0 || v.badPols[tooMany].err == nil || len(v.badPols) != 2 {
		t.Errorf("%d policies, %d unreadable", len(v.policies), len(v.badPols))
	}
	c.held.texts.of([]byte(long))
	if len(c.held.texts.known[long]) > 0 {
		t.Error("a long text is kept to be shared")
	}
}

// A policy that is called otherwise inside could not be taken away again by the name that istiod knows it by.
func TestAPolicyOfAnotherName(t *testing.T) {
	c := idle(t)
	ack := c.take(response(authorizationType, nil, map[string]msg{"shop/q": policy(nil)}))
	if !strings.Contains(ack.GetErrorDetail().GetMessage(), `it is called "shop/p" inside`) || len(c.now.Load().policies) > 0 {
		t.Errorf("%v", ack)
	}
}

// What a Client says first fits into the messages that istiod takes, whatever it was asked for and holds.
func TestAHelloIsBounded(t *testing.T) {
	c := change(t, func(c *Config) { c.MaxNames = 20_000 })
	for i := range 12_000 {
		c.names[fmt.Sprintf("shop/%0490d", i)] = &asked{}
	}
	for i := range 90_000 {
		c.held.polVers[fmt.Sprintf("shop/%060d", i)] = "1"
	}
	asked := map[string]bool{}
	check := func(what string, list []proto.Message) {
		for _, m := range list {
			if n := proto.Size(m); n > 4<<20 {
				t.Errorf("%s has %d bytes", what, n)
			}
		}
	}
	hello := c.hello()
	for _, req := range hello {
		check("a hello", []proto.Message{req})
		for _, name := range req.GetResourceNamesSubscribe() {
			asked[name] = true
		}
	}
	if !c.held.freshPol {
		t.Error("policies that istiod was not told of are not compared with those that it tells")
	}
	c.take(response(addressType, nil, nil))
	c.take(response(authorizationType, nil, nil))
	for i := range 3000 { // what is held has longer names
		c.again = append(c.again, fmt.Sprintf("%04000d", i))
	}
	for range 100 {
		for _, a := range c.names { // istiod has answered
			a.flight = time.Time{}
		}
		more := c.more()
		if len(more) == 0 {
			break
		}
		for _, req := range more {
			check("a later request", []proto.Message{req})
			for _, name := range req.GetResourceNamesSubscribe() {
				asked[name] = true
			}
		}
	}
	for name := range c.names {
		if !asked[name] {
			t.Fatalf("%.20s is never asked for", name)
		}
	}
	at := change(t, func(c *Config) { c.MaxNames = 20_000 })
	for i := range 12_000 { // at once, on a connection that stands
		if err := at.ask(fmt.Sprintf("shop/%0490d", i)); err != nil {
			t.Fatal(err)
		}
	}
	for _, req := range at.more() {
		check("one for what is asked at once", []proto.Message{req})
	}
}

// What is held is bounded by its bytes, too.
func TestLargeResourcesCountAsSeveral(t *testing.T) {
	c := change(t, func(c *Config) { c.MaxResources = 10 })
	sized := func(name string, kib int) msg {
		return msg{}.bytes(2, msg{}.str(2, "shop").str(3, name).str(6, strings.Repeat("x", kib<<10)))
	}
	take := func(step int, name string, value msg) string {
		res := response(addressType, nil, map[string]msg{"shop/" + name: value})
		res.Resources[0].Version = fmt.Sprint(step)
		return c.take(res).GetErrorDetail().GetMessage()
	}
	for i, step := range []struct {
		name    string
		kib     int
		refused bool
	}{{"a", 20, true}, {"a", 3, false}, {"b", 5, false}, {"b", 9, true}, {"b", 4, false}, {"c", 1, true}, {"b", 1, false}, {"c", 1, false}} {
		value := sized(step.name, step.kib)
		if why := take(i, step.name, value); strings.Contains(why, "Config.MaxResources") != step.refused {
			t.Errorf("step %d: %q", i, why)
		}
	}
	if c.held.more.sum != 5 {
		t.Errorf("%d KiB are counted", c.held.more.sum)
	}
	c.take(response(addressType, []string{"shop/a", "shop/b", "shop/c"}, nil))
	if c.held.more.sum != 0 || len(c.held.more.of) > 0 {
		t.Errorf("%d KiB are counted of nothing", c.held.more.sum)
	}
	large := &authz.Policy{Namespace: "shop", Name: "p", Rules: []authz.Rule{{{authz.Match{DestinationPorts: make([]uint16, 20<<10)}}}}}
	for i := range large.Rules[0][0][0].DestinationPorts {
		large.Rules[0][0][0].DestinationPorts[i] = 80
	}
	if ack := c.take(response(authorizationType, nil, map[string]msg{"shop/p": encode.Policy(large)})); !strings.Contains(ack.GetErrorDetail().GetMessage(), "Config.MaxResources") {
		t.Errorf("a policy of 20 KiB: %v", ack)
	}
}

// What no message can hold is not asked for, whoever names it: the connection would end by it, and the next one too.
func TestNobodyAsksForWhatNoMessageHolds(t *testing.T) {
	c := idle(t)
	if _, err := c.Workload(t.Context(), netip.MustParseAddr("fe80::1%\xff")); err == nil || !strings.Contains(err.Error(), "cannot be asked for") {
		t.Errorf("%v", err)
	}
	c.narrowed.Store(true)
	c.follow([]string{"shop/\xff", "shop/cart"})
	if len(c.pending) != 1 || c.pending[0] != "shop/cart" || c.names["shop/\xff"] != nil {
		t.Errorf("asked for: %q", c.pending)
	}
}

// A file is as bounded as what istiod tells.
func TestAFileOfMoreThanIsTaken(t *testing.T) {
	c := idle(t)
	c.take(response(addressType, nil, map[string]msg{"uid": aPod, "shop/cart": aService}))
	small := change(t, func(c *Config) { c.MaxResources = 1 })
	if err := small.load(c.snapshot(noon), noon); err == nil || !strings.Contains(err.Error(), "MaxResources") || small.Stats().Services > 0 {
		t.Errorf("%v, %+v", err, small.Stats())
	}
}
