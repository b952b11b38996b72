package check

import (
	"cmp"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	typev1beta1 "istio.io/api/type/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// ways is what checks of paths look up. It is made when it is first asked for.
type ways struct {
	leads   []lead
	senders map[types.NamespacedName][]sender
	// targeting are policies by what their targetRefs name.
	targeting map[Object][]policyObject
	firewalls lazy[map[bool]map[string][]firewall]
	broken    lazy[[]broken]
}

// lead is a Service or ServiceEntry that a label leads to a waypoint, its own or that of its namespace.
type lead struct {
	object   Object
	service  *corev1.Service // nil: a ServiceEntry
	by       Object
	waypoint types.NamespacedName
}

// sender is a gateway that sends to a Service.
type sender struct {
	view    *plan.View
	backend *plan.ViewBackend
}

// policyObject is a policy that waypoints enforce, of any kind.
type policyObject struct {
	Object

	access *securityv1.AuthorizationPolicy
	tokens *securityv1.RequestAuthentication
}

func kindServiceEntry() schema.GroupKind {
	return schema.GroupKind{Group: "networking.istio.io", Kind: "ServiceEntry"}
}

func namespaceObject(name string) Object {
	return Object{"", "Namespace", types.NamespacedName{Name: name}}
}

func gatewayObject(key types.NamespacedName) Object {
	return Object{gatewayGroup, "Gateway", key}
}

// podObject names a pod; one that is assumed is not to be named: see standing.
func podObject(p *plan.Pod) Object {
	return Object{"", "Pod", keyOf(p)}
}

func keyOf(o metav1.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
}

const gatewayGroup = "gateway.networking.k8s.io"

func (w *World) index() *ways { return w.ways.of(w.newWays) }

func (w *World) newWays() *ways {
	x := &ways{senders: map[types.NamespacedName][]sender{}, targeting: map[Object][]policyObject{}}
	for i := range w.Services {
		s := &w.Services[i]
		if waypoint, by, ok := w.WaypointOf(s); ok && s.Labels[labelManaged] == "" { // a waypoint's own Service leads nowhere
			x.leads = append(x.leads, lead{ServiceObject(s), s, by, waypoint})
		}
	}
	for _, o := range w.ServiceEntries {
		at := Object{kindServiceEntry().Group, kindServiceEntry().Kind, keyOf(o)}
		by, labels := at, o.GetLabels()
		if _, own := labels[plan.LabelUseWaypoint]; !own {
			by, labels = namespaceObject(at.Namespace), w.namespaceLabels(at.Namespace)
		}
		if name := labels[plan.LabelUseWaypoint]; name != "" && name != waypointNone {
			key := types.NamespacedName{Namespace: cmp.Or(labels[plan.LabelUseWaypointNamespace], at.Namespace), Name: name}
			x.leads = append(x.leads, lead{at, nil, by, key})
		}
	}
	views := w.Views()
	for i := range views {
		for j := range views[i].Backends {
			b := &views[i].Backends[j]
			x.senders[b.Key] = append(x.senders[b.Key], sender{&views[i], b})
		}
	}
	for _, p := range w.Policies {
		x.target(targetsOf(p.Namespace, &p.Spec), policyObject{Object{"security.istio.io", "AuthorizationPolicy", keyOf(p)}, p, nil})
	}
	for _, p := range w.RequestAuthentications {
		x.target(targetsOf(p.Namespace, &p.Spec), policyObject{Object{"security.istio.io", "RequestAuthentication", keyOf(p)}, nil, p})
	}
	return x
}

const (
	labelManaged = "gateway.istio.io/managed"
	waypointNone = "none"
)

func (x *ways) target(list []Object, p policyObject) {
	for _, o := range list {
		x.targeting[o] = append(x.targeting[o], p)
	}
}

// targeted is the spec of a policy that may have targetRefs.
type targeted interface {
	GetTargetRef() *typev1beta1.PolicyTargetReference
	GetTargetRefs() []*typev1beta1.PolicyTargetReference
}

// targetsOf are the objects that targetRefs name.
func targetsOf(namespace string, spec targeted) []Object {
	refs := spec.GetTargetRefs()
	if one := spec.GetTargetRef(); len(refs) == 0 && one != nil {
		refs = []*typev1beta1.PolicyTargetReference{one}
	}
	var list []Object
	for _, r := range refs {
		group := r.GetGroup()
		if group == "core" {
			group = ""
		}
		list = append(list, Object{group, r.GetKind(), types.NamespacedName{Namespace: namespace, Name: r.GetName()}})
	}
	return list
}

// leadsOf says where a Service leads.
func (w *World) leadsOf(key types.NamespacedName) (lead, bool) {
	s := w.Service(key)
	if s == nil || s.Labels[labelManaged] != "" {
		return lead{}, false
	}
	waypoint, by, ok := w.WaypointOf(s)
	return lead{ServiceObject(s), s, by, waypoint}, ok
}

// atWaypoint are the policies that a waypoint has for a Service.
func (w *World) atWaypoint(waypoint types.NamespacedName, service Object) []policyObject {
	x := w.index()
	list := slices.Concat(
		x.targeting[service], x.targeting[gatewayObject(waypoint)],
		x.targeting[Object{gatewayGroup, "GatewayClass", types.NamespacedName{Namespace: w.Root(), Name: plan.WaypointClass}}],
	)
	slices.SortFunc(list, func(a, b policyObject) int { return cmp.Compare(a.String(), b.String()) })
	return slices.CompactFunc(list, func(a, b policyObject) bool { return a.Object == b.Object })
}

// pointAt is what a waypoint enforces by policies for a Service.
func (w *World) pointAt(list []policyObject, waypoint types.NamespacedName, service Object) *policy.Point {
	mesh := w.meshOf()
	for _, p := range list {
		if p.access != nil {
			mesh.AuthorizationPolicies = append(mesh.AuthorizationPolicies, p.access)
		} else {
			mesh.RequestAuthentications = append(mesh.RequestAuthentications, p.tokens)
		}
	}
	return policy.New(mesh).Waypoint(
		policy.Target{Kind: policy.KindGateway, Namespace: waypoint.Namespace, Name: waypoint.Name},
		policy.Target{Kind: service.Kind, Namespace: service.Namespace, Name: service.Name},
	)
}

// pointBefore is what ztunnel enforces before a pod that the mesh carries.
func (w *World) pointBefore(p *plan.Pod) *policy.Point {
	return w.before(p.Namespace, p.Labels)
}

// identities are who a gateway is; nobody, where it is not known.
func identities(v *plan.View) []spiffeid.ID {
	var ids []spiffeid.ID
	for _, text := range v.Identities {
		if id, err := spiffeid.FromString(text); err == nil {
			ids = append(ids, id)
		}
	}
	return ids
}

// viewObject names a gateway.
func viewObject(v *plan.View) Object {
	if v.Object != nil {
		return gatewayObject(v.Key)
	}
	return Object{"apps", v.Kind, v.Key}
}

// askedIn says whether labels ask the mesh to carry a pod, and whether that is known: a namespace that is not in the files may say so too.
func (w *World) askedIn(p *plan.Pod) (asked, known bool) {
	switch p.Labels[plan.LabelDataplaneMode] {
	case modeAmbient:
		return true, true
	case modeNone:
		return false, true
	}
	return w.namespaceLabels(p.Namespace)[plan.LabelDataplaneMode] == modeAmbient, !w.supposed[p.Namespace]
}

const (
	modeAmbient = "ambient"
	modeNone    = "none"
)

// isWaypoint says whether a Gateway is a waypoint of one of Istio's classes.
func (w *World) isWaypoint(g *gatewayv1.Gateway) bool {
	c := w.classes[string(g.Spec.GatewayClassName)]
	return w.IsWaypoint(g) || c != nil && string(c.Spec.ControllerName) == "istio.io/agentgateway-waypoint-controller" ||
		c == nil && g.Spec.GatewayClassName == "istio-agentgateway-waypoint"
}
