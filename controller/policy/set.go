package policy

import (
	"cmp"
	"slices"
	"strconv"

	securityapi "istio.io/api/security/v1beta1"
	typev1beta1 "istio.io/api/type/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Mesh is what enforcement depends on: the policies, and what the mesh's configuration says. The policies must not change afterwards.
type Mesh struct {
	AuthorizationPolicies  []*securityv1.AuthorizationPolicy
	RequestAuthentications []*securityv1.RequestAuthentication
	PeerAuthentications    []*securityv1.PeerAuthentication

	// RootNamespace of the mesh. Empty means istio-system.
	RootNamespace string
	// TrustDomain of the mesh. Empty means cluster.local.
	TrustDomain string
	// TrustDomainAliases of the mesh. Waypoints take a principal of one domain for one of each; ztunnel does not.
	TrustDomainAliases []string
	// PathNormalization at waypoints.
	PathNormalization Normalization
	// Providers are the names of the extension providers for CUSTOM policies. Nil: they are not known, and each may be there.
	Providers []string
	// EnforceDryRun says that istiod sends dry-run policies to ztunnel, and to one before 1.29, which enforces them.
	EnforceDryRun bool
}

// Set is the policies of a mesh. It is immutable, and safe for concurrent use.
type Set struct{ m Mesh }

// New takes what there is.
func New(m Mesh) *Set {
	m.RootNamespace = cmp.Or(m.RootNamespace, "istio-system")
	m.TrustDomain = cmp.Or(m.TrustDomain, "cluster.local")
	return &Set{m}
}

// Workload is a pod, or what stands for one.
type Workload struct {
	Namespace string
	Labels    map[string]string
}

// Target is an object that targetRefs may name.
type Target struct{ Kind, Namespace, Name string }

// The kinds that policies at waypoints are attached to.
const (
	KindService      = "Service"
	KindServiceEntry = "ServiceEntry"
	KindGateway      = "Gateway"
	kindGatewayClass = "GatewayClass"
)

// WaypointClass is the class whose name stands for all waypoints, in the root namespace.
const WaypointClass = "istio-waypoint"

// targeted is the spec of a policy that may have targetRefs.
type targeted interface {
	GetTargetRef() *typev1beta1.PolicyTargetReference
	GetTargetRefs() []*typev1beta1.PolicyTargetReference
}

// refs are the targetRefs of a policy; the old field counts where there are none.
func refs(spec targeted) []*typev1beta1.PolicyTargetReference {
	if list := spec.GetTargetRefs(); len(list) > 0 {
		return list
	}
	if one := spec.GetTargetRef(); one != nil {
		return []*typev1beta1.PolicyTargetReference{one}
	}
	return nil
}

// attached says whether a waypoint enforces a policy for a service, or, with a zero one, for what has none.
func (s *Set) attached(o metav1.Object, spec targeted, waypoint, service Target) bool {
	return slices.ContainsFunc(refs(spec), func(r *typev1beta1.PolicyTargetReference) bool {
		t := Target{r.GetKind(), o.GetNamespace(), r.GetName()}
		switch t.Kind {
		case KindService, KindServiceEntry:
			group := ""
			if t.Kind == KindServiceEntry {
				group = "networking.istio.io"
			}
			return t == service && (r.GetGroup() == group || group == "" && r.GetGroup() == "core")
		case KindGateway:
			return t == waypoint && r.GetGroup() == gatewayGroup && (r.GetNamespace() == "" || r.GetNamespace() == t.Namespace)
		case kindGatewayClass:
			return r.GetGroup() == gatewayGroup && t.Name == WaypointClass && t.Namespace == s.m.RootNamespace
		}
		return false
	})
}

const gatewayGroup = "gateway.networking.k8s.io"

// selects says whether a selector takes labels.
func selects(selector *typev1beta1.WorkloadSelector, labels map[string]string) bool {
	for k, v := range selector.GetMatchLabels() {
		if is, ok := labels[k]; !ok || is != v {
			return false
		}
	}
	return true
}

// dry says whether a policy is only tried out.
func dry(o metav1.Object) bool {
	b, err := strconv.ParseBool(o.GetAnnotations()["istio.io/dry-run"])
	return b && err == nil
}

func refOf(kind string, o metav1.Object) Ref { return Ref{kind, o.GetNamespace(), o.GetName()} }

const (
	kindAuthorizationPolicy   = "AuthorizationPolicy"
	kindPeerAuthentication    = "PeerAuthentication"
	kindRequestAuthentication = "RequestAuthentication"
)

// Ztunnel is the enforcement in front of a workload, by ztunnel or by a server that enforces as it does.
func (s *Set) Ztunnel(w Workload) *Point {
	e := &engine{}
	for _, p := range s.m.AuthorizationPolicies {
		if !s.atWorkload(p, w) || dry(p) && !s.m.EnforceDryRun {
			continue
		}
		switch p.Spec.Action {
		case securityapi.AuthorizationPolicy_ALLOW:
			e.allow.add(refOf(kindAuthorizationPolicy, p), l4Rules(p))
		case securityapi.AuthorizationPolicy_DENY:
			e.deny.add(refOf(kindAuthorizationPolicy, p), l4Rules(p))
		}
	}
	point := &Point{http: e, tcp: e}
	if ref, rules, sent := s.strictness(w); !sent {
		point.Skipped = append(point.Skipped, ref)
	} else if !ref.IsZero() {
		e.deny.add(ref, rules)
	}
	e.build()
	return point
}

// atWorkload says whether a policy applies to a workload, by its place or its selector.
func (s *Set) atWorkload(p *securityv1.AuthorizationPolicy, w Workload) bool {
	switch {
	case len(refs(&p.Spec)) > 0 || p.Namespace != w.Namespace && p.Namespace != s.m.RootNamespace:
		return false
	case p.Spec.Selector == nil:
		return true
	}
	// A selector without labels makes it a policy that workloads list, and none does.
	return len(p.Spec.Selector.MatchLabels) > 0 && selects(p.Spec.Selector, w.Labels)
}

// Waypoint is the enforcement at a waypoint, for what is addressed to service. A zero service is a workload behind a waypoint for workloads.
// A target's Kind is KindGateway for the waypoint, KindService or KindServiceEntry for the service.
func (s *Set) Waypoint(waypoint, service Target) *Point {
	domains := append([]string{s.m.TrustDomain}, s.m.TrustDomainAliases...)
	point := &Point{waypoint: true, http: &engine{domains: domains, normalization: s.m.PathNormalization}, tcp: &engine{domains: domains, tcp: true}}
	var custom []*securityv1.AuthorizationPolicy
	for _, p := range s.m.AuthorizationPolicies {
		if !s.attached(p, &p.Spec, waypoint, service) || dry(p) {
			continue
		}
		if p.Spec.Action == securityapi.AuthorizationPolicy_CUSTOM {
			custom = append(custom, p)
			continue
		}
		for _, e := range []*engine{point.http, point.tcp} {
			switch p.Spec.Action {
			case securityapi.AuthorizationPolicy_ALLOW:
				e.allow.add(refOf(kindAuthorizationPolicy, p), s.l7Rules(p, e.tcp))
			case securityapi.AuthorizationPolicy_DENY:
				e.deny.add(refOf(kindAuthorizationPolicy, p), s.l7Rules(p, e.tcp))
			}
		}
	}
	for _, p := range custom {
		// One that is not there denies what it is to decide on. Several at one place may be taken or do so too, by a setting of istiod.
		name := p.Spec.GetProvider().GetName()
		refused := s.m.Providers != nil && !slices.Contains(s.m.Providers, name)
		for _, e := range []*engine{point.http, point.tcp} {
			to := &e.custom
			if refused {
				to = &e.deny
			}
			rules := s.l7Rules(p, e.tcp)
			for i := range rules {
				rules[i].provider = cmp.Or(name, "unnamed")
			}
			to.add(refOf(kindAuthorizationPolicy, p), rules)
		}
	}
	for _, p := range s.m.RequestAuthentications {
		if s.attached(p, &p.Spec, waypoint, service) {
			point.http.addTokens(p)
		}
	}
	point.http.build()
	point.tcp.build()
	return point
}
