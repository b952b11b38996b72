package plan

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	securityapi "istio.io/api/security/v1beta1"
	typev1beta1 "istio.io/api/type/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// A witness is how a waypoint shows that it enforces what was written for it, before anybody's requests depend on that: a Service without pods, led to the
// waypoint, and a policy for it, written after the twins, that denies every request but those on one path, which names the generations of the twins. A waypoint
// that answers on that path as one without endpoints does, and refuses on others, has a configuration as new as that policy, and so as the twins: istiod
// gives a waypoint all policies at once.

// witnessPrefix begins the name of a witness, and of its policy.
const witnessPrefix = "isthmus-witness-"

// witnessPort is where a witness is asked, by HTTP.
const witnessPort = 80

// WitnessFact says whether every pod of a waypoint that is ready has shown a path.
type WitnessFact struct {
	WaypointFact
	// Path is the one that was asked for.
	Path string
}

// witnessKey is the witness of a waypoint for the edge.
func (m *maker) witnessKey(waypoint types.NamespacedName) types.NamespacedName {
	of := sha256.Sum256([]byte(keyOf(m.Edge).String() + " " + waypoint.String()))
	return types.NamespacedName{Namespace: waypoint.Namespace, Name: fmt.Sprintf("%s%x", witnessPrefix, of[:6])}
}

// isWitness says whether an object is a witness, or its policy, that an AmbientEdge has made: its name says so, and who has created it.
func isWitness(o metav1.Object) bool {
	return strings.HasPrefix(o.GetName(), witnessPrefix) && slices.ContainsFunc(o.GetManagedFields(), func(f metav1.ManagedFieldsEntry) bool {
		return strings.HasPrefix(f.Manager, v1alpha1.FieldOwnerPrefix) && f.Operation == metav1.ManagedFieldsOperationUpdate && f.Subresource == ""
	})
}

// witnessed says whether a policy is that of a witness of this edge.
func (m *maker) witnessed(p *securityv1.AuthorizationPolicy) bool {
	return isWitness(p) && m.created(p)
}

// testimony is what a waypoint is to show.
type testimony struct {
	waypoint types.NamespacedName
	of       []string // Services whose twins all stand, and which wait for it
	twins    []string // these, and their generations
	maybe    string   // a policy of others that may refuse who asks
	stays    bool     // something of a pairing stands that is not looked at now: so does the witness
}

// testimonies are those of the waypoints at which there are twins.
func (m *maker) testimonies() []*testimony {
	by := map[types.NamespacedName]*testimony{}
	for _, x := range m.pairings {
		t := by[x.waypoint]
		if t == nil {
			t = &testimony{waypoint: x.waypoint}
			by[x.waypoint] = t
		}
		if x.stays() {
			t.stays = t.stays || m.paired(x.backend)
			continue
		}
		var twins []string
		all := true
		for _, want := range x.wanted {
			if !hasTargets(want) {
				continue
			}
			p := m.policyAt(keyOf(want))
			if p == nil || !m.made(p) || !sameRules(p, want) || dryRun(p) {
				t.stays, all = true, false
				break
			}
			twins = append(twins, fmt.Sprintf("%s %s %d", keyOf(p), p.UID, p.Generation))
		}
		if all && len(twins) > 0 {
			t.of, t.twins = append(t.of, x.String()), append(t.twins, twins...)
		}
	}
	var list []*testimony
	for _, key := range slices.SortedFunc(maps.Keys(by), compareKeys) {
		if t := by[key]; len(t.of) > 0 || t.stays {
			list = append(list, t)
		}
	}
	return list
}

// path is what a waypoint is asked for.
func (t *testimony) path() string {
	slices.Sort(t.twins)
	return WitnessPath(strings.Join(t.twins, "\n"))
}

// WitnessPath is the path that stands for a text.
func WitnessPath(text string) string {
	return fmt.Sprintf("/isthmus/%x", sha256.Sum256([]byte(text)))
}

