package plan

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	securityapi "istio.io/api/security/v1beta1"
	typev1beta1 "istio.io/api/type/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// pairPrefix begins the names of the policies by which a waypoint answers as the pods of a Service did. These end with what they do.
const pairPrefix = "isthmus-pair-"

// What they do, in the order in which they come. They go the other way round.
const (
	pairPin   = "pin"   // at the waypoint: who but the gateways writes their headers; no part of a pairing, see pins
	pairGuard = "guard" // at the waypoint: what else leads there to the same pods
	pairDeny  = "deny"  // at the waypoint: the twins of what the pods deny
	pairAllow = "allow" // at the waypoint: the twins of what the pods allow
	pairAdmit = "admit" // at the pods: the waypoint
)

var pairRoles = [...]string{pairPin, pairGuard, pairDeny, pairAllow, pairAdmit}

// pairing is what has to stand for a backend, so that its waypoint answers every caller as its pods do without it.
type pairing struct {
	*backend

	wanted   []*securityv1.AuthorizationPolicy // in order
	obstacle *obstacle                         // why it cannot be had, and nothing more of it is made
	narrow   []*securityv1.AuthorizationPolicy // twins to have in place of those that stand, where it cannot be had
	led      bool                              // it leads to a waypoint already without anything of ours, and that is how it is
	unseen   bool                              // it has no pod in the mesh that would tell: what stands stays
	lists    bool                              // the pods have a list of others, beside which the waypoint is admitted
	scoped   *scoped                           // what its list of callers becomes last of all; nil: it stays
	closed   bool                              // it has no list, and everybody but the gateways is to be refused
	pin      *securityv1.AuthorizationPolicy   // what keeps headers of the gateways from others; nil: nothing is to
}

// stays says whether what stands of a pairing stays as it is.
func (x *pairing) stays() bool { return x.obstacle != nil || x.unseen }

// pairKey is the policy of a Service that does one thing for the edge.
func (m *maker) pairKey(b *backend, role string) types.NamespacedName {
	of := sha256.Sum256([]byte(keyOf(m.Edge).String()))
	return types.NamespacedName{Namespace: b.key.Namespace, Name: fmt.Sprintf("%s%s-%x-%s", pairPrefix, b.key.Name, of[:4], role)}
}

// pairedFor is the Service that a policy by such a name is for, and what it does.
func pairedFor(o metav1.Object) (service types.NamespacedName, role string) {
	name, is := strings.CutPrefix(o.GetName(), pairPrefix)
	i := strings.LastIndexByte(name, '-')
	if !is || i < 0 || !slices.Contains(pairRoles[:], name[i+1:]) {
		return types.NamespacedName{}, ""
	}
	name, role = name[:i], name[i+1:]
	if i = strings.LastIndexByte(name, '-'); i < 0 {
		return types.NamespacedName{}, ""
	}
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: name[:i]}, role
}

// pairs says whether a policy is one of ours by which a waypoint answers as pods did, labelled still or not.
func (m *maker) pairs(p *securityv1.AuthorizationPolicy) bool {
	_, role := pairedFor(p)
	return role != "" && m.created(p)
}

// pairsFor says whether a policy is such a one of another AmbientEdge that is there, and keeps it up: it follows what stands at the pods as this does, and says
// nothing about what its namespace wants itself. One that nobody keeps up goes on letting in whom the pods have ceased to.
func (m *maker) pairsFor(p *securityv1.AuthorizationPolicy) bool {
	if _, role := pairedFor(p); role == "" {
		return false
	}
	for i := range m.Edges {
		e := &m.Edges[i]
		if e.Owner() != m.Edge.Owner() && (e.DeletionTimestamp != nil || e.Pairs() && e.Spec.Mode == v1alpha1.ModeManage) && p.Labels[v1alpha1.LabelOwner] == e.Owner() && slices.ContainsFunc(p.ManagedFields, func(f metav1.ManagedFieldsEntry) bool {
			return f.Manager == e.FieldOwner() && f.Operation == metav1.ManagedFieldsOperationUpdate && f.Subresource == ""
		}) {
			return true
		}
	}
	return false
}

