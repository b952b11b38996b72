package plan

import (
	"iter"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// Behind are the pods of a Service behind a waypoint, which they see in place of every caller. Plans ask it before they lead the Service there, and checks of
// one that leads there.
type Behind struct {
	// Pods is what is enforced before the pods, and Waypoint what the waypoint enforces for the Service.
	Pods, Waypoint *policy.Point
	// Seen is who the waypoint is. Empty: nobody knows, and nothing is void.
	Seen []spiffeid.ID
	// Callers are those between whom policies may tell. The waypoint itself is no caller.
	Callers []spiffeid.ID
	// Ports are the classes of all requests to each of the Service's ports, of whatever source.
	Ports []*policy.Request
}

// VoidKind is how a policy at pods lost its meaning.
type VoidKind int

// The kinds.
const (
	// VoidAddress: it decides by the caller's address, and pods see the waypoint's.
	VoidAddress VoidKind = iota
	// VoidRefuses: it lets callers in, and not the waypoint, and so refuses everybody.
	VoidRefuses
	// VoidLetsIn: it does not let a caller in for sure, whom nothing refuses who comes by the waypoint.
	VoidLetsIn
)

// Void is what a policy at pods means no more behind a waypoint.
type Void struct {
	Kind VoidKind
	// Port is an index into Ports, and Caller one into Callers: zero of VoidRefuses.
	Port, Caller int
	// Pods is what pods decide on the caller; of VoidRefuses, on the waypoint. Way is what becomes of the caller of VoidLetsIn by the waypoint.
	Pods policy.Decision
	Way  policy.Verdict
	// Alone: at that port pods take none of the callers. They were told to admit the waypoint alone, or nobody.
	Alone bool
}

// Voids are what the policies at pods mean no more, port by port. Where one decides by addresses, or refuses the waypoint, no more is told of the port.
func (b *Behind) Voids() iter.Seq[Void] {
	return func(yield func(Void) bool) {
		if len(b.Seen) == 0 {
			return
		}
		path := &policy.Path{Waypoint: b.Waypoint, WaypointSource: policy.Of(b.Seen...), Workload: b.Pods}
		for port := range b.Ports {
			for v := range b.voidsAt(port, path) {
				if !yield(v) {
					return
				}
			}
		}
	}
}

// voidsAt are those of one port.
func (b *Behind) voidsAt(port int, path *policy.Path) iter.Seq[Void] {
	return func(yield func(Void) bool) {
		request := func(source ...spiffeid.ID) *policy.Request {
			r := *b.Ports[port]
			r.Source = policy.Of(source...)
			return &r
		}
		before := make([]policy.Decision, len(b.Callers))
		alone := true
		for i, id := range b.Callers {
			if slices.Contains(b.Seen, id) {
				continue
			}
			before[i] = b.Pods.Decide(request(id))
			if before[i].Verdict == policy.Depends && before[i].On&policy.OnSourceIP != 0 {
				yield(Void{Kind: VoidAddress, Port: port, Caller: i, Pods: before[i]})
				return
			}
			alone = alone && before[i].Verdict == policy.Deny
		}
		if d := b.Pods.Decide(request(b.Seen...)); d.Verdict == policy.Deny {
			if !alone {
				yield(Void{Kind: VoidRefuses, Port: port, Pods: d})
			}
			return
		}
		for i, id := range b.Callers {
			if slices.Contains(b.Seen, id) || before[i].Verdict == policy.Allow {
				continue
			}
			way := path.Decide(request(id))
			if way.Verdict == policy.Allow || way.Verdict == policy.Depends && before[i].Verdict == policy.Deny {
				if !yield(Void{VoidLetsIn, port, i, before[i], way.Verdict, alone}) {
					return
				}
			}
		}
	}
}

// Meant says whether somebody has provided for a void: pods admit the waypoint and no caller, or what denies the caller there names the waypoint itself. by is
// the policy that decides at the pods, nil where none does.
func (b *Behind) Meant(v *Void, by *securityv1.AuthorizationPolicy) bool {
	return v.Kind == VoidLetsIn && (v.Alone && v.Pods.Reason != policy.Denied || v.Pods.Reason == policy.Denied && Mentions(by, b.Seen))
}

// Mentions says whether a source of a policy names one of some identities, by principal or service account, be it to leave it out. Patterns do not count, nor
// does trust domain. A nil policy names nobody.
func Mentions(p *securityv1.AuthorizationPolicy, ids []spiffeid.ID) bool {
	if p == nil {
		return false
	}
	return slices.ContainsFunc(ids, func(id spiffeid.ID) bool {
		ns, account, _ := strings.Cut(strings.TrimPrefix(id.Path(), "/ns/"), "/sa/")
		principal := func(v string) bool { return strings.HasSuffix(v, "/ns/"+ns+"/sa/"+account) }
		name := func(v string) bool { return v == ns+"/"+account || p.Namespace == ns && v == account }
		for _, r := range p.Spec.GetRules() {
			for _, from := range r.GetFrom() {
				s := from.GetSource()
				if slices.ContainsFunc(slices.Concat(s.GetPrincipals(), s.GetNotPrincipals()), principal) ||
					slices.ContainsFunc(slices.Concat(s.GetServiceAccounts(), s.GetNotServiceAccounts()), name) {
					return true
				}
			}
			for _, when := range r.GetWhen() {
				values := slices.Concat(when.GetValues(), when.GetNotValues())
				if when.GetKey() == "source.principal" && slices.ContainsFunc(values, principal) ||
					when.GetKey() == "source.serviceAccount" && slices.ContainsFunc(values, name) {
					return true
				}
			}
		}
		return false
	})
}
