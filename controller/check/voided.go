package check

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// voidedChecks are about policies at pods that lie behind a waypoint.
func voidedChecks() []Check {
	return []Check{
		{
			Code: v1alpha1.FindingVoided, Title: "a policy at pods behind a waypoint does not see who calls", Severities: both(), Pains: []string{"B1", "B6", "EI06",
				"EH09"},
			Matter: "A policy that is attached to pods tells callers apart, and their Service leads to a waypoint: their ztunnel sees the waypoint in place of each " +
				"caller.",
			Harm: "An ALLOW that does not name the waypoint refuses everybody; a DENY of a caller lets that caller in; a condition on addresses sees the waypoint's.",
			Fix:  "Have the rule at the waypoint, by targetRefs to the Service, and have the one at the pods admit the waypoint's principal.",
			Find: findVoided,
		},
		{
			Code: "ISM245", Title: "a policy at a waypoint names that waypoint as the caller", Severities: onlyError(), Pains: []string{"B1"},
			Matter: "A policy with targetRefs names the principal of the waypoint that enforces it. A waypoint sees the caller itself; only pods behind it see the " +
				"waypoint.",
			Harm: "The rule never matches: an ALLOW lets nobody in, a DENY stops nobody.",
			Fix:  "Name the callers here, and the waypoint in the policy at the pods.",
			Find: findWaypointNamed,
		},
	}
}

// behindWaypoint is a Service with the waypoint that it leads to, and what stands before its pods.
type behindWaypoint struct {
	service  *corev1.Service
	key      types.NamespacedName
	waypoint types.NamespacedName
	seen     []spiffeid.ID
	at       *policy.Point
	list     []*securityv1.AuthorizationPolicy
	ports    []portPair
}

func findVoided(w *World, found func(Finding)) {
	g := w.guard()
	senders := w.senders()
	for i := range w.Services {
		s := &w.Services[i]
		waypoint, ok := w.leadsTo(s)
		if !ok || len(g.atPods[s.Namespace])+len(g.atPods[w.Root()]) == 0 {
			continue
		}
		points, _ := w.pointsOf(s)
		for _, at := range points {
			b := behindWaypoint{service: s, key: types.NamespacedName{Namespace: s.Namespace, Name: s.Name}, waypoint: waypoint, seen: w.waypointIDs(waypoint), at: at}
			for _, ref := range at.Policies() {
				if p := g.byRef[ref]; p != nil {
					b.list = append(b.list, p)
				}
			}
			if len(b.list) == 0 || len(b.seen) == 0 {
				continue
			}
			b.ports = w.portPairs(s)
			w.void(&b, senders[b.key], found)
		}
	}
}

// senders are the gateways that send to a Service, by it.
func (w *World) senders() map[types.NamespacedName][]*crossing {
	all := w.crossings()
	senders := map[types.NamespacedName][]*crossing{}
	for i := range all {
		senders[all[i].backend.Key] = append(senders[all[i].backend.Key], &all[i])
	}
	return senders
}

// void finds what policies at pods mean no more behind a waypoint, once for a Service.
func (w *World) void(b *behindWaypoint, from []*crossing, found func(Finding)) {
	var callers []spiffeid.ID
	for _, c := range from {
		callers = append(callers, c.ids...)
	}
	callers = append(callers, plan.Callers(w.Snapshot, b.list)...)
	const most = 512 // a policy that tells apart more is not looked at further
	callers = callers[:min(len(callers), most)]
	callers = slices.DeleteFunc(callers, func(id spiffeid.ID) bool { return slices.Contains(b.seen, id) })
	behind := &plan.Behind{Pods: b.at, Waypoint: w.behind(b.waypoint, b.key), Seen: b.seen, Callers: callers}
	for _, port := range b.ports {
		behind.Ports = append(behind.Ports, port.request(policy.Values[spiffeid.ID]{}))
	}
	voids := slices.SortedStableFunc(behind.Voids(), func(a, b plan.Void) int { return cmp.Compare(a.Caller, b.Caller) })
	of := func(kind plan.VoidKind) int {
		return slices.IndexFunc(voids, func(v plan.Void) bool { return v.Kind == kind })
	}
	if i := of(plan.VoidAddress); i >= 0 {
		f := b.finding(voids[i].Pods, v1alpha1.SeverityWarning)
		f.Message += "decides by the caller's address, and the pods of " + b.text() + " see the waypoint's in its place"
		f.Fix = "tell callers apart by their identity, and do it at the waypoint: " + b.twin(b.list[0])
		found(f)
		return
	}
	if of(plan.VoidRefuses) >= 0 && w.cutsOffAll(b, from, found) {
		return
	}
	for i := range voids {
		if v := &voids[i]; v.Kind == plan.VoidLetsIn && w.letsIn(b, behind, v, from, found) {
			return
		}
	}
}