// pair finds what has to stand for each backend before it is led to its waypoint, and adds the steps that make it and see it in force: first all at the
// waypoints, what denies before what allows, and then what admits the waypoints at the pods. From then on policies are looked at as if it stood.
func (m *maker) pair() {
	if !m.Edge.Pairs() {
		return
	}
	var theirs []*securityv1.AuthorizationPolicy
	for _, p := range m.Policies {
		if !m.pairs(p) && !m.pairsFor(p) && !m.witnessed(p) {
			theirs = append(theirs, p)
		}
	}
	m.policies = m.indexOf(theirs)
	for _, b := range m.backends {
		if b.wanted && !b.hidden {
			m.pairings = append(m.pairings, m.pairingOf(b, theirs))
			if m.pairingBy == nil {
				m.pairingBy = map[types.NamespacedName]*pairing{}
			}
			x := m.pairings[len(m.pairings)-1]
			m.pairingBy[b.key] = x
			for _, p := range x.narrow {
				service, _ := pairedFor(p)
				m.pairingBy[service] = x // which its guards are of
			}
		}
	}
	m.policies = m.indexOf(m.asPlanned())
	for _, role := range pairRoles {
		if role == pairAdmit {
			m.witness()
		}
		for _, x := range m.pairings {
			m.about(x.itself(), func() { m.pairSteps(x, role) })
		}
	}
	for _, x := range m.pairings {
		m.about(x.itself(), func() { m.hinders(x) })
		m.narrowSteps(x)
	}
}

// asPlanned are the policies that stand when the steps of pairings are done. Where one cannot be had, what stands stays.
func (m *maker) asPlanned() (list []*securityv1.AuthorizationPolicy) {
	for _, p := range m.Policies {
		service, _ := pairedFor(p)
		x := m.pairingFor(service)
		if !m.pairs(p) || x == nil || x.stays() && !slices.ContainsFunc(x.narrow, func(want *securityv1.AuthorizationPolicy) bool { return keyOf(want) == keyOf(p) }) {
			list = append(list, p)
		}
	}
	for _, x := range m.pairings {
		if list = append(list, x.narrow...); !x.stays() {
			list = append(list, x.wanted...)
		}
	}
	return list
}

// pairingFor is the pairing of a Service, or nil.
func (m *maker) pairingFor(service types.NamespacedName) *pairing { return m.pairingBy[service] }

// pairSteps adds the step of one policy of a pairing, where it is wanted.
func (m *maker) pairSteps(x *pairing, role string) {
	for _, want := range x.wanted {
		if _, is := pairedFor(want); is != role || x.stays() {
			continue
		}
		s := Step{part: partPair, of: x.itself(), Step: v1alpha1.Step{Verb: VerbPair, Object: object("AuthorizationPolicy", keyOf(want)), State: v1alpha1.StepNext, Reason: m.pairReason(x, role)}}
		if role == pairAdmit {
			s.of = m.samePods(x.backend)
		}
		m.pairStep(&s, x, want, role)
		if s.revokes = role != pairAdmit && m.present(x.backend) == x.waypoint && (!x.closed || m.paired(x.backend)); s.revokes {
			if role == pairAllow && x.scoped != nil {
				m.followRoutes(&s, want)
			}
			m.add(s)
			continue
		}
		m.add(s, partEnrol, partWaypoint, partPair, partWitness)
	}
}

// pairStep says how far a policy of a pairing is, and what is to be written for it.
func (m *maker) pairStep(s *Step, x *pairing, want *securityv1.AuthorizationPolicy, role string) {
	p := m.policyAt(keyOf(want))
	s.wants = func() *Write { return m.newPair(want, nil) }
	switch {
	case p != nil && !m.created(p):
		s.State, s.Reason = v1alpha1.StepBlocked, "another policy has its name"
		m.found(v1alpha1.Finding{
			Code: v1alpha1.FindingPair, Severity: v1alpha1.SeverityError, Object: s.Object,
			Message: fmt.Sprintf("this has the name of a policy that AmbientEdge %s would make for %s, and is none of its; it is not overwritten", keyOf(m.Edge), x.backend),
			Fix:     "delete it, or give it another name",
		})
	case p != nil && m.made(p) && sameRules(p, want) && !dryRun(p):
		m.seenInForce(s, x, p, role)
	case !m.ask(want.Namespace, securityGroup, "AuthorizationPolicy", "pair "+x.String()):
		s.State, s.Reason = v1alpha1.StepBlocked, "no consent"
	default:
		s.Write = m.newPair(want, p)
	}
}

