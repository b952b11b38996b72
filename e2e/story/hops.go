package story

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/e2e/capture"
	"github.com/isthmus-mesh/isthmus/e2e/envoyshim/accesslog"
)

// Hop is a connection that carried a request, as one end of it has logged.
type Hop struct {
	From, To  string // "edge/gateway", "shop/waypoint"
	Transport string // capture.HBONE or capture.Plaintext
	// Source and Peer are the SPIFFE ids that were shown and verified: the caller's and the callee's. Empty: none was, or the side that
	// logged it does not know.
	Source, Peer string
	// Allowed, Policy and Status are the decision at To, where one was made; Policy is namespace/name.
	Allowed *bool
	Policy  string
	Status  int
	By      string // whose log says so
	Error   string
}

// waypointPod is the pod of the waypoint that the controller has made.
func (w *World) waypointPod(ctx context.Context) (*corev1.Pod, error) {
	return w.podWith(ctx, "shop", client.MatchingLabels{"gateway.networking.k8s.io/gateway-name": "waypoint"})
}

// hops puts together what the ends logged of passage p since a time: the capture of the pod that sent it, the waypoint, and the capture of the
// pod that served it. Who did not see it adds nothing.
func (w *World) hops(ctx context.Context, p *Passage, from, to *corev1.Pod, since time.Time) ([]Hop, error) {
	var hops []Hop
	entries, err := w.entries(from)
	if err != nil {
		return nil, err
	}
	// A kept connection was logged when it was made, which may be before this request.
	if e := last(entries, func(e capture.Entry) bool { return e.Direction == capture.Outbound }); e != nil && captured(from) {
		hops = append(hops, Hop{
			From: owner(from), To: w.nameOf(ctx, e.HopAddr), Transport: e.Transport, Source: e.SourceIdentity, Peer: e.PeerIdentity,
			Status: e.Status, Error: e.Error, By: "capture of " + owner(from),
		})
	}
	caller := from.Status.PodIP // of to
	if waypoint, err := w.waypointPod(ctx); err == nil {
		hop, err := w.atWaypoint(ctx, p.Path, from, waypoint)
		if err != nil {
			return nil, err
		}
		if hop != nil {
			hops = append(hops, *hop)
			caller = waypoint.Status.PodIP
			if !*hop.Allowed {
				return hops, nil // it went no further
			}
		}
	}
	e, err := w.inbound(ctx, to, func(e capture.Entry) bool {
		return e.Direction == capture.Inbound && strings.HasPrefix(e.Source, caller+":") && e.Destination == to.Status.PodIP+":8080" &&
			(e.Time.After(since) || e.Transport == capture.HBONE && !p.Clear)
	})
	if err != nil {
		return nil, err
	}
	if e != nil {
		if answered := p.Status == http.StatusOK; answered && e.Allowed == nil {
			e.Allowed = &answered // a ztunnel logs its decision when the connection ends
		}
		hops = append(hops, Hop{
			From: w.nameOf(ctx, e.Source), To: owner(to), Transport: e.Transport, Source: e.SourceIdentity, Allowed: e.Allowed, Policy: e.Policy,
			Status: e.Status, Error: e.Error, By: "capture of " + owner(to),
		})
	}
	return hops, nil
}

// atWaypoint is what the waypoint's Envoy logged of the request for path; it writes a moment after it has answered.
func (w *World) atWaypoint(ctx context.Context, path string, from, waypoint *corev1.Pod) (*Hop, error) {
	ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	var hop *Hop
	err := until(ctx, func() error {
		text, err := os.ReadFile(w.Node.LogPath(waypoint.Namespace, waypoint.Name, "istio-proxy"))
		if err != nil {
			return err
		}
		for _, r := range accesslog.Requests(string(text)) {
			if r.Path == path {
				allowed := r.Allowed
				hop = &Hop{
					From: owner(from), To: owner(waypoint), Transport: capture.HBONE, Source: r.Peer, Allowed: &allowed, Policy: r.Policy,
					Status: r.Status, By: "Envoy of " + owner(waypoint),
				}
				return nil
			}
		}
		return fmt.Errorf("no line about %s", path)
	})
	if hop == nil && ctx.Err() == nil {
		return nil, err
	}
	return hop, nil // it did not come this way
}

// inbound is the last entry of p that is ok, or nil. A real ztunnel writes its log when it has time.
func (w *World) inbound(ctx context.Context, p *corev1.Pod, ok func(capture.Entry) bool) (e *capture.Entry, err error) {
	look := func() error {
		entries, err := w.entries(p)
		if e = last(entries, ok); err == nil && e == nil {
			err = errNotLogged
		}
		return err
	}
	if !capture.IsZtunnel() {
		err = look()
	} else {
		ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		defer cancel()
		err = until(ctx, look)
	}
	if errors.Is(err, errNotLogged) {
		err = nil
	}
	return e, err
}

// errNotLogged says that a connection is not in an access log, or not yet.
var errNotLogged = errors.New("no such connection is logged")

func (w *World) entries(p *corev1.Pod) ([]capture.Entry, error) {
	text, err := os.ReadFile(w.Node.LogPath(p.Namespace, p.Name, "capture"))
	if os.IsNotExist(err) {
		return nil, nil // never captured
	}
	return capture.Entries(string(text)), err
}

func last(entries []capture.Entry, ok func(capture.Entry) bool) *capture.Entry {
	for i := len(entries) - 1; i >= 0; i-- {
		if ok(entries[i]) {
			return &entries[i]
		}
	}
	return nil
}

func captured(p *corev1.Pod) bool {
	return p.Annotations["ambient.istio.io/redirection"] == "enabled"
}

// Decider is where the policies of the story are enforced: at the waypoint, or without one at the backend.
func (w *World) Decider() string {
	if w.Envoy {
		return "shop/waypoint"
	}
	return "shop/orders"
}

// DecidedBy begins Hop.By of the hop that has the decision.
func (w *World) DecidedBy() string {
	if w.Envoy {
		return "Envoy"
	}
	return "capture of shop/orders"
}