// cutsOffAll finds that pods refuse the waypoint, and so everybody who comes by it.
func (w *World) cutsOffAll(b *behindWaypoint, from []*crossing, found func(Finding)) bool {
	request := b.ports[0].request(policy.Of(b.seen[0]))
	d := b.at.Decide(request)
	for _, port := range b.ports {
		if b.at.Decide(port.request(policy.Of(b.seen...))).Verdict != policy.Deny {
			return false
		}
	}
	if d.Verdict != policy.Deny {
		return false
	}
	changes := b.at.WhyNot(request)
	f := b.finding(d, v1alpha1.SeverityError)
	f.Object, f.Field = deciding(b.at, d, changes)
	if w.Paper && (d.Reason == policy.NotAllowed || w.gateways[b.waypoint] == nil) {
		f.Severity = v1alpha1.SeverityWarning
	}
	f.Message = fmt.Sprintf("this does not admit %s, which the pods of %s see in place of every caller: who calls that Service in the mesh is refused%s",
		principalText(b.seen[0]), b.text(), through(from))
	f.Fix = "have the rule at the waypoint: " + b.twin(w.guard().byRef[policy.Ref{Kind: f.Object.Kind, Namespace: f.Object.Namespace, Name: f.Object.Name}])
	if len(changes) > 0 {
		text, patch := w.amend(changes, "principal "+principalText(b.seen[0]))
		f.Fix += "; then " + text
		if w.behind(b.waypoint, b.key).DefaultDeny() {
			f.Patch = patch // elsewhere it lets in everybody who comes by the waypoint, as long as the rule is not there
		}
	}
	for _, c := range from {
		f.Related = append(f.Related, c.object())
	}
	found(f)
	return true
}

// through names gateways that lose their way.
func through(from []*crossing) string {
	var names []string
	for _, c := range from {
		if c.byWaypoint {
			names = append(names, c.object().String())
		}
	}
	if len(names) == 0 {
		return ""
	}
	return ", and all that comes through " + inWords(names)
}

// letsIn finds that a caller whom pods refuse comes in by the waypoint, and says whether that is so. Where the policy names the waypoint itself that is as
// somebody meant it, but for an ALLOW that tells a gateway from others which comes by the waypoint as they do.
func (w *World) letsIn(b *behindWaypoint, behind *plan.Behind, v *plan.Void, from []*crossing, found func(Finding)) bool {
	if v.Pods.Verdict != policy.Deny {
		return false
	}
	id := behind.Callers[v.Caller]
	f := b.finding(v.Pods, v1alpha1.SeverityError)
	if v.Way == policy.Depends || w.Paper {
		f.Severity = v1alpha1.SeverityWarning
	}
	p := w.guard().byRef[v.Pods.Policy]
	if v.Pods.Reason != policy.Denied {
		gateway, ok := uselessName(b, from)
		if !ok || v.Way != policy.Allow {
			return false
		}
		f.Severity = v1alpha1.SeverityWarning
		f.Message = fmt.Sprintf("%sadmits %s and not everybody, and admits %s too, which the pods of %s see in place of every caller, that gateway's too: by "+
			"the waypoint %s comes in",
			f.Message, principalText(gateway), principalText(b.seen[0]), b.text(), plan.CallerName(id))
	} else {
		if behind.Meant(v, p) {
			return false
		}
		f.Message += fmt.Sprintf("denies %s, and the pods of %s see %s in place of any caller: what is to be denied comes in by the waypoint",
			plan.CallerName(id), b.text(), principalText(b.seen[0]))
	}
	f.Fix = "have the rule at the waypoint: " + b.twin(p)
	found(f)
	return true
}