func (m *maker) pairReason(x *pairing, role string) string {
	if role == pairAllow && x.closed {
		return fmt.Sprintf("have waypoint %s let the gateway in to %s, and nobody else", x.waypoint, x.backend)
	}
	switch role {
	case pairGuard:
		return fmt.Sprintf("have waypoint %s deny what the pods of %s, which admit it, would take for requests of that", x.waypoint, x.backend)
	case pairDeny:
		return fmt.Sprintf("have waypoint %s deny what the pods of %s deny to callers", x.waypoint, x.backend)
	case pairAllow:
		return fmt.Sprintf("have waypoint %s allow what the pods of %s allow to callers, and no more", x.waypoint, x.backend)
	}
	return fmt.Sprintf("have the pods of %s admit waypoint %s", x.backend, x.waypoint)
}

// Conditions that istiod gives policies, and why a policy for a Service without waypoint is not accepted yet.
const (
	conditionAtWaypoint = "WaypointAccepted"
	conditionAtZtunnel  = "ZtunnelAccepted"
	reasonNotBound      = "AncestorNotBound"
)

// seenInForce waits for istiod's word that it has a policy as it is, and sends it. One for a Service that does not lead to its waypoint is enforced from
// the moment when it does.
func (m *maker) seenInForce(s *Step, x *pairing, p *securityv1.AuthorizationPolicy, role string) {
	kind := conditionAtWaypoint
	if role == pairAdmit {
		kind = conditionAtZtunnel
	}
	_, leads := m.leads(x.backend)
	for _, c := range p.Status.GetConditions() {
		if c.GetType() != kind || c.GetObservedGeneration() < p.Generation {
			continue
		}
		switch {
		case c.GetStatus() == "True":
			s.State, s.Reason = v1alpha1.StepDone, s.Reason+": istiod has accepted it"
		case c.GetReason() == reasonNotBound && !leads:
			s.State, s.Reason = v1alpha1.StepDone, s.Reason+": istiod has read it"
		default:
			s.Reason = "istiod says: " + cmp.Or(c.GetMessage(), c.GetReason())
		}
		return
	}
	if s.Reason = "istiod has not said that it has read it"; m.untold(len(p.Status.GetConditions()), p.UID) {
		s.State, s.Reason = v1alpha1.StepUnknown, "whether istiod has read it is not in the files"
	}
}

// newPair is the write of a policy that is wanted, in place of one that stands.
func (m *maker) newPair(want, stands *securityv1.AuthorizationPolicy) *Write {
	spec := specOf(want)
	spec["action"] = want.Spec.GetAction().String()
	if spec["rules"] == nil {
		spec["rules"] = []any{} // what was there before goes
	}
	w := &Write{APIVersion: policyAPI, Kind: "AuthorizationPolicy", Key: keyOf(want), Fields: map[string]any{
		"metadata": map[string]any{"labels": map[string]any{v1alpha1.LabelOwner: m.Edge.Owner()}}, "spec": spec,
	}}
	return m.over(w, stands)
}

// specOf is a policy's spec as JSON has it.
func specOf(p *securityv1.AuthorizationPolicy) map[string]any {
	text, err := json.Marshal(&p.Spec)
	spec := map[string]any{}
	if err != nil || json.Unmarshal(text, &spec) != nil {
		return map[string]any{}
	}
	return spec
}

func sameRules(p, want *securityv1.AuthorizationPolicy) bool { return sameSpec(p, specOf(want)) }

// atService is a policy that a waypoint enforces for a backend.
func (m *maker) atService(b *backend, role string, action securityapi.AuthorizationPolicy_Action, rules []*securityapi.Rule) *securityv1.AuthorizationPolicy {
	p := m.planned(b, role)
	p.Spec.TargetRefs = []*typev1beta1.PolicyTargetReference{{Kind: "Service", Name: b.key.Name}}
	p.Spec.Action, p.Spec.Rules = action, rules
	return p
}

func (m *maker) planned(b *backend, role string) *securityv1.AuthorizationPolicy {
	key := m.pairKey(b, role)
	return &securityv1.AuthorizationPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
}
