package run

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/hbone"
)

// Witness asks pods of waypoints what they show of their configuration. A Prober may be one; by another nobody sees whether twins are in force.
type Witness interface {
	// Shows asks for a tunnel to authority at a pod that has one of the identities, and in it for two paths. It says why the pod does not show the first: that is
	// let through, to a Service without endpoints, and the other is refused by a policy. It blocks until there are answers or ctx ends.
	Shows(ctx context.Context, pod netip.AddrPort, peers []spiffeid.ID, authority, shown, hidden string) error
}

// What Envoy answers for a policy that refuses a request, and where a Service has no endpoint. Who answers otherwise, as an external authorizer does, shows nothing.
const (
	refusedBody = "RBAC: access denied"
	nobodyBody  = "no healthy upstream"
)

// Shows makes one connection.
func (p *HBONEProber) Shows(ctx context.Context, pod netip.AddrPort, peers []spiffeid.ID, authority, shown, hidden string) error {
	d := &hbone.Dialer{Identity: p.Identity, NetDial: p.NetDial}
	defer d.Close()
	way := hbone.Route{Hops: []hbone.Hop{{Addr: pod, Authority: authority, Peers: peers}}, Target: authority}
	c := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialRoute(ctx, way) },
	}}
	defer c.CloseIdleConnections()
	if err := answers(ctx, c, authority, hidden, http.StatusForbidden, refusedBody); err != nil {
		return briefly(pod, err)
	}
	return briefly(pod, answers(ctx, c, authority, shown, http.StatusServiceUnavailable, nobodyBody))
}

// answers asks for a path, and says how the answer differs from what is wanted.
func answers(ctx context.Context, c *http.Client, host, path string, status int, body string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+path, nil)
	if err != nil {
		return err
	}
	res, err := c.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 256))
	if err != nil {
		return fmt.Errorf("read the answer for %s: %w", path, err)
	}
	if res.StatusCode != status || strings.TrimSpace(string(text)) != body {
		return fmt.Errorf("it answers %d %q for %s, and not %d %q", res.StatusCode, text, path, status, body)
	}
	return nil
}

// toShow is a witness to be asked for, at the pods of its waypoint that are ready.
type toShow struct {
	plan.WitnessToAsk
	ready []*plan.Pod
	fact  fact
}

// witnessesToAsk are those that the plan needs. A pod that is not ready takes no requests, and has what istiod has when it begins.
func witnessesToAsk(s *plan.Snapshot) []toShow {
	var list []toShow
	for _, q := range plan.WitnessesToAsk(s) {
		w := toShow{WitnessToAsk: q, fact: fact{waypoint: gatewayUID(s, q.Waypoint), service: q.Service.UID, shown: q.Path}}
		for _, p := range q.Pods {
			if p.DeletionTimestamp == nil && ready(p) {
				w.ready = append(w.ready, p)
				w.fact.shown += " " + string(p.UID)
			}
		}
		list = append(list, w)
	}
	return list
}

// shows asks for witnesses.
func (f *facts) shows(ctx context.Context, asked []toShow, unable error) map[types.NamespacedName]plan.WitnessFact {
	facts := map[types.NamespacedName]plan.WitnessFact{}
	answers := together(asked, func(w toShow) types.NamespacedName { return w.Waypoint }, func(w toShow) plan.WaypointFact {
		return f.known(w.fact, unable, func() error { return f.allShow(ctx, &w.WitnessToAsk, w.ready) })
	})
	for _, w := range asked {
		facts[w.Waypoint] = plan.WitnessFact{WaypointFact: answers[w.Waypoint], Path: w.Path}
	}
	return facts
}

func (f *facts) allShow(ctx context.Context, q *plan.WitnessToAsk, pods []*plan.Pod) error {
	w, is := f.prober.(Witness)
	if !is {
		return errors.New("nobody can ask for it here")
	}
	if len(pods) == 0 {
		return errors.New("none of its pods is ready")
	}
	addr, err := netip.ParseAddr(q.Service.Spec.ClusterIP)
	if err != nil {
		return fmt.Errorf("service %s/%s has no address: %q", q.Service.Namespace, q.Service.Name, q.Service.Spec.ClusterIP)
	}
	authority := netip.AddrPortFrom(addr, uint16(q.Service.Spec.Ports[0].Port)).String()
	return each(len(pods), atOnce, func(i int) error {
		pod, err := netip.ParseAddr(pods[i].Status.PodIP)
		if err != nil {
			return fmt.Errorf("pod %s/%s has no address: %q", pods[i].Namespace, pods[i].Name, pods[i].Status.PodIP)
		}
		ctx, cancel := context.WithTimeout(ctx, probeTimeout)
		defer cancel()
		if err := w.Shows(ctx, netip.AddrPortFrom(pod, hbonePort), q.IDs, authority, q.Path, q.Hidden); err != nil {
			return fmt.Errorf("pod %s/%s: %w", pods[i].Namespace, pods[i].Name, err)
		}
		return nil
	})
}

var _ Witness = (*HBONEProber)(nil)
