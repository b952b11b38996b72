package plan

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

const (
	securityGroup = "security.istio.io"
	policyAPI     = securityGroup + "/v1"
	lockPrefix    = "isthmus-lock-"
)

// lockKey is the policy that locks a Service's pods for the edge.
func (m *maker) lockKey(b *backend) types.NamespacedName {
	of := sha256.Sum256([]byte(keyOf(m.Edge).String()))
	return types.NamespacedName{Namespace: b.key.Namespace, Name: fmt.Sprintf("%s%s-%x", lockPrefix, b.key.Name, of[:4])}
}

// lockedBy is the Service whose pods a policy of ours locks, as its name says.
func lockedBy(p *securityv1.AuthorizationPolicy) types.NamespacedName {
	name := strings.TrimPrefix(p.Name, lockPrefix)
	if i := strings.LastIndexByte(name, '-'); i > 0 {
		name = name[:i]
	}
	return types.NamespacedName{Namespace: p.Namespace, Name: name}
}

// policyAt is an AuthorizationPolicy, or nil.
func (m *maker) policyAt(key types.NamespacedName) *securityv1.AuthorizationPolicy {
	for _, p := range m.policiesIn(key.Namespace) {
		if keyOf(p) == key {
			return p
		}
	}
	return nil
}

// lock adds the steps that keep the gateways' identities from the pods of their Services but by the waypoint. It comes when all else is done: whoever
// is kept from the pods before he goes by the waypoint is cut off.
func (m *maker) lock() {
	if !m.Edge.Locks() {
		return
	}
	for _, b := range m.backends {
		if b.wanted {
			m.about(b.itself(), func() {
				m.lockOne(b)
				if x := m.pairingFor(b.key); x != nil && x.closed && !x.stays() {
					m.closeOne(x)
				}
			})
		}
	}
}

func (m *maker) lockOne(b *backend) {
	key := m.lockKey(b)
	s := Step{part: partLock, of: m.samePods(b), Step: v1alpha1.Step{
		Verb: VerbLock, Object: object("AuthorizationPolicy", key), State: v1alpha1.StepDone,
		Reason: fmt.Sprintf("the gateway reaches the pods of %s by waypoint %s only", b, b.waypoint),
	}}
	p := m.policyAt(key)
	if p != nil && !m.created(p) {
		// Its name can be known beforehand: whoever may make policies there stops what is his, and nothing else.
		s.State, s.Reason = v1alpha1.StepBlocked, "another policy has its name"
		m.notLocked(b, s.Object+" is there by the name of the lock, and none of this AmbientEdge's; it is not overwritten", "delete it, or give it another name")
		m.add(s)
		return
	}
	spec, why, fix := m.lockSpec(b)
	if why == "" && p == nil {
		why, fix = m.notYet()
	}
	if why == "" && p == nil {
		m.willWait(b)
	}
	switch {
	case why != "":
		// One that is there stays: it is for the controller to tell, and not to open.
		s.State, s.Reason = v1alpha1.StepBlocked, why
		m.notLocked(b, why, fix)
		if p != nil {
			f := &m.plan.Findings[len(m.plan.Findings)-1]
			f.Message = fmt.Sprintf("%s locks the pods of this Service for the gateway, and should not as things are: %s; it stays as it is", object("AuthorizationPolicy", key), why)
		}
	case p == nil || !m.made(p) || !sameSpec(p, spec) || dryRun(p):
		s.State, s.Reason = v1alpha1.StepNext, fmt.Sprintf("have the gateway reach the pods of %s by waypoint %s only", b, b.waypoint)
		if !m.ask(key.Namespace, securityGroup, "AuthorizationPolicy", "lock "+b.String()) {
			s.State, s.Reason = v1alpha1.StepBlocked, "no consent"
			break
		}
		s.Write = m.over(m.newLock(key, spec), p) // somebody has changed it, or it is for other pods or ports now
	}
	if spec != nil {
		s.wants = func() *Write { return m.newLock(key, spec) }
	}
	m.add(s, partEnrol, partWaypoint, partPair, partWitness, partWire)
}

