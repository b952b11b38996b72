package check

import (
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

func routeChecks() []Check {
	return []Check{
		{
			Code: v1alpha1.FindingNoBackend, Title: "a route sends to a Service that is not there",
			Severities: []v1alpha1.Severity{v1alpha1.SeverityError, v1alpha1.SeverityInfo},
			Pains:      []string{"A13"},
			Matter:     "A route or an Ingress of a gateway names a Service that does not exist.",
			Harm:       "The gateway answers 500 or 503 to what it would send there.",
			Fix:        "Create the Service, or correct the name.",
			Find:       (*World).missingBackends,
		},
		{
			Code: v1alpha1.FindingRouteNotCounted, Title: "a route is not in force", Severities: []v1alpha1.Severity{v1alpha1.SeverityWarning}, Pains: []string{"ER08"},
			Matter: "The gateway has not said Accepted and ResolvedRefs of a route's present generation, or a ReferenceGrant is missing.",
			Harm:   "The gateway goes on as before, or answers 404 or 500: what is written is not what is done.",
			Fix:    "See the route's conditions; create the ReferenceGrant.",
			Find:   (*World).routesNotCounted,
		},
		{
			Code: v1alpha1.FindingRouteKind, Title: "UDP to pods of the mesh", Severities: []v1alpha1.Severity{v1alpha1.SeverityWarning}, Pains: []string{"A10"},
			Matter: "A UDPRoute sends to a Service whose pods are in the mesh, or that leads to a waypoint.",
			Harm:   "The mesh does not carry UDP: it goes unencrypted, past every waypoint and policy.",
			Fix:    "Close that way by a NetworkPolicy where it has to be closed.",
			Find:   (*World).udp,
		},
		{
			Code: v1alpha1.FindingHeadless, Title: "a Service without address leads to a waypoint",
			Severities: []v1alpha1.Severity{v1alpha1.SeverityError, v1alpha1.SeverityWarning}, Pains: []string{"A9", "A10", "EP06"},
			Matter: "A Service is headless or an ExternalName, and is to lead to a waypoint, which is chosen by a Service's address.",
			Harm:   "Callers get pods' addresses and go past the waypoint; some gateways answer 500 or 503.",
			Fix:    "Let the route name a Service with an address for the same pods.",
			Find:   (*World).withoutAddress,
		},
		{
			Code: "ISM128", Title: "a ServiceEntry without address leads to a waypoint", Severities: []v1alpha1.Severity{v1alpha1.SeverityWarning},
			Pains:  []string{"A10"},
			Matter: "A ServiceEntry is labelled to lead to a waypoint, and has no address of its own, nor one that Istio gave it.",
			Harm:   "There is nothing by which ztunnel could tell what is sent to it: requests go past the waypoint, and the status says Accepted.",
			Fix:    "Give it spec.addresses, or have Istio give it one: resolution DNS or STATIC, hosts without wildcard, DNS capture on.",
			Find:   (*World).entriesWithoutAddress,
		},
	}
}

func (w *World) missingBackends(found func(Finding)) {
	views := w.Views()
	for i := range views {
		v := &views[i]
		for j := range v.Backends {
			b := &v.Backends[j]
			if b.Service != nil {
				continue
			}
			service := Object{"", "Service", b.Key}
			f := Finding{Related: []Object{service, viewObject(v)}, Fix: "create it, or correct the name"}
			f.Message = fmt.Sprintf("%s is to send to %s by this, which does not exist: it answers with an error", v, service)
			if !w.Knows(service.kind()) {
				if len(w.servicesOf[b.Key.Namespace]) == 0 {
					continue // files have no Services of that namespace, and so do not tell
				}
				f.Severity = v1alpha1.SeverityInfo
				f.Message = fmt.Sprintf("%s is to send to %s by this, which is not in the files", v, service)
			}
			for _, r := range b.Routes {
				f.Object = routeObject(&v.Routes[r])
				found(f)
			}
		}
	}
}

func routeObject(r *plan.Routed) Object {
	if r.Kind == "Ingress" {
		return Object{"networking.k8s.io", r.Kind, r.Key}
	}
	return Object{gatewayGroup, r.Kind, r.Key}
}

func (w *World) routesNotCounted(found func(Finding)) {
	views := w.Views()
	for i := range views {
		v := &views[i]
		for j := range v.Routes {
			r := &v.Routes[j]
			if r.Why != "" {
				found(Finding{
					Object: routeObject(r), Field: "status.parents", Related: []Object{viewObject(v)},
					Message: "this route is not in force as it stands: " + r.Why, Fix: "see its conditions: kubectl describe " + routeObject(r).resource(),
				})
			}
			for _, key := range r.Ungranted {
				if w.Paper {
					continue
				}
				found(Finding{
					Object: routeObject(r), Field: "spec.rules", Related: []Object{{"", "Service", key}},
					Message: fmt.Sprintf("this names Service %s, and no ReferenceGrant there lets %ss of namespace %s do so: the gateway "+
						"answers 500", key, r.Kind, r.Key.Namespace),
					Fix: "create the ReferenceGrant",
					Patch: fmt.Sprintf("apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {namespace: %s, name: %s}\nspec:\n"+
						"  from: [{group: gateway.networking.k8s.io, kind: %s, namespace: %s}]\n  to: [{group: \"\", kind: Service, name: %s}]\n",
						key.Namespace, r.Key.Namespace+"-"+r.Key.Name, r.Kind, r.Key.Namespace, key.Name),
				})
			}
		}
	}
}

func (w *World) udp(found func(Finding)) {
	for _, o := range w.OtherRoutes {
		if o.GetKind() != "UDPRoute" {
			continue
		}
		for _, key := range plan.SentTo(o) {
			s := w.Service(key)
			if s == nil {
				continue
			}
			l, leads := w.leadsOf(key)
			inside := 0
			for _, p := range w.PodsOf(s) {
				if w.InMesh(p) {
					inside++
				}
			}
			if inside == 0 && !leads {
				continue
			}
			f := Finding{
				Object: Object{gatewayGroup, "UDPRoute", keyOf(o)}, Field: "spec.rules", Related: []Object{ServiceObject(s)},
				Message: fmt.Sprintf("this sends UDP to %s, which the mesh does not carry: it goes unencrypted, past every waypoint and policy", ServiceObject(s)),
				Fix:     "close the way by a NetworkPolicy where it has to be closed, or do without the route",
			}
			if leads {
				f.Related = append(f.Related, gatewayObject(l.waypoint))
			}
			found(f)
		}
	}
}

func (w *World) withoutAddress(found func(Finding)) {
	for _, l := range w.index().leads {
		if l.service == nil || !w.headless(l.service) {
			continue
		}
		what := "is headless"
		if l.service.Spec.ClusterIP != "None" {
			what = "is a name for something else"
		}
		f := Finding{Object: l.object, Field: "spec.clusterIP", Severity: v1alpha1.SeverityWarning, Related: []Object{gatewayObject(l.waypoint)}}
		f.Fix = "let routes and callers name a Service with a cluster IP for the same pods"
		senders := w.index().senders[l.object.NamespacedName]
		for _, s := range senders {
			e := w.pastWaypoint(s.view, &l, w.identified(s.view))
			f.Related = append(f.Related, viewObject(s.view))
			if e.severity == v1alpha1.SeverityError {
				f.Severity = v1alpha1.SeverityError
			}
			why := s.view.Vendor.Headless
			if why == "" {
				why = "a waypoint is chosen by a Service's address"
			}
			f.Message = fmt.Sprintf("this Service %s, and %s sends to it: %s. By its pods %s", what, s.view, why, e.what)
		}
		if len(senders) == 0 {
			if l.by != l.object { // the namespace's label is for the others
				continue
			}
			f.Message = fmt.Sprintf("this Service %s: callers get the addresses of pods, and go past waypoint %s", what, l.waypoint)
		}
		found(f)
	}
}

func (w *World) entriesWithoutAddress(found func(Finding)) {
	if w.Paper {
		return // Istio may give it one
	}
	has := func(o *unstructured.Unstructured, path ...string) bool {
		list, _, _ := unstructured.NestedSlice(o.Object, path...)
		return len(list) > 0
	}
	for _, l := range w.index().leads {
		if l.service != nil {
			continue
		}
		o := w.Other(kindServiceEntry(), l.object.Namespace, l.object.Name)
		if o == nil || l.by != l.object || has(o, "spec", "addresses") || has(o, "status", "addresses") {
			continue
		}
		found(Finding{
			Object: l.object, Field: "spec.addresses", Related: []Object{gatewayObject(l.waypoint)},
			Message: fmt.Sprintf("this has no address, nor has Istio given it one: what is sent to its hosts goes past waypoint %s", l.waypoint),
			Fix:     "give it spec.addresses, or a resolution and hosts for which Istio makes addresses",
		})
	}
}
