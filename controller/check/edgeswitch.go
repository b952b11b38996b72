package check

import (
	"cmp"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

func edgeSwitchChecks() []Check {
	return []Check{
		{
			Code: "ISM124", Title: "Envoy Gateway's calls for authorization go past a waypoint", Severities: []v1alpha1.Severity{v1alpha1.SeverityWarning},
			Pains: []string{"A1", "EP07"},
			Matter: "A SecurityPolicy or EnvoyExtensionPolicy calls a Service that leads to a waypoint, and the EnvoyProxy of the gateway does not have " +
				"routingType Service.",
			Harm: "A BackendTrafficPolicy does not reach these calls: they go to pods, past the waypoint.",
			Fix:  "Set spec.routingType: Service in the EnvoyProxy of the Gateway or of its class.",
			Find: (*World).extensionCalls,
		},
		{
			Code: "ISM125", Title: "Traefik's annotation is that of another kind of route", Severities: []v1alpha1.Severity{v1alpha1.SeverityWarning},
			Pains:  []string{"A1", "EP09"},
			Matter: "A Service has Traefik's nativelb annotation for Ingresses and is routed by the Gateway API, or the other way round.",
			Harm:   "The annotation does nothing: Traefik sends to pods, past the waypoint.",
			Fix:    "Use the annotation of the routes' kind, or both.",
			Find:   (*World).traefikFamilies,
		},
		{
			Code: "ISM126", Title: "pods are open to who goes past their waypoint", Severities: []v1alpha1.Severity{v1alpha1.SeverityWarning, v1alpha1.SeverityInfo},
			Pains:  []string{"A3", "EP11", "EP12"},
			Matter: "Policies stand at a waypoint, and the pods behind it admit others than the waypoint.",
			Harm: "Who sends to a pod's address is not asked; nor is anybody, when Istio leaves the waypoint out. Warning: a gateway goes there by itself " +
				"when it cannot find the waypoint.",
			Fix:  "Let a policy at the pods admit the waypoint's service account alone.",
			Find: (*World).open,
		},
	}
}

const envoyGatewayGroup = "gateway.envoyproxy.io"

func (w *World) extensionCalls(found func(Finding)) {
	for _, kind := range []string{"SecurityPolicy", "EnvoyExtensionPolicy"} {
		for _, o := range w.Others(schema.GroupKind{Group: envoyGatewayGroup, Kind: kind}, "") {
			refs := backendRefs(o.Object["spec"], 0)
			if len(refs) == 0 {
				continue
			}
			for _, v := range w.envoyGatewaysOf(o) {
				for _, key := range refs {
					if key.Namespace == "" {
						key.Namespace = o.GetNamespace()
					}
					l, leads := w.leadsOf(key)
					if !leads {
						continue
					}
					found(Finding{
						Object: Object{envoyGatewayGroup, kind, keyOf(o)}, Field: "spec", Related: []Object{l.object, gatewayObject(l.waypoint), viewObject(v)},
						Message: fmt.Sprintf("%s calls %s for this by its pods, past waypoint %s: only routingType of an EnvoyProxy is for these calls", v, l.object, l.waypoint),
						Fix:     "set spec.routingType: Service in the EnvoyProxy that the Gateway or its class refers to",
					})
				}
			}
		}
	}
}

// envoyGatewaysOf are the gateways that a policy of Envoy Gateway is for, as far as they are known not to have routingType Service.
func (w *World) envoyGatewaysOf(o *unstructured.Unstructured) []*plan.View {
	var list []*plan.View
	views := w.Views()
	refs, _, _ := unstructured.NestedSlice(o.Object, "spec", "targetRefs")
	for i := range views {
		v := &views[i]
		if v.Vendor.Name != "envoy-gateway" || v.Object == nil || !w.sendsExtensionsToPods(v) {
			continue
		}
		if slices.ContainsFunc(refs, func(ref any) bool {
			r, _ := ref.(map[string]any)
			if r["kind"] == "Gateway" {
				return v.Key == types.NamespacedName{Namespace: o.GetNamespace(), Name: text(r, "name")}
			}
			return slices.ContainsFunc(v.Routes, func(is plan.Routed) bool {
				return is.Kind == r["kind"] && is.Key == types.NamespacedName{Namespace: o.GetNamespace(), Name: text(r, "name")}
			})
		}) {
			list = append(list, v)
		}
	}
	return list
}

// sendsExtensionsToPods says whether no EnvoyProxy of a gateway has routingType Service, for sure.
func (w *World) sendsExtensionsToPods(v *plan.View) bool {
	kind := schema.GroupKind{Group: envoyGatewayGroup, Kind: "EnvoyProxy"}
	toPods := func(namespace, name string) bool {
		o := w.Other(kind, namespace, name)
		if o == nil {
			return false
		}
		is, _, _ := unstructured.NestedString(o.Object, "spec", "routingType")
		return is != "Service"
	}
	if in := v.Object.Spec.Infrastructure; in != nil && in.ParametersRef != nil {
		return toPods(v.Key.Namespace, in.ParametersRef.Name)
	}
	c := w.classes[string(v.Object.Spec.GatewayClassName)]
	if c == nil {
		return false
	}
	if ref := c.Spec.ParametersRef; ref != nil && ref.Namespace != nil {
		return toPods(string(*ref.Namespace), ref.Name)
	}
	return c.Spec.ParametersRef == nil
}

// backendRefs are the Services that a tree refers to, in whatever field. Without namespace: that of the object.
func backendRefs(tree any, depth int) []types.NamespacedName {
	var list []types.NamespacedName
	if depth > 16 {
		return nil
	}
	add := func(x any) {
		if m, ok := x.(map[string]any); ok && (text(m, "kind") == "" || text(m, "kind") == "Service") && text(m, "group") == "" && text(m, "name") != "" {
			list = append(list, types.NamespacedName{Namespace: text(m, "namespace"), Name: text(m, "name")})
		}
	}
	switch t := tree.(type) {
	case map[string]any:
		for _, k := range sortedKeys(t) {
			switch k {
			case "backendRef":
				add(t[k])
			case "backendRefs":
				refs, _ := t[k].([]any)
				for _, x := range refs {
					add(x)
				}
			default:
				list = append(list, backendRefs(t[k], depth+1)...)
			}
		}
	case []any:
		for _, x := range t {
			list = append(list, backendRefs(x, depth+1)...)
		}
	}
	return list
}

func (w *World) traefikFamilies(found func(Finding)) {
	const routes, ingresses = "traefik.io/service.nativelb", "traefik.ingress.kubernetes.io/service.nativelb"
	for _, l := range w.index().leads {
		if l.service == nil {
			continue
		}
		for _, s := range w.index().senders[l.object.NamespacedName] {
			if s.view.Vendor.Name != "traefik" || s.backend.Sends != plan.ToPods {
				continue
			}
			right, wrong, kind := routes, ingresses, "routes of the Gateway API"
			if s.view.Kind != "Gateway" {
				right, wrong, kind = ingresses, routes, "Ingresses"
			}
			if l.service.Annotations[wrong] != "true" || l.service.Annotations[right] != "" {
				continue
			}
			found(Finding{
				Object: l.object, Field: "metadata.annotations[" + wrong + "]", Related: []Object{viewObject(s.view), gatewayObject(l.waypoint)},
				Message: fmt.Sprintf("%s sends here by %s, for which this annotation does nothing: it goes to pods, past waypoint %s", s.view, kind, l.waypoint),
				Fix:     "set " + right, Patch: annotateCommand(l.object, right, "true"),
			})
		}
	}
}

// stranger is somebody of the mesh whom no policy names.
const stranger = "/ns/isthmus-nobody/sa/nobody"

// open finds pods that admit others than their waypoint, which has policies.
func (w *World) open(found func(Finding)) {
	who, err := spiffeid.FromString("spiffe://" + cmp.Or(w.Mesh.TrustDomain, "cluster.local") + stranger)
	if err != nil {
		return // the trust domain is none
	}
	for _, l := range w.index().leads {
		if l.service == nil || w.headless(l.service) {
			continue
		}
		list := w.atWaypoint(l.waypoint, l.object)
		if !slices.ContainsFunc(list, func(p policyObject) bool { return p.access != nil }) ||
			w.pointAt(list, l.waypoint, l.object).Decide(&policy.Request{Source: policy.Of(who)}).Verdict == policy.Allow {
			continue
		}
		pods := w.PodsOf(l.service)
		i := slices.IndexFunc(pods, func(p *plan.Pod) bool {
			return w.InMesh(p) && w.pointBefore(p).Decide(&policy.Request{Source: policy.Of(who)}).Verdict == policy.Allow
		})
		if i < 0 {
			continue
		}
		f := Finding{Object: l.object, Severity: v1alpha1.SeverityInfo, Related: []Object{gatewayObject(l.waypoint)}}
		for _, p := range list {
			f.Related = append(f.Related, p.Object)
		}
		f.Message = fmt.Sprintf("the pods of this Service admit everybody in the mesh who sends to their addresses, and all requests when Istio leaves "+
			"waypoint %s out: "+
			"policies stand at the waypoint alone", l.waypoint)
		for _, s := range w.index().senders[l.object.NamespacedName] {
			if name := s.view.Vendor.Name; name == "agentgateway" || name == "istio-agentgateway" {
				f.Severity = v1alpha1.SeverityWarning
				f.Message += fmt.Sprintf("; %s goes straight to pods when it cannot find the waypoint", s.view)
			}
		}
		f.Fix = fmt.Sprintf("let an AuthorizationPolicy with a selector for these pods admit the waypoint's service account (%s/%s) and nobody "+
			"else", l.waypoint.Namespace, l.waypoint.Name)
		found(f)
	}
}
