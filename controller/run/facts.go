package run

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/controller/plan"
)

const (
	hbonePort    = 15008
	probeTimeout = 2 * time.Second
	believed     = 10 * time.Second // how long an answer counts

	// patience is how long one that does not answer is asked whenever there is a plan to make, as it may just be starting. Later on it is asked once in
	// a while: to wait for it keeps the plan's other backends waiting.
	patience = 10 * time.Second
	while    = 5 * time.Second
)

// facts finds out what no object says, and remembers good answers for a moment.
type facts struct {
	prober Prober       // nil: nobody can ask
	able   func() error // nil: a prober can

	mu    sync.Mutex // guards the fields below
	until map[fact]time.Time
	mute  map[fact]mute
	asked map[types.NamespacedName]map[fact]bool // for each edge, what its last plan depended on
}

// mute is one that does not answer.
type mute struct {
	why        string
	since, ask time.Time // when that was found first, and when it is asked again
}

// fact is a good answer: of a waypoint, or of one about a Service. Objects are known by what they are, as another may come under their name.
type fact struct {
	waypoint, service types.UID
	shown             string // of a witness: what is shown, and by which pods
}

// ask fills in the facts that the plan needs.
func (f *facts) ask(ctx context.Context, s *plan.Snapshot) {
	var unable error
	if s.Edge.DeletionTimestamp == nil { // undo asks nobody
		if unable = f.unable(); unable != nil {
			s.Unable = unable.Error()
		}
	}
	e := client.ObjectKeyFromObject(s.Edge)
	asked := map[fact]bool{}
	waypoints := plan.WaypointsToAsk(s)
	for _, key := range waypoints {
		asked[fact{waypoint: gatewayUID(s, key)}] = true
	}
	s.Waypoints = together(waypoints, func(key types.NamespacedName) types.NamespacedName { return key }, func(key types.NamespacedName) plan.WaypointFact {
		return f.known(fact{waypoint: gatewayUID(s, key)}, unable, func() error {
			at, peers, err := f.waypoint(s, key)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(ctx, probeTimeout)
			defer cancel()
			// Its own address is no place to go to: the answer is a refusal, and an answer.
			return f.prober.Answers(ctx, at, peers, at.String())
		})
	})
	services := plan.ServicesToAsk(s)
	for _, q := range services {
		asked[fact{waypoint: gatewayUID(s, q.Waypoint), service: q.Service.UID}] = true
	}
	witnesses := witnessesToAsk(s)
	for _, w := range witnesses {
		asked[w.fact] = true
	}
	f.needs(e, asked)
	s.Served = together(services, func(q plan.ServiceToAsk) types.NamespacedName {
		return types.NamespacedName{Namespace: q.Service.Namespace, Name: q.Service.Name}
	}, func(q plan.ServiceToAsk) plan.WaypointFact {
		return f.known(fact{waypoint: gatewayUID(s, q.Waypoint), service: q.Service.UID}, unable, func() error { return f.serves(ctx, s, q) })
	})
	s.Shown = f.shows(ctx, witnesses, unable)
}

// needs notes what the plan of an edge depends on. What the one before depended on, and no plan does now, is forgotten: a Service that is led to a waypoint
// again, be it a moment later, is not served because it was.
func (f *facts) needs(e types.NamespacedName, asked map[fact]bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.asked[e]
	if f.asked == nil {
		f.asked = map[types.NamespacedName]map[fact]bool{}
	}
	if f.asked[e] = asked; len(asked) == 0 {
		delete(f.asked, e)
	}
	for key := range before {
		if !asked[key] && !f.needed(key) {
			delete(f.until, key)
			delete(f.mute, key)
		}
	}
}

// needed says whether the plan of any edge depends on a fact. mu is held.
func (f *facts) needed(key fact) bool {
	for _, asked := range f.asked {
		if asked[key] {
			return true
		}
	}
	return false
}

// leave forgets what was asked for an edge that is gone: one that comes under its name has its own answers.
func (f *facts) leave(e types.NamespacedName) { f.needs(e, nil) }

// unable says why waypoints cannot be asked.
func (f *facts) unable() error {
	switch {
	case f.prober == nil:
		return errors.New("it was started without one")
	case f.able == nil:
		return nil
	}
	return f.able()
}

// together asks about all of a list, several at a time.
func together[Q any](list []Q, key func(Q) types.NamespacedName, ask func(Q) plan.WaypointFact) map[types.NamespacedName]plan.WaypointFact {
	answers := make([]plan.WaypointFact, len(list))
	_ = each(len(list), atOnce, func(i int) error { // what went wrong is in the answers
		answers[i] = ask(list[i])
		return nil
	})
	facts := make(map[types.NamespacedName]plan.WaypointFact, len(list))
	for i := range list {
		facts[key(list[i])] = answers[i]
	}
	return facts
}