// notLocked finds a Service whose pods are not locked.
func (m *maker) notLocked(b *backend, why, fix string) {
	m.found(v1alpha1.Finding{
		Code: v1alpha1.FindingNotLocked, Severity: v1alpha1.SeverityWarning, Object: b.String(), Field: "spec",
		Message: fmt.Sprintf("authorization Lock is asked for, and the pods of this Service are not locked for the gateway: %s", why), Fix: fix,
	})
}

func (m *maker) newLock(key types.NamespacedName, spec map[string]any) *Write {
	return &Write{APIVersion: policyAPI, Kind: "AuthorizationPolicy", Key: key, Fields: map[string]any{
		"metadata": map[string]any{"labels": map[string]any{v1alpha1.LabelOwner: m.Edge.Owner()}}, "spec": spec,
	}}
}

// lockSpec is the policy's spec, or why there must be none and what to do.
func (m *maker) lockSpec(b *backend) (spec map[string]any, why, fix string) {
	selector := b.service.Spec.Selector
	if len(selector) == 0 {
		return nil, "it selects no pods", "give it a selector, or take it from what the AmbientEdge sends to"
	}
	principals, why, fix := m.principals()
	if why != "" {
		return nil, why, fix
	}
	return m.denySpec(b, map[string]any{"principals": texted(principals)})
}

// denySpec is a policy that denies a source the pods of a backend, on its ports, or why there must be none and what to do.
func (m *maker) denySpec(b *backend, source map[string]any) (spec map[string]any, why, fix string) {
	selector := b.service.Spec.Selector
	if b.key.Namespace == m.Root() {
		return nil, "it is in the root namespace of the mesh, where a policy for its pods would be for those of all namespaces with such labels", "have it in a namespace of its own"
	}
	pods := m.podsWith(b.key.Namespace, selector)
	ports, named := portsOf(b.service, pods)
	if named != "" {
		return nil, fmt.Sprintf("none of its pods says which port %s is", named), "name the port in the pods' containers, or give the Service its number"
	}
	if len(ports) == 0 {
		return nil, "it has no TCP port", "take it from what the AmbientEdge sends to"
	}
	if other := m.alsoServed(b, pods, ports); other != "" {
		return nil, fmt.Sprintf("its pods serve %s on the same port too, which leads to no waypoint for this gateway: that would be denied with it", other),
			"have this AmbientEdge send to that too, if it is a Service, or give it a port of its own"
	}
	labels := map[string]any{}
	for k, v := range selector {
		labels[k] = v
	}
	return map[string]any{
		"selector": map[string]any{"matchLabels": labels},
		"action":   "DENY",
		"rules": []any{map[string]any{
			"from": []any{map[string]any{"source": source}},
			"to":   []any{map[string]any{"operation": map[string]any{"ports": texted(ports)}}},
		}},
	}, "", ""
}

// principals are the gateways' identities as policies have them, or why they cannot be locked out.
func (m *maker) principals() (list []string, why, fix string) {
	for _, g := range m.gateways {
		if g.capture == v1alpha1.CaptureNone {
			return nil, g.String() + " is outside the mesh, and has no identity", "set spec.capture to Auto"
		}
		ids := g.identities(m.trustDomain())
		if len(ids) == 0 {
			return nil, g.String() + " has no pods to tell its identity", "start its pods"
		}
		if p := m.sharer(ids); p != nil {
			return nil, fmt.Sprintf("%s has the service account of %s, and would be kept from the pods with it", object("Pod", keyOf(p)), g),
				"give the gateway a service account of its own"
		}
		for _, id := range ids {
			list = append(list, strings.TrimPrefix(id, "spiffe://"))
		}
	}
	if len(list) == 0 {
		return nil, "there is no gateway", "correct the names of the gateways"
	}
	slices.Sort(list)
	return slices.Compact(list), "", ""
}

