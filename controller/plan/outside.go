package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// inbound is what ztunnel enforces before pods: what PeerAuthentications ask, and AuthorizationPolicies.
type inbound struct{ strictness, policies *policy.Set }

// gate is inbound of the snapshot, made once.
func (m *maker) gate() *inbound {
	if m.inbound == nil {
		m.inbound = &inbound{
			policy.New(policy.Mesh{PeerAuthentications: m.Strictness, RootNamespace: m.Root(), TrustDomain: m.trustDomain()}),
			policy.New(policy.Mesh{AuthorizationPolicies: m.Policies, RootNamespace: m.Root(), TrustDomain: m.trustDomain()}),
		}
	}
	return m.inbound
}

// refusesOutside says why a captured gateway would refuse some who may call it now, or "": PeerAuthentication STRICT holds for its pods or one of
// their ports, or an AuthorizationPolicy that nobody enforces before it is captured. A policy counts where that is still to come: one that came later
// is meant. The API server is among the callers where one of its webhooks is in the same pods.
func (m *maker) refusesOutside(g *gateway) string {
	settled := m.takesInbound(g)
	for _, p := range m.expected(g) {
		w := policy.Workload{Namespace: p.Namespace, Labels: p.Labels}
		by := ""
		if d := m.gate().strictness.Ztunnel(w).Decide(&policy.Request{Source: policy.Absent[spiffeid.ID]()}); d.Verdict != policy.Allow {
			by = strictly(d)
		} else if point := m.gate().policies.Ztunnel(w); !settled {
			if d := point.Decide(&policy.Request{}); d.Verdict != policy.Allow {
				by = deciders(point, d) + " does not let in all who may call it now"
			}
		}
		if by == "" {
			continue
		}
		if callee := m.called(p); callee != nil {
			return fmt.Sprintf("%s, and the API server calls it for %s", by, callee.By)
		}
		return by
	}
	return ""
}

// expected are the pods of a gateway, or what they will be like where there are none yet.
func (m *maker) expected(g *gateway) []*Pod {
	if len(g.pods) > 0 {
		return g.pods
	}
	like := func(namespace string, labels map[string]string) *Pod {
		return &Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Labels: labels}}
	}
	var list []*Pod
	for _, w := range g.workloads {
		list = append(list, like(w.key.Namespace, w.template.Labels))
	}
	if len(list) == 0 {
		list = append(list, like(g.key.Namespace, map[string]string{edge.LabelGatewayName: g.key.Name}))
	}
	return list
}

// strictly says who asks for mTLS, and where.
func strictly(d policy.Decision) string {
	port, ok := strings.CutPrefix(d.Field, "portLevelMtls[")
	if !ok {
		return d.Policy.String() + " is STRICT for it"
	}
	return d.Policy.String() + " is STRICT for its port " + strings.TrimSuffix(port, "]")
}

// deciders are the policies that a decision of a point comes from.
func deciders(point *policy.Point, d policy.Decision) string {
	if !d.Policy.IsZero() {
		return d.Policy.String()
	}
	var names []string
	for _, p := range point.Policies() {
		names = append(names, p.String())
	}
	return listed(names)
}

// takesInbound says whether ztunnel carries what comes to a gateway already, or is to by a label that is set: policies before it are enforced then, as
// their authors see.
func (m *maker) takesInbound(g *gateway) bool {
	if slices.ContainsFunc(g.pods, func(p *Pod) bool { return captured(p) && p.Annotations[AnnotationBypassInbound] != "true" }) {
		return true
	}
	if ns := m.namespace(m.Edge.Namespace); ns != nil && holds(ns, m.Edge.FieldOwner(), labelled(LabelDataplaneMode, "").managed()...) {
		return true
	}
	mine := func(c carrier, at ...string) bool {
		_, bypass := value(c.object, annotated(AnnotationBypassInbound, "", at...).path)
		return !bypass && holds(c.object, m.Edge.FieldOwner(), labelled(LabelDataplaneMode, "", at...).managed()...)
	}
	return g.object != nil && mine(carrier{gatewayAPI, "Gateway", g.object}, "spec", "infrastructure") ||
		slices.ContainsFunc(g.workloads, func(w *workload) bool { return mine(w.carrier, "spec", "template", "metadata") })
}

