package run

import (
	"cmp"
	"context"
	"fmt"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// maxLooks bounds how often an edge is read again because it turned out to reach further than was known.
const maxLooks = 4

// look reads from the cache what a plan for e depends on, and no more: what Observe reads of a cluster without indexes. Nothing of it may be
// changed, as it is the cache's own. From now on changes of all that was looked at concern e.
func (r *reconciler) look(ctx context.Context, e *v1alpha1.AmbientEdge) (*plan.Snapshot, error) {
	for range maxLooks {
		v := &viewer{
			ctx: ctx, from: r.client, vendors: &r.vendors, edge: e, s: &plan.Snapshot{Edge: e, RootNamespace: r.rootNamespace}, scope: newScope(e.Owner(), e.Namespace),
			seen: map[seenAs]bool{},
		}
		if err := v.all(); err != nil {
			return nil, err
		}
		// What was not known to concern e may have changed since it was read, and nobody was told.
		if r.concerns.note(client.ObjectKeyFromObject(e), v.scope) {
			return v.s, nil
		}
	}
	return nil, fmt.Errorf("read the cluster: it changes faster than it can be read")
}

// viewer reads for one edge.
type viewer struct {
	ctx     context.Context
	from    client.Reader
	vendors *vendors
	edge    *v1alpha1.AmbientEdge
	s       *plan.Snapshot
	scope   *scope
	seen    map[seenAs]bool // objects that are read
}

// seenAs is a key of viewer.seen.
type seenAs struct {
	kind string
	key  types.NamespacedName
}

// first says whether an object comes for the first time.
func (v *viewer) first(kind string, key types.NamespacedName) bool {
	k := seenAs{kind, key}
	if v.seen[k] {
		return false
	}
	v.seen[k] = true
	return true
}

// all reads in an order in which each finds what those before it name.
func (v *viewer) all() error {
	for _, read := range []func() error{v.edges, v.known, v.targets, v.proxies, v.backends, v.held, v.spaces, v.waypoints, v.aside, v.surroundings} {
		if err := read(); err != nil {
			return err
		}
	}
	v.sort()
	return nil
}

func (v *viewer) list(what string, list client.ObjectList, opts ...client.ListOption) error {
	if err := v.from.List(v.ctx, list, opts...); err != nil {
		return fmt.Errorf("list %s: %w", what, err)
	}
	return nil
}

// get reads one object, if it is there.
func (v *viewer) get(what string, key types.NamespacedName, o client.Object) (bool, error) {
	switch err := v.from.Get(v.ctx, key, o); {
	case err == nil:
		return true, nil
	case client.IgnoreNotFound(err) == nil:
		return false, nil
	default:
		return false, fmt.Errorf("read %s %s: %w", what, key, err)
	}
}

// edges are those that may claim the same gateways.
func (v *viewer) edges() error {
	var edges v1alpha1.AmbientEdgeList
	if err := v.list("AmbientEdges", &edges, client.InNamespace(v.edge.Namespace)); err != nil {
		return err
	}
	v.s.Edges, v.scope.rules = edges.Items, v.edge.ReadsRules()
	for _, read := range whole(v.s) {
		if err := read(v.ctx, v.from); err != nil {
			return err
		}
	}
	return v.vendors.observe(v.ctx, v.from, v.s)
}

// known are the workloads of all vendors that are known: controllers tell versions and settings, and proxies may serve many Gateways.
func (v *viewer) known() error {
	return v.workloads(client.MatchingFields{indexVendor: known})
}

func (v *viewer) gateways(list []gatewayv1.Gateway) {
	for i := range list {
		if o := &list[i]; v.first("Gateway", client.ObjectKeyFromObject(o)) {
			v.s.Gateways = append(v.s.Gateways, *o)
		}
	}
}

// backends are the Services of the spec, or of the routes: those too that a plan does not count, as it may tomorrow.
func (v *viewer) backends() error {
	if b := v.edge.Spec.Backends; b != nil {
		for _, ref := range b.Services {
			if err := v.backend(types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}); err != nil {
				return err
			}
		}
	}
	for _, key := range plan.IngressServices(v.s) {
		if err := v.backend(key); err != nil {
			return err
		}
	}
	if b := v.edge.Spec.Backends; b != nil && len(b.Services) > 0 {
		return nil // routes say which gateways matter to it, and nothing more
	}
	sendTo := func(o metav1.Object) error {
		for _, key := range plan.SentTo(o) {
			if err := v.backend(key); err != nil {
				return err
			}
		}
		return nil
	}
	for i := range v.s.HTTPRoutes {
		if err := sendTo(&v.s.HTTPRoutes[i]); err != nil {
			return err
		}
	}
	for _, o := range v.s.OtherRoutes {
		if err := sendTo(o); err != nil {
			return err
		}
	}
	return nil
}