// witness adds the steps by which waypoints show that they enforce the twins that stand. Services wait for it whose pods are to admit their waypoint, or
// that are to lead there.
func (m *maker) witness() {
	for _, t := range m.testimonies() {
		m.witnesses[m.witnessKey(t.waypoint)] = true
		if len(t.of) > 0 {
			m.about(t.of, func() { m.witnessOne(t) })
		}
	}
}

func (m *maker) witnessOne(t *testimony) {
	key := m.witnessKey(t.waypoint)
	add := func(s Step) {
		s.part, s.of = partWitness, t.of
		m.add(s, partEnrol, partWaypoint)
	}

	s := Step{Step: v1alpha1.Step{Verb: VerbWitness, Object: object("Service", key), State: v1alpha1.StepNext,
		Reason: fmt.Sprintf("make a Service without pods, by which waypoint %s shows what it enforces", t.waypoint)}}
	fields := m.witnessFields(t.waypoint)
	s.wants = func() *Write { return &Write{APIVersion: "v1", Kind: "Service", Key: key, Fields: fields} }
	switch o := m.service(key); {
	case o != nil && (!m.made(o) || !m.unchanged(o, t.waypoint)):
		s.State, s.Reason = v1alpha1.StepBlocked, "it is not as it was made"
		m.posed(s.Object, fmt.Sprintf("this has the name of the Service by which waypoint %s is to show what it enforces, and is none that AmbientEdge %s has made, or not as that was made: what it shows is not believed", t.waypoint, keyOf(m.Edge)))
	case o != nil:
		s.State, s.Reason = v1alpha1.StepDone, fmt.Sprintf("waypoint %s shows by it what it enforces", t.waypoint)
	case !m.ask(key.Namespace, "", "Service", "pair by waypoint "+t.waypoint.String()):
		s.State, s.Reason = v1alpha1.StepBlocked, "no consent"
	default:
		s.Write = s.wants()
	}
	add(s)

	want := m.witnessPolicy(t)
	s = Step{Step: v1alpha1.Step{Verb: VerbWitness, Object: object("AuthorizationPolicy", key), State: v1alpha1.StepNext,
		Reason: fmt.Sprintf("have waypoint %s tell by a path which twins it enforces", t.waypoint)}}
	s.wants = func() *Write { return m.newPair(m.witnessPolicy(&testimony{waypoint: t.waypoint}), nil) }
	switch p := m.policyAt(key); {
	case p != nil && !m.created(p):
		s.State, s.Reason = v1alpha1.StepBlocked, "another policy has its name"
		m.posed(s.Object, fmt.Sprintf("this has the name of a policy that AmbientEdge %s would make to see what waypoint %s enforces, and is none of its; it is not overwritten", keyOf(m.Edge), t.waypoint))
	case p != nil && m.made(p) && sameRules(p, want) && !dryRun(p):
		s.State = v1alpha1.StepDone
	case !m.ask(key.Namespace, securityGroup, "AuthorizationPolicy", "pair by waypoint "+t.waypoint.String()):
		s.State, s.Reason = v1alpha1.StepBlocked, "no consent"
	default:
		s.Write = m.newPair(want, p)
	}
	add(s)

	s = Step{Step: v1alpha1.Step{Verb: VerbWitness, Object: object("Gateway", t.waypoint), State: v1alpha1.StepNext}}
	switch fact := m.Shown[t.waypoint]; {
	case m.foreignAt(t, &s):
	case m.Hearsay:
		m.hearsay(&s, "its pods enforce the twins, as each has shown", "whether its pods enforce the twins was not asked from here")
	case !fact.Answers && m.Unable != "":
		s.Reason = "it cannot be asked: " + m.Unable
	case fact.Path != t.path():
		s.Reason = "its pods are to be asked whether they enforce the twins"
	case !fact.Answers:
		if s.Reason = "its pods do not enforce the twins yet: " + fact.Why; t.maybe != "" {
			m.found(v1alpha1.Finding{
				Code: v1alpha1.FindingPair, Severity: v1alpha1.SeverityWarning, Object: t.maybe, Field: "spec.targetRefs",
				Message: fmt.Sprintf("at waypoint %s, this may refuse the controller, which is to see there whether twins are in force: %s", t.waypoint, fact.Why),
				Fix:     "let it admit the controller's identity, or have it target the Services that it is for, in place of the waypoint",
			})
		}
	default:
		s.State, s.Reason = v1alpha1.StepDone, "its pods enforce the twins, as each has shown"
	}
	add(s)
}