// refused finds a gateway that is captured by others and refuses those outside.
func (m *maker) refused(g *gateway, strict string) {
	if strict == "" {
		return
	}
	for _, p := range g.pods {
		if p.Annotations[AnnotationBypassInbound] == "true" {
			continue
		}
		m.refusesClients(g, p, strict, exception)
		return // one is enough
	}
}

// shut finds a gateway that is captured and refuses all who call one of its ports from outside the mesh, whoever has captured it and since when.
func (m *maker) shut(g *gateway) {
	if slices.ContainsFunc(m.plan.Findings, func(f v1alpha1.Finding) bool { return f.Code == v1alpha1.FindingRefusesOutside }) {
		return
	}
	for _, p := range g.pods {
		if !captured(p) || p.Annotations[AnnotationBypassInbound] == "true" {
			continue
		}
		w := policy.Workload{Namespace: p.Namespace, Labels: p.Labels}
		strictness, policies := m.gate().strictness.Ztunnel(w), m.gate().policies.Ztunnel(w)
		for _, r := range m.fromOutside(p) {
			if d := strictness.Decide(&r); d.Verdict == policy.Deny {
				m.refusesClients(g, p, strictly(d), exception)
				return
			}
			if d := policies.Decide(&r); d.Verdict == policy.Deny {
				m.refusesClients(g, p, deciders(policies, d)+" lets in nobody without an identity of the mesh", "let a policy allow what comes without an identity: a rule without from")
				return
			}
		}
	}
}

// fromOutside are the requests that come to a pod from outside the mesh: to any port, and to each that a Service leads to.
func (m *maker) fromOutside(p *Pod) []policy.Request {
	outside := policy.Request{Source: policy.Absent[spiffeid.ID]()}
	list := []policy.Request{outside}
	for _, s := range m.servicesIn(p.Namespace) {
		if !hasLabels(p.Labels, s.Spec.Selector) {
			continue
		}
		for j := range s.Spec.Ports {
			port := s.Spec.Ports[j].TargetPort.IntVal
			if s.Spec.Ports[j].TargetPort == (intstr.IntOrString{}) {
				port = s.Spec.Ports[j].Port
			}
			if port > 0 && port < 1<<16 { // others have a name, which only the pod knows
				r := outside
				r.WorkloadPort = policy.Of(uint16(port))
				list = append(list, r)
			}
		}
	}
	return list
}

const exception = "make an exception with a PeerAuthentication PERMISSIVE for it"

func (m *maker) refusesClients(g *gateway, p *Pod, why, or string) {
	m.found(v1alpha1.Finding{
		Code: v1alpha1.FindingRefusesOutside, Severity: v1alpha1.SeverityWarning, Object: object("Pod", keyOf(p)), Field: "metadata.annotations[" + AnnotationBypassInbound + "]",
		Message: fmt.Sprintf("this pod of %s refuses those who call it from outside the mesh: %s", g, why),
		Fix:     "annotate its pod template with " + AnnotationBypassInbound + "=true, or " + or,
	})
}

// takeInbound makes a step take our bypass of inbound capture from an object, where nothing asks for it any more. want and all are as for put.
func (m *maker) takeInbound(s *Step, c carrier, want, all []setting, at ...string) {
	path := annotated(AnnotationBypassInbound, "", at...)
	if s.State != v1alpha1.StepDone || !holds(c.object, m.Edge.FieldOwner(), path.managed()...) {
		return // a write takes it away by itself
	}
	fields := map[string]any{}
	for _, x := range slices.Concat(want, all) {
		if is, set := value(c.object, x.path); set && x.field() != path.field() && holds(c.object, m.Edge.FieldOwner(), x.managed()...) {
			nest(fields, x.path, is)
		}
	}
	s.State, s.Reason = v1alpha1.StepNext, "leave its inbound connections to the mesh again: nothing refuses those who call it"
	s.Write = &Write{APIVersion: c.apiVersion, Kind: c.kind, Key: keyOf(c.object), UID: c.object.GetUID(), Fields: fields}
}

// called says whether the API server calls a pod, by a Service that selects it. Nil: it does not.
func (m *maker) called(p *Pod) *Callee {
	for i := range m.Callees {
		c := &m.Callees[i]
		if c.Service.Namespace != p.Namespace {
			continue
		}
		if s := m.service(c.Service); s != nil && hasLabels(p.Labels, s.Spec.Selector) {
			return c
		}
	}
	return nil
}