// backend is a Service that the gateway may send to; its pods matter.
func (v *viewer) backend(key types.NamespacedName) error {
	v.scope.namespaces[key.Namespace] = true
	if w := v.edge.Spec.Waypoint; w != nil && w.Name != "" {
		v.scope.gateways[types.NamespacedName{Namespace: key.Namespace, Name: w.Name}] = true
	}
	if v.edge.Locks() {
		v.scope.locks[key.Namespace] = true
	}
	o, err := v.service(key)
	if o != nil && len(o.Spec.Selector) > 0 {
		v.selects(key.Namespace, o.Spec.Selector)
	}
	return err
}

// service reads a Service; nil if it is not there, or was read before.
func (v *viewer) service(key types.NamespacedName) (*corev1.Service, error) {
	v.scope.services[key] = true
	if !v.first("Service", key) {
		return nil, nil
	}
	o := &corev1.Service{}
	if ok, err := v.get("Service", key, o); !ok || err != nil {
		return nil, err
	}
	v.s.Services = append(v.s.Services, *o)
	return o, nil
}

func (v *viewer) policies(list []*securityv1.AuthorizationPolicy) {
	for _, o := range list {
		if v.first("AuthorizationPolicy", client.ObjectKeyFromObject(o)) {
			v.s.Policies = append(v.s.Policies, o)
		}
	}
}

func (v *viewer) services(match client.ListOption) error {
	var list corev1.ServiceList
	if err := v.list("Services", &list, match); err != nil {
		return err
	}
	for i := range list.Items {
		if o := &list.Items[i]; v.first("Service", client.ObjectKeyFromObject(o)) {
			v.s.Services = append(v.s.Services, *o)
		}
	}
	return nil
}

