package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	securityapi "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// authorize finds policies that a waypoint would void, or that let nobody through behind one, and those that refuse all that the gateways send. Behind a
// waypoint a pod's ztunnel sees the waypoint in place of the caller.
func (m *maker) authorize() {
	if len(m.Policies) == 0 {
		return // what is Strict takes everybody who has an identity
	}
	for _, b := range m.backends {
		if b.refused && b.hidden {
			continue
		}
		at := m.pods(b)
		m.cutOff(b, at)
		if b.refused {
			m.turnedAway(b, at)
			continue // but for the enrolment, and a switch of the gateway's, nothing changes for it
		}
		m.beginning(b, at)
		look := *b // bound notes what it finds
		if !b.wanted && m.bound(&look) {
			continue // where the gateway sends is not for us to say
		}
		m.about(b.itself(), func() {
			if !b.wanted || !slices.ContainsFunc(at, func(p *policy.Point) bool { return !m.keepsMeaning(b, p) }) {
				m.admitted(b, at)
			}
		})
	}
}

// keepsMeaning says whether policies at a backend's pods mean the same behind its waypoint, and finds those that do not: for every caller between whom
// they tell, and each port.
func (m *maker) keepsMeaning(b *backend, at *policy.Point) bool {
	list, waypoint := m.policiesAt(at), m.waypointIDs(b.waypoint)
	if len(list) == 0 || len(waypoint) == 0 {
		return true
	}
	callers := m.callers(list)
	for _, g := range m.gateways {
		callers = append(callers, parseIDs(g.identities(m.trustDomain()))...)
	}
	behind := &Behind{Pods: at, Waypoint: m.atWaypoint(b.waypoint, b.key), Seen: waypoint, Callers: callers}
	all := ports(b.service)
	for _, port := range all {
		behind.Ports = append(behind.Ports, port.request(policy.Values[spiffeid.ID]{}))
	}
	for v := range behind.Voids() {
		switch {
		case v.Kind == VoidAddress:
			m.voided(b, v.Pods, at, "decides by the caller's address, and %s see the waypoint's in its place", "let it tell callers apart by their identity; ")
		case v.Kind == VoidRefuses:
			m.cutsOff(b, v.Pods, at, all[v.Port], waypoint[0])
		case v.Alone && behind.Meant(&v, m.index().byRef[v.Pods.Policy]):
			continue
		default:
			m.voided(b, v.Pods, at, "refuses "+caller(callers[v.Caller])+", and %s see "+short(waypoint[0])+" in its place: nothing refuses that caller for sure", "")
		}
		return false
	}
	return true
}

// policiesAt are the AuthorizationPolicies of a point.
func (m *maker) policiesAt(at *policy.Point) (list []*securityv1.AuthorizationPolicy) {
	for _, ref := range at.Policies() {
		if p := m.index().byRef[ref]; p != nil {
			list = append(list, p)
		}
	}
	return list
}

// caller names an identity, or one that stands for all others.
func caller(id spiffeid.ID) string {
	if strings.Contains(id.String(), somebody) {
		return "a caller that it does not name"
	}
	return short(id)
}

// voided finds a policy at pods that a waypoint voids. what has a verb for those pods.
func (m *maker) voided(b *backend, d policy.Decision, at *policy.Point, what, first string) {
	obj, field := m.decider(b, d, m.policiesAt(at))
	m.once(v1alpha1.Finding{
		Code: v1alpha1.FindingVoided, Severity: v1alpha1.SeverityError, Object: obj, Field: field,
		Message: m.subject(b, obj) + " " + fmt.Sprintf(what, m.behind(b)), Fix: first + twin(b) + m.orPair(),
	})
}

