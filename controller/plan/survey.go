package plan

import (
	"cmp"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
)

// View is a gateway as the objects of a snapshot show it, whether an AmbientEdge has it or not.
type View struct {
	Candidate

	Vendor edge.Vendor
	// Object is nil for the workload of an Ingress controller.
	Object *gatewayv1.Gateway
	// Pods are those that run, and Identities their SPIFFE ids, each once.
	Pods       []*Pod
	Identities []string
	// Inside counts pods whose connections the mesh carries, or that speak HBONE themselves; Late those that were captured after they had
	// connected to a controller which has not noticed. Paper: the pods are assumed, and nobody knows.
	Inside, Late int
	Routes       []Routed
	Backends     []ViewBackend
	// Findings are those of the plan for its AmbientEdge, or for the one that would fit.
	Findings []v1alpha1.Finding
}

// String names it: Kind namespace/name.
func (v *View) String() string { return object(v.Kind, v.Key) }

// Captured says whether all its pods are inside the mesh, and there are any.
func (v *View) Captured() bool { return len(v.Pods) > 0 && v.Inside == len(v.Pods) }

// Routed is a route of a gateway, an Ingress, or a route that one delegates to.
type Routed struct {
	Kind string
	Key  types.NamespacedName
	// Why it does not count, empty if it does. A route in files, which have no status, counts.
	Why string
	// Services that it sends to, and may.
	Services []types.NamespacedName
	// Ungranted are those that it names, and no ReferenceGrant lets it.
	Ungranted []types.NamespacedName
}

// ViewBackend is a Service that a gateway sends to.
type ViewBackend struct {
	Key types.NamespacedName
	// Service is nil when it is not there.
	Service *corev1.Service
	// Routes are indexes into View.Routes.
	Routes []int
	// Waypoint is the one that it is labelled to lead to, itself or by its namespace; Bound: istiod has it so.
	Waypoint types.NamespacedName
	Bound    bool
	// Sends is where the gateway sends for it, and Why.
	Sends Destination
	Why   string
}

// Destination is where a gateway sends to for a Service.
type Destination int

// The destinations.
const (
	// ToUnknown: nothing here tells.
	ToUnknown Destination = iota
	// ToService is the Service's address, by which its waypoint is chosen.
	ToService
	// ToPods is past every waypoint of Services.
	ToPods
)

var destinationNames = [...]string{"unknown", "service", "pods"}

// String is unknown, service or pods.
func (d Destination) String() string { return destinationNames[d] }

// Survey looks at all gateways of a snapshot, which must not change meanwhile. Nobody is asked: it takes the snapshot for Hearsay.
func Survey(s *Snapshot) []View {
	whole := s.indexed()
	whole.Hearsay = true
	list := Candidates(whole)
	views := make([]View, len(list))
	AtOnce(len(list), func(i int) {
		look := *whole
		look.Edge = list[i].Edge
		views[i] = look.view(list[i])
	})
	return views
}

func (s *Snapshot) view(c Candidate) View {
	v := View{Candidate: c}
	m := &maker{Snapshot: s}
	m.findGateways()
	i := slices.IndexFunc(m.gateways, func(g *gateway) bool { return g.kind == c.Kind && g.key == c.Key })
	if i < 0 { // its class is not there
		v.Vendor, v.Object, v.Findings = edge.Custom(), s.gateway(c.Key), m.plan.Findings
		return v
	}
	g := m.gateways[i]
	m.gateways = m.gateways[i : i+1]
	v.Vendor, v.Object, v.Pods, v.Identities = g.vendor, g.object, g.pods, g.identities(s.trustDomain())
	for _, p := range g.pods {
		late := g.late(p)
		if captured(p) && !late || g.capture == v1alpha1.CaptureNative && g.native() {
			v.Inside++
		}
		if captured(p) && late {
			v.Late++
		}
	}
	m.findRoutes(g, &v)
	at := map[types.NamespacedName]int{}
	for i := range v.Routes {
		for _, key := range v.Routes[i].Services {
			j, there := at[key]
			if !there {
				j, at[key] = len(v.Backends), len(v.Backends)
				v.Backends = append(v.Backends, m.viewBackend(g, key))
			}
			v.Backends[j].Routes = append(v.Backends[j].Routes, i)
		}
	}
	slices.SortFunc(v.Backends, func(a, b ViewBackend) int { return compareKeys(a.Key, b.Key) })
	if s.Paper && !c.Exists && c.Kind == "Gateway" && len(v.Backends) > 0 { // a plan counts no route that nobody has reported on
		e := *c.Edge
		e.Spec.Backends = &v1alpha1.Backends{}
		for i := range v.Backends {
			e.Spec.Backends.Services = append(e.Spec.Backends.Services, v1alpha1.ServiceRef{Namespace: v.Backends[i].Key.Namespace, Name: v.Backends[i].Key.Name})
		}
		e.Spec.Waypoint = s.waypointFor(&e)
		s.Edge = &e
	}
	v.Findings = Make(s).Findings
	return v
}

// notAdmitted says why a route that nobody has reported on will not count for a Gateway, or "": none of its listeners admits the route's namespace, as
// far as files tell.
func (m *maker) notAdmitted(r *route, g *gateway) string {
	if g.object == nil || !m.shutOut(r, g) || slices.ContainsFunc(g.object.Spec.Listeners, func(l gatewayv1.Listener) bool {
		return l.AllowedRoutes != nil && l.AllowedRoutes.Namespaces != nil && l.AllowedRoutes.Namespaces.Selector != nil
	}) {
		return ""
	}
	return fmt.Sprintf("none of the listeners of %s admits routes of namespace %s (spec.listeners.allowedRoutes)", g, r.key.Namespace)
}

