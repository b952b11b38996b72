package run

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/hbone"
)

const (
	hbonePort    = 15008
	probeTimeout = 2 * time.Second
	believed     = 10 * time.Second // how long an answer counts
)

// Prober asks a waypoint for a tunnel to authority, and verifies that it has one of the identities. Any status is an answer.
type Prober interface {
	Probe(ctx context.Context, addr netip.AddrPort, peers []spiffeid.ID, authority string) error
}

// NewProber asks over HBONE with an identity of the mesh.
func NewProber(id hbone.Identity) Prober { return &prober{id} }

type prober struct{ id hbone.Identity }

func (p *prober) Probe(ctx context.Context, addr netip.AddrPort, peers []spiffeid.ID, authority string) error {
	_, err := hbone.Probe(ctx, hbone.ProbeConfig{Identity: p.id, Addr: addr, Peers: peers, Authority: authority})
	return err
}

// facts remembers answers for a moment.
type facts struct {
	prober Prober // nil: nobody can ask

	mu    sync.Mutex // guards the fields below
	until map[types.NamespacedName]time.Time
}

// ask fills in the facts that the plan needs.
func (f *facts) ask(ctx context.Context, s *plan.Snapshot) {
	s.Waypoints = map[types.NamespacedName]plan.WaypointFact{}
	for _, key := range plan.WaypointsToAsk(s) {
		fact := plan.WaypointFact{Answers: f.fresh(key)}
		if !fact.Answers {
			if err := f.probe(ctx, s, key); err != nil {
				fact.Why = err.Error()
			} else {
				fact.Answers = true
				f.remember(key)
			}
		}
		s.Waypoints[key] = fact
	}
}

func (f *facts) fresh(key types.NamespacedName) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Now().Before(f.until[key])
}

func (f *facts) remember(key types.NamespacedName) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.until == nil {
		f.until = map[types.NamespacedName]time.Time{}
	}
	for k, t := range f.until { // those of the past are of no use
		if time.Now().After(t) {
			delete(f.until, k)
		}
	}
	f.until[key] = time.Now().Add(believed)
}

func (f *facts) probe(ctx context.Context, s *plan.Snapshot, key types.NamespacedName) error {
	if f.prober == nil {
		return errors.New("this controller has no identity of the mesh to ask with: see its flags for istiod")
	}
	service := serviceOf(s, key)
	if service == nil {
		return fmt.Errorf("istiod has made no Service %s for it yet", key)
	}
	addr, err := netip.ParseAddr(service.Spec.ClusterIP)
	if err != nil {
		return fmt.Errorf("service %s has no address: %q", key, service.Spec.ClusterIP)
	}
	var peers []spiffeid.ID
	for _, text := range plan.WaypointIdentities(s, key) {
		id, err := spiffeid.FromString(text)
		if err != nil {
			return err
		}
		peers = append(peers, id)
	}
	if len(peers) == 0 {
		return errors.New("it has no pods")
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	// Its own address is no place to go to: the answer is a refusal, and an answer.
	at := netip.AddrPortFrom(addr, hbonePort)
	return f.prober.Probe(ctx, at, peers, at.String())
}

func serviceOf(s *plan.Snapshot, key types.NamespacedName) *corev1.Service {
	for i := range s.Services {
		if o := &s.Services[i]; o.Namespace == key.Namespace && o.Name == key.Name {
			return o
		}
	}
	return nil
}