// uselessName is a gateway that the pods admit and that comes by the waypoint.
func uselessName(b *behindWaypoint, from []*crossing) (spiffeid.ID, bool) {
	for _, c := range from {
		if !c.byWaypoint || c.straight {
			continue
		}
		for _, id := range c.ids {
			if b.at.Decide(b.ports[0].request(policy.Of(id))).Verdict == policy.Allow {
				return id, true
			}
		}
	}
	return spiffeid.ID{}, false
}

// namesAccount says whether a field of a source names one of identities, and not only a pattern that it has.
func namesAccount(l *listed, own string, ids []spiffeid.ID) bool {
	return slices.ContainsFunc(ids, func(id spiffeid.ID) bool {
		ns, sa, _ := strings.Cut(strings.TrimPrefix(id.Path(), "/ns/"), "/sa/")
		switch l.plainName() {
		case "principals":
			return slices.ContainsFunc(l.values, func(v string) bool { return strings.HasSuffix(v, "/ns/"+ns+"/sa/"+sa) })
		case "serviceAccounts":
			return slices.Contains(l.values, ns+"/"+sa) || own == ns && slices.Contains(l.values, sa)
		}
		return false
	})
}

// finding is about the policy that decides, or the first ALLOW policy.
func (b *behindWaypoint) finding(d policy.Decision, severity v1alpha1.Severity) Finding {
	object, field := deciding(b.at, d, nil)
	if d.Field != "" {
		field = "spec." + d.Field
	}
	return Finding{Severity: severity, Object: object, Field: field, Message: "this ", Related: []Object{serviceNamed(b.key), gatewayNamed(b.waypoint)}}
}

func (b *behindWaypoint) text() string {
	return fmt.Sprintf("Service %s behind waypoint %s", b.key, b.waypoint)
}

// twin is how a policy at pods is had at a waypoint.
func (b *behindWaypoint) twin(p *securityv1.AuthorizationPolicy) string {
	action := "ALLOW"
	if p != nil {
		action = p.Spec.Action.String()
	}
	return fmt.Sprintf("an AuthorizationPolicy %s in namespace %s with the same rules and targetRefs: [{group: \"\", kind: Service, name: %s}]", action,
		b.key.Namespace, b.key.Name)
}

func findWaypointNamed(w *World, found func(Finding)) {
	for _, p := range w.Policies {
		keys := map[types.NamespacedName]bool{}
		for _, r := range targetRefsOf(&p.Spec) {
			key := types.NamespacedName{Namespace: p.Namespace, Name: r.GetName()}
			switch r.GetKind() {
			case policy.KindService:
				if s := w.services[key]; s != nil {
					if waypoint, ok := w.leadsTo(s); ok {
						keys[waypoint] = true
					}
				}
			case policy.KindGateway:
				if g := w.gateways[key]; g != nil && w.IsWaypoint(g) {
					keys[key] = true
				}
			}
		}
		if len(keys) != 1 {
			continue // one of two waypoints may call the other
		}
		for key := range keys {
			for _, l := range lists(p) {
				if l.not || !namesAccount(&l, p.Namespace, w.waypointIDs(key)) {
					continue
				}
				rest := ""
				if len(l.values) > 1 {
					rest = ", as far as that value goes"
				}
				found(Finding{
					Object: accessObject(p), Field: l.field, Related: []Object{gatewayNamed(key)},
					Message: fmt.Sprintf("this is enforced at waypoint %s and names that waypoint as the caller, whom it never sees there: %s%s", key, effect(p, &l), rest),
					Fix:     "name the callers here, and the waypoint in a policy with a selector, at the pods",
				})
			}
		}
	}
}