// findRoutes notes the routes of a gateway, or its Ingresses.
func (m *maker) findRoutes(g *gateway, v *View) {
	for _, f := range m.follow() {
		r := Routed{Kind: f.kind, Key: f.key, Why: f.why, Services: slices.Compact(keysOf(f.refs, true))}
		if m.untold(len(f.look().reports), f.object.GetUID()) {
			r.Why = m.notAdmitted(f.route, g)
		}
		for _, ref := range f.refs {
			if !ref.granted && !slices.Contains(r.Ungranted, ref.key) {
				r.Ungranted = append(r.Ungranted, ref.key)
			}
		}
		v.Routes = append(v.Routes, r)
	}
	for _, in := range m.ingresses(g) {
		v.Routes = append(v.Routes, Routed{Kind: "Ingress", Key: keyOf(in), Services: servicesOfIngress(in)})
	}
}

func (m *maker) viewBackend(g *gateway, key types.NamespacedName) ViewBackend {
	b := &backend{key: key, service: m.service(key)}
	view := ViewBackend{Key: key, Service: b.service}
	if b.service == nil {
		view.Why = "the Service is not there"
		return view
	}
	if m.bound(b) {
		view.Waypoint = b.waypoint
		_, view.Bound = m.leads(b)
	}
	view.Sends, view.Why = m.sends(g, b)
	return view
}

// sends says where a gateway sends for a Service, by its switch.
func (m *maker) sends(g *gateway, b *backend) (Destination, string) {
	s := m.chosen(g)
	switch {
	case b.service.Spec.Type == corev1.ServiceTypeExternalName:
		return ToUnknown, "the Service is a name for something else"
	case b.service.Spec.ClusterIP == corev1.ClusterIPNone:
		return ToPods, "the Service is headless"
	case s == nil && g.vendor.NoSwitch != "":
		return ToPods, g.vendor.NoSwitch
	case s == nil && g.vendor.Name == edge.Custom().Name:
		return ToUnknown, "what kind of gateway it is is not known"
	case s == nil:
		return ToService, fmt.Sprintf("%s sends to Services' addresses", g.vendor.Name)
	}
	set, where := m.switchIs(g, s, b)
	if !set {
		return ToPods, fmt.Sprintf("%s is not %v%s", s.Field(), s.Value, where)
	}
	if why := m.idleBy(g, s); why != "" {
		return ToPods, why
	}
	return ToService, fmt.Sprintf("%s is %v%s", s.Field(), s.Value, where)
}

// switchIs says whether a switch is set for a Service, and where.
func (m *maker) switchIs(g *gateway, s *edge.Switch, b *backend) (bool, string) {
	is := func(o metav1.Object, of string) (bool, string) {
		v, there := value(o, s.Path)
		return there && v == s.Value, " in " + of
	}
	switch s.On {
	case edge.OnService:
		if ok, where := is(b.service, b.String()); ok || s.Path[0] != "metadata" || s.Path[1] != "labels" {
			return ok, where
		}
		// A label of the namespace is for all its Services, and one of a Service comes before it where the vendor says so.
		if _, own := b.service.Labels[s.Path[2]]; own && g.vendor.Name != "kgateway" {
			return false, " in " + b.String()
		}
		ns := m.namespace(b.key.Namespace)
		return ns != nil && ns.Labels[s.Path[2]] == s.Value, " in Namespace " + b.key.Namespace
	case edge.OnParameters:
		o := m.parameters(g, s)
		if o == nil {
			return false, ""
		}
		return is(o, object(o.GetKind(), keyOf(o)))
	}
	if s.On == edge.OnIngress {
		for _, in := range m.ingresses(g) {
			if ok, _ := is(in, ""); !ok && slices.Contains(servicesOfIngress(in), b.key) {
				return false, " in " + object("Ingress", keyOf(in))
			}
		}
		return true, " in its Ingresses"
	}
	for _, o := range m.objects(s.Kind) {
		switch {
		case s.On == edge.OnGateway && (o.GetNamespace() != g.key.Namespace || !targeted(o, s.Target[1], g.key.Name)),
			s.On == edge.OnServiceByRef && (o.GetNamespace() != b.key.Namespace || !targeted(o, s.Target[1], b.key.Name)):
			continue
		case s.On != edge.OnList:
			if ok, where := is(o, object(o.GetKind(), keyOf(o))); ok {
				return true, where
			}
			continue
		}
		for _, item := range items(o.Object, s.List) {
			ns, _ := item["namespace"].(string)
			v, _, _ := unstructured.NestedFieldNoCopy(item, s.Path...)
			if item[s.Name] == b.key.Name && cmp.Or(ns, o.GetNamespace()) == b.key.Namespace {
				return fmt.Sprint(v) == fmt.Sprint(s.Value), " in " + object(o.GetKind(), keyOf(o))
			}
		}
	}
	return false, ""
}

// idleBy says what keeps a switch from doing anything, or "".
func (m *maker) idleBy(g *gateway, s *edge.Switch) string {
	before := m.plan
	m.plan = Plan{}
	m.idle(g, s)
	why := m.plan.firstError().Message
	m.plan = before
	return why
}
