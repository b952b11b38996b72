package check

import (
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
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// meshSide is what stands at the waypoint of a Service for it.
type meshSide struct {
	service  *corev1.Service
	waypoint types.NamespacedName
	// there: the waypoint is in the World, and istiod leads there, as far as that can be seen.
	there bool
	// policies decide: those that are tried out, or only log, are left out.
	policies []*securityv1.AuthorizationPolicy
	tokens   []*securityv1.RequestAuthentication
	point    *policy.Point
}

// meshIndex finds policies by what they are attached to.
type meshIndex struct {
	w        *World
	policies map[policy.Target][]*securityv1.AuthorizationPolicy
	tokens   map[policy.Target][]*securityv1.RequestAuthentication
	sides    memo[types.NamespacedName, *meshSide]
	// routes are those of the mesh, by the Service that is their parent.
	routes map[types.NamespacedName][]*gatewayv1.HTTPRoute
	// guarded says of Services that were asked for whether policies refuse strangers.
	guarded memo[types.NamespacedName, bool]
}

func newMeshIndex(w *World) *meshIndex {
	ix := &meshIndex{
		w: w, policies: map[policy.Target][]*securityv1.AuthorizationPolicy{}, tokens: map[policy.Target][]*securityv1.RequestAuthentication{},
		routes: map[types.NamespacedName][]*gatewayv1.HTTPRoute{},
	}
	for _, p := range w.Policies {
		for t := range attachedTo(w, p.Namespace, p.Spec.TargetRef, p.Spec.TargetRefs) {
			ix.policies[t] = append(ix.policies[t], p)
		}
	}
	for _, r := range w.RequestAuthentications {
		for t := range attachedTo(w, r.Namespace, r.Spec.TargetRef, r.Spec.TargetRefs) {
			ix.tokens[t] = append(ix.tokens[t], r)
		}
	}
	for i := range w.HTTPRoutes {
		r := &w.HTTPRoutes[i]
		for j := range r.Spec.ParentRefs {
			if ref := &r.Spec.ParentRefs[j]; ref.Kind != nil && *ref.Kind == policy.KindService {
				key := types.NamespacedName{Namespace: r.Namespace, Name: string(ref.Name)}
				if ref.Namespace != nil {
					key.Namespace = string(*ref.Namespace)
				}
				if key.Namespace == r.Namespace { // what a caller's namespace says is for its callers alone
					ix.routes[key] = append(ix.routes[key], r)
				}
			}
		}
	}
	return ix
}

// attachedTo are the targets of a policy at waypoints. One of the class is under its name alone.
func attachedTo(w *World, namespace string, one *typev1beta1.PolicyTargetReference, refs []*typev1beta1.PolicyTargetReference) map[policy.Target]bool {
	if len(refs) == 0 && one != nil {
		refs = []*typev1beta1.PolicyTargetReference{one}
	}
	targets := map[policy.Target]bool{}
	for _, r := range refs {
		group := r.GetGroup()
		switch t := (policy.Target{Kind: r.GetKind(), Namespace: namespace, Name: r.GetName()}); {
		case t.Kind == policy.KindService && (group == "" || group == "core"), t.Kind == policy.KindGateway && group == gatewayv1.GroupName:
			targets[t] = true
		case t.Kind == "GatewayClass" && group == gatewayv1.GroupName && namespace == w.Root() && t.Name == policy.WaypointClass:
			targets[policy.Target{Kind: t.Kind, Name: t.Name}] = true
		}
	}
	return targets
}

// side is what stands at the waypoint of a Service, or nil where it leads to none, or is not there.
func (ix *meshIndex) side(key types.NamespacedName) *meshSide {
	return ix.sides.of(key, func() *meshSide { return ix.look(key) })
}

func (ix *meshIndex) look(key types.NamespacedName) *meshSide {
	w := ix.w
	service := w.Service(key)
	if service == nil {
		return nil
	}
	waypoint, _, ok := w.WaypointOf(service)
	if !ok {
		return nil
	}
	s := &meshSide{service: service, waypoint: waypoint}
	if g := w.Gateway(waypoint); g != nil {
		s.there = w.IsWaypoint(g) && (w.Paper || slices.ContainsFunc(service.Status.Conditions, boundTrue))
	}
	at := policy.Target{Kind: policy.KindGateway, Namespace: waypoint.Namespace, Name: waypoint.Name}
	of := policy.Target{Kind: policy.KindService, Namespace: key.Namespace, Name: key.Name}
	seen := map[any]bool{}
	var all []*securityv1.AuthorizationPolicy
	for _, t := range []policy.Target{of, at, {Kind: "GatewayClass", Name: policy.WaypointClass}} {
		for _, p := range ix.policies[t] {
			if !seen[p] {
				seen[p], all = true, append(all, p)
			}
		}
		for _, r := range ix.tokens[t] {
			if !seen[r] {
				seen[r], s.tokens = true, append(s.tokens, r)
			}
		}
	}
	s.point = w.behind(waypoint, key)
	decides := map[policy.Ref]bool{}
	for _, ref := range s.point.Policies() {
		decides[ref] = true
	}
	for _, p := range all {
		if decides[policy.Ref{Kind: "AuthorizationPolicy", Namespace: p.Namespace, Name: p.Name}] {
			s.policies = append(s.policies, p)
		}
	}
	return s
}

// decidingObject names an AuthorizationPolicy.
func decidingObject(p *securityv1.AuthorizationPolicy) Object {
	return Object{"security.istio.io", "AuthorizationPolicy", types.NamespacedName{Namespace: p.Namespace, Name: p.Name}}
}

func tokenObject(r *securityv1.RequestAuthentication) Object {
	return Object{"security.istio.io", "RequestAuthentication", types.NamespacedName{Namespace: r.Namespace, Name: r.Name}}
}

// deciding is the policy that a decision comes from, or the only one there is, or that of a kind of action that comes first.
func (s *meshSide) deciding(d policy.Decision) Object {
	for _, p := range s.policies {
		if d.Policy == (policy.Ref{Kind: "AuthorizationPolicy", Namespace: p.Namespace, Name: p.Name}) {
			return decidingObject(p)
		}
	}
	for _, p := range s.policies {
		if p.Spec.Action == securityapi.AuthorizationPolicy_ALLOW {
			return decidingObject(p)
		}
	}
	return Object{}
}

// callers are identities that policies of a Service tell apart, as they name them, and a stranger.
func (s *meshSide) callers(trustDomain string) []spiffeid.ID {
	td, err := spiffeid.TrustDomainFromString(trustDomain)
	if err != nil {
		return nil
	}
	found := map[spiffeid.ID]bool{}
	add := func(namespace, account string) {
		if strings.Contains(namespace+account, "*") || namespace == "" || account == "" {
			return
		}
		if id, err := spiffeid.FromSegments(td, "ns", namespace, "sa", account); err == nil {
			found[id] = true
		}
	}
	add(strangers, strangers)
	principals := func(list []string) {
		for _, v := range list {
			if parts := strings.Split(v, "/"); len(parts) == 5 {
				add(parts[2], parts[4])
			}
		}
	}
	accounts := func(own string, list []string) {
		for _, v := range list {
			if ns, sa, ok := strings.Cut(v, "/"); ok {
				add(ns, sa)
			} else {
				add(own, v)
			}
		}
	}
	for _, p := range s.policies {
		for _, r := range p.Spec.Rules {
			for _, from := range r.GetFrom() {
				src := from.GetSource()
				principals(slices.Concat(src.GetPrincipals(), src.GetNotPrincipals()))
				accounts(p.Namespace, slices.Concat(src.GetServiceAccounts(), src.GetNotServiceAccounts()))
				for _, ns := range slices.Concat(src.GetNamespaces(), src.GetNotNamespaces()) {
					add(ns, strangers)
				}
			}
			for _, when := range r.GetWhen() {
				values := slices.Concat(when.GetValues(), when.GetNotValues())
				switch when.GetKey() {
				case "source.principal":
					principals(values)
				case "source.serviceAccount":
					accounts(p.Namespace, values)
				case "source.namespace":
					for _, ns := range values {
						add(ns, strangers)
					}
				}
			}
		}
	}
	return slices.SortedFunc(maps.Keys(found), func(a, b spiffeid.ID) int { return strings.Compare(a.String(), b.String()) })
}

// strangers is a namespace, and an account, of nobody.
const strangers = "isthmus-stranger"

// stranger is an identity of the mesh that no policy names.
func (w *World) stranger() spiffeid.ID {
	td, err := spiffeid.TrustDomainFromString(w.domain())
	if err != nil {
		return spiffeid.ID{}
	}
	id, _ := spiffeid.FromSegments(td, "ns", strangers, "sa", strangers)
	return id
}

func (w *World) domain() string {
	if w.Mesh.TrustDomain != "" {
		return w.Mesh.TrustDomain
	}
	return "cluster.local"
}

func boundTrue(c metav1.Condition) bool {
	return c.Type == plan.ConditionWaypointBound && c.Status == "True"
}

// hosts and paths are what policies tell apart.
func (s *meshSide) hosts() []string { return s.texts(true) }

func (s *meshSide) paths() []string { return s.texts(false) }

func (s *meshSide) texts(hosts bool) []string {
	var list []string
	for _, p := range s.policies {
		for _, r := range p.Spec.Rules {
			for _, to := range r.GetTo() {
				if op := to.GetOperation(); hosts {
					list = slices.Concat(list, op.GetHosts(), op.GetNotHosts())
				} else {
					list = slices.Concat(list, op.GetPaths(), op.GetNotPaths())
				}
			}
		}
	}
	return list
}