// posed finds something in the place of a witness that is none of ours.
func (m *maker) posed(obj, message string) {
	m.found(v1alpha1.Finding{Code: v1alpha1.FindingPair, Severity: v1alpha1.SeverityError, Object: obj, Message: message, Fix: "delete it, or give it another name"})
}

// foreignAt finds policies of others at a waypoint that tell the witness's paths apart, or refuse the one that is asked for: what it answers there would
// prove nothing.
func (m *maker) foreignAt(t *testimony, s *Step) bool {
	was := m.policies
	defer func() { m.policies = was }()
	m.policies = m.indexOf(slices.DeleteFunc(among(m.Policies, t.waypoint.Namespace, m.Root()), m.witnessed))
	at := m.atWaypoint(t.waypoint, m.witnessKey(t.waypoint))
	decide := func(path string) policy.Decision {
		return at.Decide(&policy.Request{Method: policy.Of("GET"), Path: policy.Of(path), ServicePort: policy.Of[uint16](witnessPort)})
	}
	is, other := decide(t.path()), decide(WitnessPath(t.path()))
	var why string
	switch {
	case is != other:
		why = "tells paths apart by which the waypoint is to show what it enforces"
	case is.Verdict == policy.Deny:
		why = "refuses everybody who would ask it what it enforces"
	default:
		if is.Verdict == policy.Depends && !is.Policy.IsZero() {
			t.maybe = is.Policy.String()
		}
		return false
	}
	ref := is.Policy
	if ref.IsZero() {
		ref = other.Policy
	}
	obj := ref.String()
	if list := m.policiesAt(at); ref.IsZero() && len(list) > 0 {
		obj = object("AuthorizationPolicy", keyOf(list[0]))
	}
	s.State, s.Reason = v1alpha1.StepBlocked, "policies of others are in the way"
	m.found(v1alpha1.Finding{
		Code: v1alpha1.FindingPair, Severity: v1alpha1.SeverityError, Object: obj, Field: "spec.targetRefs",
		Message: fmt.Sprintf("at waypoint %s, this %s: AmbientEdge %s cannot see whether its twins are in force there, and leads nobody there", t.waypoint, why, keyOf(m.Edge)),
		Fix:     "have it target the Services that it is for, in place of the waypoint",
	})
	return true
}

func (m *maker) witnessFields(waypoint types.NamespacedName) map[string]any {
	return map[string]any{
		"metadata": map[string]any{"labels": map[string]any{v1alpha1.LabelOwner: m.Edge.Owner(), LabelUseWaypoint: waypoint.Name}},
		"spec":     map[string]any{"ports": []any{map[string]any{"name": "http", "port": int64(witnessPort), "protocol": "TCP"}}},
	}
}

// unchanged says whether a witness is as it was made.
func (m *maker) unchanged(o *corev1.Service, waypoint types.NamespacedName) bool {
	return o.DeletionTimestamp == nil && len(o.Spec.Selector) == 0 && (o.Spec.Type == "" || o.Spec.Type == corev1.ServiceTypeClusterIP) &&
		len(o.Spec.Ports) == 1 && o.Spec.Ports[0].Port == witnessPort && o.Spec.Ports[0].Name == "http" && o.Spec.Ports[0].AppProtocol == nil &&
		len(o.Spec.ExternalIPs) == 0 && ledTo(o) == waypoint
}

