package policy

import (
	"net/netip"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Path is the way that requests take: the enforcement points that they pass, in this order. A source's own ztunnel enforces nothing.
type Path struct {
	// Waypoint is nil when there is none on the way, as when the source sends to pods' addresses.
	Waypoint *Point
	// WaypointSource and WaypointIP are who the workload's ztunnel sees behind a waypoint.
	WaypointSource Values[spiffeid.ID]
	WaypointIP     Values[netip.Addr]
	// Workload is nil when the workload is outside the mesh: nobody enforces anything there.
	Workload *Point
}

// Answer is what becomes of a request on its way.
type Answer struct {
	Verdict Verdict
	// Workload is what its ztunnel decides, of the source that it sees.
	Workload Decision
	// Waypoint is what the waypoint decides before, if requests come ByWaypoint. They do not where there is none, nor from outside the mesh: the
	// node then sends them to a pod.
	Waypoint   Decision
	ByWaypoint bool
}

// Decide answers for a class of requests.
func (p *Path) Decide(r *Request) Answer {
	if !r.Source.absent || len(r.Source.list) == 0 {
		return p.decide(r, r.Source.absent)
	}
	// Some may be inside the mesh and some not.
	inside, outside := *r, *r
	inside.Source.absent = false
	outside.Source = Absent[spiffeid.ID]()
	a, b := p.decide(&inside, false), p.decide(&outside, true)
	if a.Verdict == b.Verdict && a.Verdict != Depends {
		return a
	}
	a.Verdict, a.Workload = Depends, either(a.Workload, b.Workload, OnSource)
	if a.ByWaypoint {
		a.Waypoint = either(a.Waypoint, decided(Allow, NoPolicy), OnSource)
	}
	return a
}

// decide answers for sources that are all outside the mesh, or that are inside or unknown.
func (p *Path) decide(r *Request, outside bool) Answer {
	a := Answer{Verdict: Allow}
	atWorkload := *r
	if p.Waypoint != nil && !outside {
		a.ByWaypoint = true
		a.Waypoint = p.Waypoint.Decide(r)
		if atWorkload.Source, atWorkload.SourceIP = p.WaypointSource, p.WaypointIP; !r.Source.known {
			// It may be outside, and go past the waypoint.
			a.Waypoint = either(a.Waypoint, decided(Allow, NoPolicy), OnSource)
			atWorkload.Source, atWorkload.SourceIP = Values[spiffeid.ID]{}, Values[netip.Addr]{}
		}
		a.Verdict = a.Waypoint.Verdict
	}
	a.Workload = decided(Allow, NoPolicy)
	if p.Workload != nil {
		a.Workload = p.Workload.Decide(&atWorkload)
	}
	switch {
	case a.Workload.Verdict == Deny:
		a.Verdict = Deny
	case a.Workload.Verdict == Depends && a.Verdict == Allow:
		a.Verdict = Depends
	}
	return a
}

// Deciding is the decision that the answer comes from: the first that denies, or else that depends, or that of the workload.
func (a *Answer) Deciding() Decision {
	if a.ByWaypoint && a.Waypoint.Verdict == a.Verdict && a.Verdict != Allow {
		return a.Waypoint
	}
	return a.Workload
}
