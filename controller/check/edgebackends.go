package check

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge/rules"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

func edgeBackendChecks() []Check {
	worse, degrades := v1alpha1.SeverityError, v1alpha1.SeverityWarning
	return []Check{
		{
			Code: "ISM530", Title: "the edge opens TLS to what the waypoint reads", Severities: []v1alpha1.Severity{worse, degrades},
			Pains:  []string{"B2", "EP13"},
			Matter: "A setting of a gateway has it open TLS to a Service, and policies at the waypoint ask about requests.",
			Harm:   "The waypoint cannot read them: an ALLOW refuses all, a DENY decides on the rest of its conditions.",
			Fix:    "Take the TLS away: the mesh encrypts the hop.",
			Find:   findUnreadable,
		},
		{
			Code: "ISM531", Title: "a limit at the waypoint counts the edge as one client", Severities: []v1alpha1.Severity{degrades},
			Pains:  []string{"B6", "ER06"},
			Matter: "An EnvoyFilter at a waypoint limits rates by the address that it sees, and a gateway sends through it.",
			Harm:   "All clients of the gateway share one limit.",
			Fix:    "Count by a header that the gateway writes, and pin that to its principal.",
			Find:   findSharedLimits,
		},
	}
}

func edgeReliabilityChecks() []Check {
	degrades := v1alpha1.SeverityWarning
	return []Check{
		{
			Code: "ISM602", Title: "session affinity at the edge has one endpoint to choose from", Severities: []v1alpha1.Severity{degrades},
			Pains:  []string{"E8", "EP15"},
			Matter: "A gateway keeps clients at an endpoint, and sends to the Service's address.",
			Harm:   "Its cookies and hashes have no effect: requests go to the Service's pods in turn.",
			Fix:    "Do without affinity, or leave the Service without a waypoint.",
			Find:   findLostAffinity,
		},
		{
			Code: "ISM603", Title: "health checks at the edge judge a whole Service", Severities: []v1alpha1.Severity{degrades},
			Pains:  []string{"E11", "EP16"},
			Matter: "A gateway judges the health of endpoints, and sends to the Service's address.",
			Harm:   "One bad answer takes the whole Service out, or has no effect at all.",
			Fix:    "Take it away at the gateway: readiness of pods is minded by the mesh.",
			Find:   findJudgedServices,
		},
	}
}

func findUnreadable(w *World, found func(Finding)) {
	for t := range w.trips() {
		m := t.mesh(w)
		if m == nil || !m.asksRequests() {
			continue
		}
		// BackendTLSPolicies and Ingresses are told of elsewhere.
		for _, r := range t.having(func(r *rules.Rule) bool {
			return r.TLS != nil && r.Object.Kind != "BackendTLSPolicy" && r.Object.Kind != "Ingress"
		}) {
			q := policy.Request{Source: policy.Of(t.identities(w, m)...), Protocol: policy.Of(policy.TCP), ServicePort: policy.Of(uint16(t.port))}
			f := Finding{Object: ruleObject(r.Object), Field: r.Field, Related: []Object{ruleObject(t.route), ServiceObject(m.service)}}
			for _, p := range m.policies {
				f.Related = append(f.Related, decidingObject(p))
			}
			f.Message = fmt.Sprintf("%s opens TLS to %s, and its waypoint cannot read the requests that policies ask about",
				t.edge.View.String(), ServiceObject(m.service))
			d := m.point.Decide(&q)
			if d.Verdict == policy.Deny {
				f.Message += ": all of them are refused"
			}
			t.severity(w, &f, d.Reason == policy.Denied)
			if d.Verdict != policy.Deny {
				f.Severity = v1alpha1.SeverityWarning
			}
			f.Fix = "take the TLS away, the mesh encrypts this hop; or have policies at the waypoint name callers and ports alone"
			found(f)
		}
	}
}

// asksRequests says whether a policy asks about requests.
func (s *meshSide) asksRequests() bool {
	for _, p := range s.policies {
		for _, r := range p.Spec.Rules {
			for _, from := range r.GetFrom() {
				if src := from.GetSource(); len(src.GetRequestPrincipals())+len(src.GetNotRequestPrincipals()) > 0 {
					return true
				}
			}
			for _, to := range r.GetTo() {
				op := to.GetOperation()
				if len(op.GetHosts())+len(op.GetNotHosts())+len(op.GetMethods())+len(op.GetNotMethods())+len(op.GetPaths())+len(op.GetNotPaths()) > 0 {
					return true
				}
			}
			for _, when := range r.GetWhen() {
				if strings.HasPrefix(when.GetKey(), "request.") {
					return true
				}
			}
		}
	}
	return false
}

