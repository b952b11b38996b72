package explain

import (
	"maps"
	"slices"
	"strings"

	securityapi "istio.io/api/security/v1beta1"
	typev1beta1 "istio.io/api/type/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/check"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// points are the enforcement points of a world, each compiled once, of those policies alone that may be in force there.
type points struct {
	w *check.World

	atPods    map[string][]*securityv1.AuthorizationPolicy // by namespace, those without targetRefs
	targeting map[string][]*securityv1.AuthorizationPolicy // by what they name
	tokens    map[string][]*securityv1.RequestAuthentication
	strict    map[string][]*securityv1.PeerAuthentication // by namespace
	selected  map[string]map[string]bool                  // labels that selectors of a namespace tell apart

	ztunnels  map[string]*policy.Point
	waypoints map[[2]types.NamespacedName]*policy.Point
}

func newPoints(w *check.World) *points {
	p := &points{
		w: w, atPods: map[string][]*securityv1.AuthorizationPolicy{}, targeting: map[string][]*securityv1.AuthorizationPolicy{},
		tokens: map[string][]*securityv1.RequestAuthentication{}, strict: map[string][]*securityv1.PeerAuthentication{}, selected: map[string]map[string]bool{},
		ztunnels: map[string]*policy.Point{}, waypoints: map[[2]types.NamespacedName]*policy.Point{},
	}
	for _, o := range w.Policies {
		if names := targets(o, &o.Spec); len(names) > 0 {
			for _, name := range names {
				p.targeting[name] = append(p.targeting[name], o)
			}
			continue
		}
		p.atPods[o.Namespace] = append(p.atPods[o.Namespace], o)
		p.tellsApart(o.Namespace, o.Spec.GetSelector().GetMatchLabels())
	}
	for _, o := range w.RequestAuthentications {
		for _, name := range targets(o, &o.Spec) {
			p.tokens[name] = append(p.tokens[name], o)
		}
	}
	for _, o := range w.Strictness {
		p.strict[o.Namespace] = append(p.strict[o.Namespace], o)
		p.tellsApart(o.Namespace, o.Spec.GetSelector().GetMatchLabels())
	}
	return p
}

func (p *points) tellsApart(namespace string, labels map[string]string) {
	for k := range labels {
		if p.selected[namespace] == nil {
			p.selected[namespace] = map[string]bool{}
		}
		p.selected[namespace][k] = true
	}
}

// targets are what the targetRefs of a policy name, each once.
func targets(o metav1.Object, spec interface {
	GetTargetRef() *typev1beta1.PolicyTargetReference
	GetTargetRefs() []*typev1beta1.PolicyTargetReference
}) (names []string) {
	for _, ref := range append(slices.Clip(spec.GetTargetRefs()), spec.GetTargetRef()) {
		if ref != nil {
			names = append(names, targetName(ref.GetKind(), types.NamespacedName{Namespace: o.GetNamespace(), Name: ref.GetName()}))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func targetName(kind string, key types.NamespacedName) string { return kind + " " + key.String() }

// labelsKey are the labels of a pod between which policies tell.
func (p *points) labelsKey(namespace string, labels map[string]string) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		if p.selected[namespace][k] || p.selected[p.w.Root()][k] {
			b.WriteString(k + "=" + labels[k] + "\n")
		}
	}
	return b.String()
}

// ztunnel is the enforcement in front of a pod.
func (p *points) ztunnel(namespace string, labels map[string]string) *policy.Point {
	key := namespace + "\n" + p.labelsKey(namespace, labels)
	point := p.ztunnels[key]
	if point == nil {
		m := p.mesh()
		for _, ns := range slices.Compact([]string{namespace, p.w.Root()}) {
			m.AuthorizationPolicies = append(m.AuthorizationPolicies, p.atPods[ns]...)
			m.PeerAuthentications = append(m.PeerAuthentications, p.strict[ns]...)
		}
		point = policy.New(m).Ztunnel(policy.Workload{Namespace: namespace, Labels: labels})
		p.ztunnels[key] = point
	}
	return point
}

// waypoint is the enforcement at a waypoint, for a Service; a zero one is a workload behind a waypoint for workloads.
func (p *points) waypoint(waypoint, service types.NamespacedName) *policy.Point {
	key := [2]types.NamespacedName{waypoint, service}
	point := p.waypoints[key]
	if point == nil {
		m := p.mesh()
		names := []string{
			targetName(policy.KindGateway, waypoint), targetName("GatewayClass", types.NamespacedName{Namespace: p.w.Root(), Name: policy.WaypointClass}),
		}
		var of policy.Target
		if service.Name != "" {
			names = append(names, targetName(policy.KindService, service))
			of = policy.Target{Kind: policy.KindService, Namespace: service.Namespace, Name: service.Name}
		}
		for _, name := range names {
			m.AuthorizationPolicies = addNew(m.AuthorizationPolicies, p.targeting[name])
			m.RequestAuthentications = addNew(m.RequestAuthentications, p.tokens[name])
		}
		point = policy.New(m).Waypoint(policy.Target{Kind: policy.KindGateway, Namespace: waypoint.Namespace, Name: waypoint.Name}, of)
		p.waypoints[key] = point
	}
	return point
}

// addNew adds those that are not there yet: a policy may name a Service and its waypoint.
func addNew[T comparable](list, more []T) []T {
	for _, o := range more {
		if !slices.Contains(list, o) {
			list = append(list, o)
		}
	}
	return list
}

func (p *points) mesh() policy.Mesh {
	return policy.Mesh{
		RootNamespace: p.w.Root(), TrustDomain: p.w.Mesh.TrustDomain, TrustDomainAliases: p.w.Mesh.TrustDomainAliases,
		PathNormalization: p.w.Mesh.PathNormalization, Providers: p.w.Mesh.Providers,
	}
}

// policy finds the AuthorizationPolicy that a decision names, or is nil.
func (p *points) policy(ref policy.Ref) *securityv1.AuthorizationPolicy {
	for _, o := range p.w.PoliciesIn(ref.Namespace) {
		if o.Name == ref.Name && ref.Kind == "AuthorizationPolicy" {
			return o
		}
	}
	return nil
}

// attached are the policies that name a Service, or the waypoint that it is to lead to, but those of AUDIT.
func (p *points) attached(service, waypoint types.NamespacedName) (names []string) {
	list := addNew(nil, p.targeting[targetName(policy.KindService, service)])
	if waypoint.Name != "" {
		list = addNew(list, p.targeting[targetName(policy.KindGateway, waypoint)])
	}
	for _, o := range list {
		if o.Spec.Action != securityapi.AuthorizationPolicy_AUDIT {
			names = append(names, "AuthorizationPolicy "+o.Namespace+"/"+o.Name)
		}
	}
	slices.Sort(names)
	return names
}