// cutsOff finds that pods refuse the waypoint itself, and so everybody.
func (m *maker) cutsOff(b *backend, d policy.Decision, at *policy.Point, p port, waypoint spiffeid.ID) {
	obj, field := m.decider(b, d, m.policiesAt(at))
	fix := twin(b) + "; then have the policies at the pods admit principal " + short(waypoint) + " too" + m.orPair()
	if obj != b.String() {
		if all := at.WhyNot(p.request(policy.Of(waypoint))); len(all) > 0 {
			fix = twin(b) + "; then " + changes(all) + m.orPair()
			if ref := all[0].Policy; !ref.IsZero() {
				obj, field = ref.String(), "spec."+all[0].Field
			}
		}
	}
	m.once(v1alpha1.Finding{
		Code: v1alpha1.FindingVoided, Severity: v1alpha1.SeverityError, Object: obj, Field: field,
		Message: fmt.Sprintf("%s does not admit %s, which %s see in place of every caller: they refuse all requests", m.subject(b, obj), short(waypoint), m.behind(b)), Fix: fix,
	})
}

// subject is what a finding about a policy is about, where its object is the policy, or the Service.
func (m *maker) subject(b *backend, obj string) string {
	if obj == b.String() {
		return "a policy at its pods"
	}
	return "this"
}

func (m *maker) behind(b *backend) string {
	return fmt.Sprintf("the pods of %s behind waypoint %s", b, b.waypoint)
}

// twin is how a policy at pods is had at a waypoint.
func twin(b *backend) string {
	return fmt.Sprintf("create an AuthorizationPolicy with the same action and rules, and in place of a selector targetRefs: [{group: \"\", kind: Service, name: %s}]: the waypoint enforces it, for each caller", b.key.Name)
}

// orPair is the other way: what an AmbientEdge does that pairs.
func (m *maker) orPair() string {
	if m.Edge.Pairs() {
		return ""
	}
	return "; or have the AmbientEdge do so: set its spec.authorization.mode to Pair"
}

func changes(list []policy.Change) string {
	var texts []string
	for _, c := range list {
		texts = append(texts, c.String())
	}
	return strings.Join(texts, ", and ")
}

// decider is the object of a finding about a decision, with the field of its rule. Of a namespace that has not consented it tells no policy.
func (m *maker) decider(b *backend, d policy.Decision, list []*securityv1.AuthorizationPolicy) (obj, field string) {
	ref := d.Policy
	if ref.IsZero() { // none of several admits
		i := slices.IndexFunc(list, func(p *securityv1.AuthorizationPolicy) bool {
			return p.Spec.GetAction() == securityapi.AuthorizationPolicy_ALLOW
		})
		if i >= 0 {
			ref = policy.Ref{Kind: "AuthorizationPolicy", Namespace: list[i].Namespace, Name: list[i].Name}
		}
	}
	if ref.IsZero() || !m.consents(b.key.Namespace, "", "Service") {
		return b.String(), ""
	}
	switch field = "spec.rules"; {
	case d.Field != "":
		field = "spec." + d.Field
	case d.Rule >= 0:
		field = fmt.Sprintf("spec.rules[%d]", d.Rule)
	}
	return ref.String(), field
}

// admitted finds where everything that a gateway sends to a backend is refused, or will be when what is left to do is done.
func (m *maker) admitted(b *backend, at []*policy.Point) {
	for _, g := range m.gateways {
		ids := parseIDs(g.identities(m.trustDomain()))
		if len(ids) == 0 || g.capture == v1alpha1.CaptureNone {
			continue
		}
		request := everything(b)
		request.Source = policy.Of(ids...)
		who := ids[0]
		if b.wanted {
			point := m.atWaypoint(b.waypoint, b.key)
			if point.Decide(request).Verdict == policy.Deny {
				m.refuses(b, g, who, who, point, request, "at waypoint "+b.waypoint.String())
				continue
			}
			m.tokenless(b, g, who, point, request)
			seen := m.waypointIDs(b.waypoint)
			if len(seen) == 0 {
				continue
			}
			request.Source, who = policy.Of(seen...), seen[0]
		}
		if len(at) > 0 && !slices.ContainsFunc(at, func(p *policy.Point) bool { return p.Decide(request).Verdict != policy.Deny }) {
			m.refuses(b, g, ids[0], who, at[0], request, "at its pods")
		}
	}
}