// held is what was written for the edge, wanted still or not, and those that need it; and Services at home, which may be those of gateways.
func (v *viewer) held() error {
	if err := v.services(client.InNamespace(v.edge.Namespace)); err != nil {
		return err
	}
	if err := v.services(client.MatchingFields{indexOwner: v.edge.Owner()}); err != nil {
		return err
	}
	for ns := range v.scope.locks {
		if err := v.services(client.InNamespace(ns)); err != nil {
			return err
		}
	}
	var policies securityv1.AuthorizationPolicyList
	if err := v.list("AuthorizationPolicies", &policies, client.MatchingFields{indexOwner: v.edge.Owner()}); err != nil {
		return err
	}
	v.policies(policies.Items)
	var made gatewayv1.GatewayList
	if err := v.list("Gateways", &made, client.MatchingFields{indexOwner: v.edge.Owner()}); err != nil {
		return err
	}
	v.gateways(made.Items)
	for i := range made.Items {
		key := client.ObjectKeyFromObject(&made.Items[i])
		v.scope.made[key], v.scope.gateways[key] = true, true
		if err := v.ledTo(client.MatchingFields{indexWaypoint: key.String()}); err != nil {
			return err
		}
		for _, o := range v.s.ServiceEntries {
			if at, ok := waypointOf(o.GetNamespace(), o.GetLabels()); ok && at == key {
				if err := v.space(o.GetNamespace()); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// ledTo is what names a waypoint.
func (v *viewer) ledTo(waypoint client.ListOption) error {
	var namespaces corev1.NamespaceList
	var pods corev1.PodList
	if err := cmp.Or(v.services(waypoint), v.list("Namespaces", &namespaces, waypoint), v.list("Pods", &pods, waypoint)); err != nil {
		return err
	}
	for i := range namespaces.Items {
		if err := v.space(namespaces.Items[i].Name); err != nil {
			return err
		}
	}
	for i := range pods.Items {
		v.pod(&pods.Items[i])
		if err := v.space(pods.Items[i].Namespace); err != nil { // by whose labels it may be admitted
			return err
		}
	}
	return nil
}

// spaces are the namespaces of all that, which may name waypoints.
func (v *viewer) spaces() error {
	v.scope.namespaces[v.s.Root()] = true // policies there may be for all waypoints
	for i := range v.s.Services {
		v.scope.namespaces[v.s.Services[i].Namespace] = true
	}
	for key := range v.scope.gateways {
		v.scope.namespaces[key.Namespace] = true
	}
	for name := range v.scope.namespaces {
		if err := v.space(name); err != nil {
			return err
		}
	}
	return nil
}

func (v *viewer) space(name string) error {
	v.scope.namespaces[name] = true
	key := types.NamespacedName{Name: name}
	if !v.first("Namespace", key) {
		return nil
	}
	o := &corev1.Namespace{}
	if ok, err := v.get("Namespace", key, o); !ok || err != nil {
		return err
	}
	v.s.Namespaces = append(v.s.Namespaces, *o)
	return nil
}

// waypoints are those that Services and namespaces name, or that the spec does, and what belongs to them.
func (v *viewer) waypoints() error {
	name := func(namespace string, labels map[string]string) {
		if key, ok := waypointOf(namespace, labels); ok {
			v.scope.gateways[key] = true
		}
		if key, ok := plan.CanaryOf(namespace, labels); ok {
			v.scope.gateways[key] = true
		}
	}
	for i := range v.s.Services {
		name(v.s.Services[i].Namespace, v.s.Services[i].Labels)
	}
	for i := range v.s.Namespaces {
		name(v.s.Namespaces[i].Name, v.s.Namespaces[i].Labels)
	}
	for key := range v.scope.gateways {
		if err := v.space(key.Namespace); err != nil {
			return err
		}
		if v.first("Gateway", key) {
			o := &gatewayv1.Gateway{}
			if ok, err := v.get("Gateway", key, o); err != nil {
				return err
			} else if ok {
				v.s.Gateways = append(v.s.Gateways, *o)
			}
		}
		if _, err := v.service(key); err != nil {
			return err
		}
		if err := v.services(client.MatchingFields{indexGateway: key.String()}); err != nil {
			return err
		}
	}
	return nil
}

// surroundings are the rest of each namespace: who consents, which policies there are, and the pods and workloads that matter.
func (v *viewer) surroundings() error {
	for i := range v.s.Callees { // the API server may call a gateway's pods
		if key := v.s.Callees[i].Service; v.scope.namespaces[key.Namespace] {
			if _, err := v.service(key); err != nil {
				return err
			}
		}
	}
	for ns := range v.scope.namespaces {
		in := client.InNamespace(ns)
		var grants gatewayv1beta1.ReferenceGrantList
		var policies securityv1.AuthorizationPolicyList
		var pods corev1.PodList
		var deployments appsv1.DeploymentList
		if err := cmp.Or(v.list("ReferenceGrants", &grants, in), v.list("AuthorizationPolicies", &policies, in), v.list("Pods", &pods, in), v.list("Deployments", &deployments, in)); err != nil {
			return err
		}
		v.s.ReferenceGrants = append(v.s.ReferenceGrants, grants.Items...)
		v.policies(policies.Items)
		for i := range pods.Items {
			if o := &pods.Items[i]; v.scope.wants(o) {
				v.pod(o)
			}
		}
		for i := range deployments.Items {
			o := &deployments.Items[i]
			name := o.Labels[edge.LabelGatewayName]
			if name != "" && v.scope.gateways[types.NamespacedName{Namespace: ns, Name: name}] && v.first("Deployment", client.ObjectKeyFromObject(o)) {
				v.s.Deployments = append(v.s.Deployments, *o)
			}
		}
	}
	return nil
}