// findSharedLimits looks for limits by address in EnvoyFilters of waypoints that a gateway sends through.
func findSharedLimits(w *World, found func(Finding)) {
	limits := map[Object][]*unstructured.Unstructured{}
	for _, u := range w.Others(schema.GroupKind{Group: "networking.istio.io", Kind: "EnvoyFilter"}, "") {
		if !mentions(u.Object, 0) {
			continue
		}
		spec, _ := u.Object["spec"].(map[string]any)
		for _, ref := range mapsIn(spec, "targetRefs") {
			kind, _ := ref["kind"].(string)
			name, _ := ref["name"].(string)
			o := Object{Kind: kind}
			o.Namespace, o.Name = u.GetNamespace(), name
			limits[o] = append(limits[o], u)
		}
	}
	if len(limits) == 0 {
		return
	}
	for t := range w.trips() {
		m := t.mesh(w)
		if m == nil {
			continue
		}
		if is, _ := t.leads(w); is != rules.Yes {
			continue
		}
		for _, o := range []Object{{Kind: "Gateway", NamespacedName: m.waypoint}, {Kind: "Service", NamespacedName: t.service}} {
			for _, u := range limits[o] {
				at := Object{"networking.istio.io", "EnvoyFilter", o.NamespacedName}
				at.Name = u.GetName()
				found(Finding{
					Object: at, Field: "spec.configPatches", Related: []Object{t.edge.object(), ServiceObject(m.service)},
					Message: fmt.Sprintf("it limits by the address that the waypoint sees: all clients of %s are one, and share the limit", t.edge.View.String()),
					Fix:     fmt.Sprintf("count by a header that %s writes, or limit there", t.edge.View.String()),
				})
			}
		}
	}
}

// mentions says whether a tree has a rate limit's action by remote address, within a depth that no real one goes beyond.
func mentions(v any, depth int) bool {
	if depth > 32 {
		return false
	}
	switch v := v.(type) {
	case map[string]any:
		for key, below := range v {
			if key == "remote_address" || key == "masked_remote_address" || mentions(below, depth+1) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(v, func(e any) bool { return mentions(e, depth+1) })
	}
	return false
}

func findLostAffinity(w *World, found func(Finding)) {
	w.oneEndpoint(found, func(r *rules.Rule) bool { return r.Affinity != nil }, func(r *rules.Rule) (string, string) {
		return fmt.Sprintf("clients are to stay at an endpoint by %s, and there is one endpoint, the Service's address: "+
				"requests go to its pods in turn", r.Affinity.By),
			"do without affinity here, or leave the Service without a waypoint"
	})
}

func findJudgedServices(w *World, found func(Finding)) {
	w.oneEndpoint(found, func(r *rules.Rule) bool { return r.Health != nil }, func(r *rules.Rule) (string, string) {
		return "the health of endpoints is judged here, and there is one endpoint, the Service's address: " +
				"one bad answer takes the whole Service out, or nothing comes of it",
			"take it away here: the mesh minds which pods are ready"
	})
}

// oneEndpoint finds rules about endpoints where a gateway sends to the address of a Service that leads to a waypoint. What plans find is left out.
func (w *World) oneEndpoint(found func(Finding), is func(*rules.Rule) bool, say func(*rules.Rule) (message, fix string)) {
	for t := range w.trips() {
		if to, _ := t.leads(w); to != rules.Yes {
			continue
		}
		for _, r := range t.having(is) {
			o := ruleObject(r.Object)
			if slices.ContainsFunc(t.edge.View.Findings, func(f v1alpha1.Finding) bool { return f.Code == v1alpha1.FindingLoss && f.Object == o.String() }) {
				continue
			}
			f := Finding{Object: o, Field: r.Field, Related: []Object{ruleObject(t.route), ServiceObject(w.Service(t.service))}}
			f.Message, f.Fix = say(r)
			f.Message = fmt.Sprintf("%s sends to the address of %s, for its waypoint: %s", t.edge.View.String(), ServiceObject(w.Service(t.service)), f.Message)
			found(f)
		}
	}
}