// sharer is a pod with one of the gateways' identities that is none of theirs, or nil.
func (m *maker) sharer(ids []string) *Pod {
	for i := range m.Pods {
		if p := &m.Pods[i]; slices.Contains(ids, identity(m.trustDomain(), p)) && alive(p) && !m.ofGateways(p) {
			return p
		}
	}
	return nil
}

// ofGateways says whether a pod is of one of the gateways.
func (m *maker) ofGateways(p *Pod) bool {
	return slices.ContainsFunc(m.gateways, func(g *gateway) bool {
		return slices.ContainsFunc(g.pods, func(o *Pod) bool { return keyOf(o) == keyOf(p) })
	})
}

// notYet says why a lock has to wait, though its steps before are done: connections from before the wiring would be cut by it.
func (m *maker) notYet() (why, fix string) {
	f := find(m.plan.Findings, func(f *v1alpha1.Finding) bool { return f.Code == v1alpha1.FindingEarlier })
	if f == nil {
		return "", ""
	}
	return f.Object + " may have connections from before, which would be cut", f.Fix
}

// portsOf are the ports of pods that a Service leads to by TCP, or the name of one whose number no pod tells.
func portsOf(s *corev1.Service, pods []*Pod) (ports []string, unknown string) {
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		switch target := p.TargetPort; {
		case p.Protocol != "" && p.Protocol != corev1.ProtocolTCP:
		case target.Type == intstr.String:
			numbers := numbersOf(target.StrVal, pods)
			if len(numbers) == 0 {
				return nil, target.StrVal
			}
			ports = append(ports, numbers...)
		case target.IntVal != 0:
			ports = append(ports, strconv.Itoa(int(target.IntVal)))
		default:
			ports = append(ports, strconv.Itoa(int(p.Port)))
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports), ""
}

// numbersOf are what pods understand by the name of a port.
func numbersOf(name string, pods []*Pod) (numbers []string) {
	for _, pod := range pods {
		for i := range pod.Spec.Containers {
			for _, p := range pod.Spec.Containers[i].Ports {
				if p.Name == name {
					numbers = append(numbers, strconv.Itoa(int(p.ContainerPort)))
				}
			}
		}
	}
	return numbers
}

// alsoServed is another Service of the same pods and ports that is none of the edge's wired ones, or "".
func (m *maker) alsoServed(b *backend, pods []*Pod, ports []string) string {
	for _, o := range m.servicesIn(b.key.Namespace) {
		key := keyOf(o)
		if key == b.key || len(o.Spec.Selector) == 0 ||
			slices.ContainsFunc(m.backends, func(b *backend) bool { return b.wanted && b.key == key }) {
			continue
		}
		var both []*Pod
		for _, p := range pods {
			if hasLabels(p.Labels, o.Spec.Selector) {
				both = append(both, p)
			}
		}
		if len(both) == 0 {
			continue
		}
		theirs, unknown := portsOf(o, both)
		if unknown != "" || slices.ContainsFunc(theirs, func(port string) bool { return slices.Contains(ports, port) }) {
			return object("Service", key)
		}
	}
	return m.alsoEntered(b, pods, ports)
}

// alsoEntered is a ServiceEntry of the same pods and ports, or "": it leads there as a Service does, and none is wired.
func (m *maker) alsoEntered(b *backend, pods []*Pod, ports []string) string {
	for _, o := range m.ServiceEntries {
		if o.GetNamespace() != b.key.Namespace {
			continue
		}
		labels, _, _ := unstructured.NestedStringMap(o.Object, "spec", "workloadSelector", "labels")
		if !slices.ContainsFunc(pods, func(p *Pod) bool { return hasLabels(p.Labels, labels) }) {
			continue
		}
		for _, port := range items(o.Object, []string{"spec", "ports"}) {
			number, _ := port["targetPort"].(int64)
			if number == 0 {
				number, _ = port["number"].(int64)
			}
			if slices.Contains(ports, strconv.FormatInt(number, 10)) {
				return object("ServiceEntry", keyOf(o))
			}
		}
	}
	return ""
}