// known is a fact, asked for unless it was found good a moment ago. unable says why nobody can ask.
func (f *facts) known(key fact, unable error, ask func() error) plan.WaypointFact {
	if f.fresh(key) {
		return plan.WaypointFact{Answers: true}
	}
	if unable != nil {
		return plan.WaypointFact{Why: unable.Error()}
	}
	if why := f.stillMute(key); why != "" {
		return plan.WaypointFact{Why: why}
	}
	if err := ask(); err != nil {
		f.silence(key, err.Error())
		return plan.WaypointFact{Why: err.Error()}
	}
	f.remember(key)
	return plan.WaypointFact{Answers: true}
}

// stillMute is why one does not answer that is not to be asked yet, or "".
func (f *facts) stillMute(key fact) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if m := f.mute[key]; time.Now().Before(m.ask) {
		return m.why
	}
	return ""
}

// silence notes that one did not answer.
func (f *facts) silence(key fact, why string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	for k, m := range f.mute { // of which nobody asks any more
		if now.Sub(m.ask) > believed {
			delete(f.mute, k)
		}
	}
	m, known := f.mute[key]
	if !known {
		m.since = now
	}
	m.why, m.ask = why, now
	if now.Sub(m.since) >= patience {
		m.ask = now.Add(while)
	}
	if f.mute == nil {
		f.mute = map[fact]mute{}
	}
	f.mute[key] = m
}

func (f *facts) fresh(key fact) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Now().Before(f.until[key])
}

func (f *facts) remember(key fact) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.until == nil {
		f.until = map[fact]time.Time{}
	}
	for k, t := range f.until { // those of the past are of no use
		if time.Now().After(t) {
			delete(f.until, k)
		}
	}
	f.until[key] = time.Now().Add(believed)
	delete(f.mute, key)
}

// waypoint is where a waypoint listens, and who may answer there.
func (f *facts) waypoint(s *plan.Snapshot, key types.NamespacedName) (netip.AddrPort, []spiffeid.ID, error) {
	service := serviceOf(s, key)
	if service == nil {
		return netip.AddrPort{}, nil, fmt.Errorf("istiod has made no Service %s for it yet", key)
	}
	addr, err := netip.ParseAddr(service.Spec.ClusterIP)
	if err != nil {
		return netip.AddrPort{}, nil, fmt.Errorf("service %s has no address: %q", key, service.Spec.ClusterIP)
	}
	who, err := peers(s, key)
	if err != nil {
		return netip.AddrPort{}, nil, err
	}
	return netip.AddrPortFrom(addr, hbonePort), who, nil
}

// serves asks the waypoint of a Service for each of its ports.
func (f *facts) serves(ctx context.Context, s *plan.Snapshot, q plan.ServiceToAsk) error {
	at, peers, err := f.waypoint(s, q.Waypoint)
	if err != nil {
		return err
	}
	addr, err := netip.ParseAddr(q.Service.Spec.ClusterIP)
	if err != nil {
		return nil //nolint:nilerr // a headless Service has no address to ask for
	}
	for _, port := range q.Service.Spec.Ports {
		if port.Protocol == corev1.ProtocolUDP || port.Protocol == corev1.ProtocolSCTP {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, probeTimeout)
		err := f.prober.Serves(ctx, at, peers, netip.AddrPortFrom(addr, uint16(port.Port)).String(), hello(&port))
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

// hello is what may be sent to a port without being a request: an empty line to one of HTTP/1.1. Others are not spoken to.
func hello(p *corev1.ServicePort) []byte {
	name := p.Name
	if p.AppProtocol != nil {
		name = *p.AppProtocol
	}
	if name == "http" || strings.HasPrefix(name, "http-") {
		return []byte("\r\n")
	}
	return nil
}

func gatewayUID(s *plan.Snapshot, key types.NamespacedName) types.UID {
	for i := range s.Gateways {
		if o := &s.Gateways[i]; o.Namespace == key.Namespace && o.Name == key.Name {
			return o.UID
		}
	}
	return ""
}

func serviceOf(s *plan.Snapshot, key types.NamespacedName) *corev1.Service {
	for i := range s.Services {
		if o := &s.Services[i]; o.Namespace == key.Namespace && o.Name == key.Name {
			return o
		}
	}
	return nil
}