// everything is the class of all requests to a backend.
func everything(b *backend) *policy.Request {
	r := &policy.Request{}
	var service, pod []uint16
	for _, p := range ports(b.service) {
		service, pod = append(service, p.service), append(pod, p.pod)
	}
	if !slices.Contains(service, 0) {
		r.ServicePort = policy.Of(service...)
	}
	if !slices.Contains(pod, 0) {
		r.WorkloadPort = policy.Of(pod...)
	}
	return r
}

// refuses finds that a gateway is not let through at a point, which sees another in its place behind a waypoint.
func (m *maker) refuses(b *backend, g *gateway, is, seen spiffeid.ID, point *policy.Point, r *policy.Request, where string) {
	obj, field := m.decider(b, point.Decide(r), m.policiesAt(point))
	f := v1alpha1.Finding{
		Code: v1alpha1.FindingNotAdmitted, Severity: v1alpha1.SeverityWarning, Object: obj, Field: field,
		Message: fmt.Sprintf("%s, every request of %s to %s is refused: principal %s is not admitted", where, g, b, short(is)),
		Fix:     "let the policies there admit principal " + short(seen),
	}
	if m.begins(b, g) {
		f.Severity = v1alpha1.SeverityError
		f.Message = fmt.Sprintf("%s, every request of %s to %s will be refused once it is enforced: principal %s is not admitted", where, g, b, short(is))
	}
	if f.Severity != v1alpha1.SeverityError && slices.ContainsFunc(m.plan.Findings, func(f v1alpha1.Finding) bool {
		return f.Code == v1alpha1.FindingNoConsent && f.Severity == v1alpha1.SeverityError && f.Object == "Namespace "+b.key.Namespace
	}) {
		f.Message += ". It is an error, which holds this back, once the namespace consents"
	}
	if obj != b.String() {
		one := *r
		one.Source = policy.Of(seen)
		f.Fix = cmp.Or(changes(point.WhyNot(&one)), f.Fix)
	}
	m.once(f)
}

// begins says whether a gateway is about to be led to a backend, and was not before: something is left to be written for it. What was done and got lost
// is mended all the same, as policies may refuse on purpose.
func (m *maker) begins(b *backend, g *gateway) bool {
	last, was := stepID(VerbVerify, g.String()), &m.Edge.Status
	if b.wanted {
		last = stepID(VerbConfirm, b.String())
	}
	if m.was(last) && (!b.wanted || m.wasSwitched(b)) || was.Plan.StepsLeftOut > 0 && meta.IsStatusConditionTrue(was.Conditions, v1alpha1.ConditionReady) {
		return false
	}
	return slices.ContainsFunc(m.plan.Steps, func(s Step) bool {
		its := s.part == partWaypoint && slices.Contains(s.of, b.String()) || s.part == partWire && s.concerns(b)
		return (s.part == partEnrol || b.wanted && its) && s.Write != nil
	})
}

// wasSwitched says whether all switches by which gateways send to a backend's address were set when the status was written. One that its owner leads to a
// waypoint is confirmed before the gateways follow.
func (m *maker) wasSwitched(b *backend) bool {
	return !slices.ContainsFunc(m.plan.Steps, func(s Step) bool {
		return s.Verb == VerbSwitch && s.concerns(b) && !m.was(stepID(s.Verb, s.Object))
	})
}

// once adds a finding, unless one with the same code is there for the object: one policy may be at many Services. A warning about one of them is no error
// about another.
func (m *maker) once(f v1alpha1.Finding) {
	o := find(m.plan.Findings, func(o *v1alpha1.Finding) bool {
		return o.Code == f.Code && o.Object == f.Object && o.Severity == f.Severity
	})
	if o == nil {
		m.found(f)
		return
	}
	m.plan.holds.add(o, m.whom...)
}