// witnessPolicy denies all requests to a witness but those on the path that its waypoint is asked for.
func (m *maker) witnessPolicy(t *testimony) *securityv1.AuthorizationPolicy {
	key := m.witnessKey(t.waypoint)
	p := &securityv1.AuthorizationPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
	p.Spec.TargetRefs = []*typev1beta1.PolicyTargetReference{{Kind: "Service", Name: key.Name}}
	p.Spec.Action = securityapi.AuthorizationPolicy_DENY
	p.Spec.Rules = []*securityapi.Rule{{To: []*securityapi.Rule_To{{Operation: &securityapi.Operation{NotPaths: []string{t.path()}}}}}}
	return p
}

// unwitness takes witnesses away that nobody asks any more.
func (m *maker) unwitness() {
	take := func(apiVersion, kind string, o metav1.Object) {
		if !isWitness(o) || !m.created(o) || m.witnesses[keyOf(o)] || o.GetDeletionTimestamp() != nil {
			return
		}
		obj := object(kind, keyOf(o))
		s := Step{part: partUnpair, Step: v1alpha1.Step{Verb: VerbUnpair, Object: obj, Reason: "nobody asks it any more"}}
		switch o.GetLabels()[v1alpha1.LabelOwner] {
		case m.Edge.Owner():
			s.Write = &Write{APIVersion: apiVersion, Kind: kind, Key: keyOf(o), UID: o.GetUID(), Delete: true}
			m.add(s, partUnpair)
		case "":
			m.orphan(s, groupOf(apiVersion), kind, fmt.Sprintf("this was made for this edge, and has lost its label: kubectl label %s -n %s %s %s=%s has it deleted, otherwise it is left behind",
				strings.ToLower(kind), o.GetNamespace(), o.GetName(), v1alpha1.LabelOwner, m.Edge.Owner()))
		}
	}
	for _, p := range m.Policies {
		take(policyAPI, "AuthorizationPolicy", p)
	}
	for i := range m.Services {
		take("v1", "Service", &m.Services[i])
	}
}

func groupOf(apiVersion string) string {
	group, _, is := strings.Cut(apiVersion, "/")
	if !is {
		return ""
	}
	return group
}

// WitnessToAsk is what the pods of a waypoint are to show.
type WitnessToAsk struct {
	Waypoint types.NamespacedName
	Service  *corev1.Service
	// Path is allowed by the policy as it stands, Hidden is not.
	Path, Hidden string
	// Pods are those of the waypoint, and IDs who they may be.
	Pods []*Pod
	IDs  []spiffeid.ID
}

// WitnessesToAsk are what stands of the edge's witnesses: what the snapshot needs facts about.
func WitnessesToAsk(s *Snapshot) (list []WitnessToAsk) {
	if s.Edge.DeletionTimestamp != nil || !s.Edge.Pairs() {
		return nil
	}
	m := &maker{Snapshot: s}
	for _, p := range s.policiesOf(witnessPrefix) {
		o := s.service(keyOf(p))
		if o == nil || !m.made(p) || !m.made(o) || dryRun(p) {
			continue
		}
		waypoint := ledTo(o)
		paths := pathsOf(p)
		if m.witnessKey(waypoint) != keyOf(p) || !m.unchanged(o, waypoint) || len(paths) != 1 {
			continue
		}
		q := WitnessToAsk{Waypoint: waypoint, Service: o, Path: paths[0], Hidden: WitnessPath(paths[0]), Pods: OwnWaypointPods(s, waypoint), IDs: WaypointIDs(s, waypoint)}
		list = append(list, q)
	}
	return list
}

// policiesOf are the policies whose names begin so.
func (s *Snapshot) policiesOf(prefix string) (list []*securityv1.AuthorizationPolicy) {
	for _, p := range s.Policies {
		if strings.HasPrefix(p.Name, prefix) {
			list = append(list, p)
		}
	}
	return list
}

// pathsOf are those that the policy of a witness lets through.
func pathsOf(p *securityv1.AuthorizationPolicy) []string {
	if rules := p.Spec.GetRules(); len(rules) == 1 && len(rules[0].GetTo()) == 1 {
		return rules[0].GetTo()[0].GetOperation().GetNotPaths()
	}
	return nil
}