// samePods are a backend, and the other wanted ones that its pods serve too: a lock would cut off one that leads to no waypoint yet.
func (m *maker) samePods(b *backend) []string {
	list := b.itself()
	pods := m.podsWith(b.key.Namespace, b.service.Spec.Selector)
	for _, o := range m.backends {
		if o != b && o.wanted && o.key.Namespace == b.key.Namespace &&
			slices.ContainsFunc(pods, func(p *Pod) bool { return hasLabels(p.Labels, o.service.Spec.Selector) }) {
			list = append(list, o.String())
		}
	}
	return list
}

func texted(list []string) []any {
	out := make([]any, len(list))
	for i := range list {
		out[i] = list[i]
	}
	return out
}

// sameSpec says whether a policy is what is wanted.
func sameSpec(p *securityv1.AuthorizationPolicy, want map[string]any) bool {
	text, err := json.Marshal(&p.Spec)
	if err != nil {
		return false
	}
	var is map[string]any
	return json.Unmarshal(text, &is) == nil && reflect.DeepEqual(is, want)
}

// deniedBy are the Services whose pods a lock denies to the gateway: the one that it is for, and others of its namespace with pods that it selects.
func (m *maker) deniedBy(lock *securityv1.AuthorizationPolicy) []string {
	list := []string{object("Service", lockedBy(lock))}
	selector := lock.Spec.GetSelector().GetMatchLabels()
	selected := m.podsWith(lock.Namespace, selector)
	for _, s := range m.servicesIn(lock.Namespace) {
		if slices.Contains(list, object("Service", keyOf(s))) {
			continue
		}
		if hasLabels(s.Spec.Selector, selector) || slices.ContainsFunc(selected, func(p *Pod) bool { return hasLabels(p.Labels, s.Spec.Selector) }) {
			list = append(list, object("Service", keyOf(s)))
		}
	}
	return list
}

// unlock deletes our policies of Services that are not kept, so that the way to the pods is open before Services lead there again.
func (m *maker) unlock(keep map[types.NamespacedName]bool) {
	kept := map[types.NamespacedName]bool{}
	for key, is := range keep {
		if is && m.Edge.Locks() {
			kept[m.lockKey(&backend{key: key})] = true
			kept[m.closeKey(&backend{key: key})] = m.keepsClosed(key)
		}
	}
	for _, p := range m.Policies {
		if kept[keyOf(p)] || !m.created(p) || m.pairs(p) || m.witnessed(p) {
			continue
		}
		obj := object("AuthorizationPolicy", keyOf(p))
		of := m.deniedBy(p)
		switch p.Labels[v1alpha1.LabelOwner] {
		case m.Edge.Owner():
			m.add(Step{
				part: partUnlock, of: of, Step: v1alpha1.Step{Verb: VerbUnlock, Object: obj, Reason: "let the gateway reach the pods again"},
				Write: &Write{APIVersion: policyAPI, Kind: "AuthorizationPolicy", Key: keyOf(p), UID: p.UID, Delete: true},
			})
		case "":
			m.orphan(Step{part: partUnlock, of: of, Step: v1alpha1.Step{Verb: VerbUnlock, Object: obj}}, securityGroup, "AuthorizationPolicy", fmt.Sprintf("this policy was made for this edge, and has lost its label: "+
				"kubectl label authorizationpolicy -n %s %s %s=%s has it deleted, otherwise it goes on denying", p.Namespace, p.Name, v1alpha1.LabelOwner, m.Edge.Owner()))
		}
	}
}
