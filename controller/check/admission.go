package check

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// admissionChecks ask the evaluator whether a gateway gets through to where it sends.
func admissionChecks() []Check {
	return []Check{
		{
			Code: v1alpha1.FindingNotAdmitted, Title: "policies refuse all that a gateway sends", Severities: both(), Pains: []string{"B1", "B5", "B14", "B15",
				"EI03", "ER07"},
			Matter: "AuthorizationPolicies at the waypoint or at the pods of a Service refuse every request of a gateway that has routes to it.",
			Harm:   "Everybody who calls that Service through the gateway is answered 403, or gets no connection.",
			Fix:    "Let the policy admit the gateway's principal: the finding names the smallest change. Or take the route away.",
			Find:   findRefusedGateways,
		},
		{
			Code: "ISM210", Title: "a gateway outside the mesh sends to who takes identities only", Severities: onlyError(), Pains: []string{"B10", "B11"},
			Matter: "The pods of a gateway are not in the mesh, so that it has no identity, and a Service that it has routes to takes nobody without: by STRICT or " +
				"by policies.",
			Harm: "Everybody who calls that Service through the gateway is refused.",
			Fix:  "Bring the gateway's pods into the mesh; or make an exception for that port.",
			Find: findGatewaysOutside,
		},
		{
			Code: "ISM219", Title: "a policy names the namespace of a Gateway and its pods are elsewhere", Severities: both(), Pains: []string{"EI04", "B13"},
			Matter: "A policy at a backend names the namespace that a Gateway object is in, and the pods that send run in another namespace, with a service account " +
				"of that.",
			Harm: "The rule never matches the gateway: an ALLOW does not admit it, a DENY does not stop it.",
			Fix:  "Name the principal of the gateway's pods.",
			Find: findGatewayNamespaces,
		},
	}
}

// refusal is a point that refuses all that a gateway sends to a Service.
type refusal struct {
	point    *policy.Point
	request  *policy.Request
	decision policy.Decision
	where    string
}

// refused says whether nothing of a gateway gets through to a Service, whichever way it comes.
func (w *World) refused(c *crossing) (refusal, bool) {
	var first refusal
	if c.straight {
		points, all := w.pointsOf(c.backend.Service)
		if !all {
			return refusal{}, false
		}
		for _, p := range points {
			r, ok := refusesAll(p, c)
			if !ok {
				return refusal{}, false
			}
			if first.point == nil {
				r.where = "before its pods"
				first = r
			}
		}
	}
	if c.byWaypoint {
		r, ok := refusesAll(w.behind(c.backend.Waypoint, c.backend.Key), c)
		if !ok {
			return refusal{}, false
		}
		if first.point == nil {
			r.where = "at waypoint " + c.backend.Waypoint.String()
			first = r
		}
	}
	return first, first.point != nil
}

// refusesAll says whether a point refuses a gateway at each port that it sends to.
func refusesAll(p *policy.Point, c *crossing) (refusal, bool) {
	var first refusal
	for _, port := range c.ports {
		r := port.request(c.source)
		d := p.Decide(r)
		if d.Verdict != policy.Deny {
			return refusal{}, false
		}
		if first.point == nil {
			first = refusal{point: p, request: r, decision: d}
		}
	}
	return first, first.point != nil
}

func findRefusedGateways(w *World, found func(Finding)) {
	all := w.crossings()
	for i := range all {
		c := &all[i]
		r, ok := w.refused(c)
		if !ok || c.outside || r.decision.Reason == policy.Plaintext || r.decision.Reason == policy.NoIdentity {
			continue
		}
		one := *r.request
		who := "a caller whose principal is not known"
		if len(c.ids) > 0 {
			one.Source = policy.Of(c.ids[0])
			who = "principal " + principalText(c.ids[0])
		}
		changes := r.point.WhyNot(&one)
		if len(changes) == 1 {
			for field, value := range map[string]string{changes[0].Field: changes[0].Value, changes[0].Near: changes[0].NearValue} {
				if strings.HasSuffix(field, ".operation.ports") {
					who += " at port " + value
				}
			}
		}
		f := Finding{Severity: v1alpha1.SeverityError, Fix: "let it admit " + who, Related: []Object{c.object(), serviceNamed(c.backend.Key)}}
		if w.Paper && r.decision.Reason == policy.NotAllowed {
			f.Severity = v1alpha1.SeverityWarning // a policy that is not in the files may allow it
		}
		f.Object, f.Field = deciding(r.point, r.decision, changes)
		f.Message = fmt.Sprintf("%s sends to Service %s%s, and every request is refused %s: %s", c.object(), c.backend.Key, c.by(), r.where, w.why(&r, f.Object, who))
		switch {
		case w.locked(c):
			f.Fix = fmt.Sprintf("have the gateway send to the Service's address, so that it comes by waypoint %s, which is admitted: now it sends to pods, as %s",
				c.backend.Waypoint, c.backend.Why)
		case len(changes) > 0:
			f.Fix, f.Patch = w.amend(changes, who)
		}
		found(f)
	}
}

// locked says whether pods admit the waypoint of their Service and a gateway goes past it.
func (w *World) locked(c *crossing) bool {
	waypoint, ok := w.leadsTo(c.backend.Service)
	if !ok || c.backend.Sends != plan.ToPods {
		return false
	}
	points, _ := w.pointsOf(c.backend.Service)
	return !slices.ContainsFunc(points, func(p *policy.Point) bool {
		return p.Decide(c.ports[0].request(policy.Of(w.waypointIDs(waypoint)...))).Verdict == policy.Deny
	})
}

// object is the gateway itself.
func (c *crossing) object() Object {
	if c.view.Object != nil {
		return gatewayNamed(c.view.Key)
	}
	return Object{"apps", c.view.Kind, c.view.Key}
}

// by names the routes.
func (c *crossing) by() string {
	var names []string
	for _, i := range c.backend.Routes {
		names = append(names, c.view.Routes[i].Kind+" "+c.view.Routes[i].Key.String())
	}
	if len(names) == 0 {
		return ""
	}
	slices.Sort(names)
	return " (" + inWords(slices.Compact(names)) + ")"
}

// why says in which way a policy refuses.
func (w *World) why(r *refusal, object Object, who string) string {
	switch r.decision.Reason {
	case policy.Denied:
		return fmt.Sprintf("rules[%d] of this denies %s", r.decision.Rule, who)
	case policy.Custom:
		return "this asks an extension provider that the mesh does not have, which denies"
	case policy.NotAllowed:
		var others []string
		for _, ref := range r.point.Policies() {
			p := w.guard().byRef[ref]
			if p != nil && p.Spec.Action == actionAllow && accessObject(p) != object {
				others = append(others, ref.Namespace+"/"+ref.Name)
			}
		}
		switch len(others) {
		case 0:
			return "this does not allow " + who + ", and what it does not allow is denied"
		case 1:
			return "neither this nor " + others[0] + " allows " + who
		}
		return "neither this nor any of " + inWords(others) + " allows " + who
	}
	return r.decision.Reason.String()
}

// deciding is the policy that is to be changed, and where.
func deciding(point *policy.Point, d policy.Decision, changes []policy.Change) (Object, string) {
	ref, field := d.Policy, "spec.rules"
	if d.Rule >= 0 {
		field = fmt.Sprintf("spec.rules[%d]", d.Rule)
	}
	for _, c := range changes {
		if !c.Policy.IsZero() {
			ref = c.Policy
			if c.Near != "" {
				field = "spec." + c.Near
			} else if c.Field != "" {
				field = "spec." + strings.Replace(c.Field, "from[].source.notPrincipals", "from", 1)
			}
			break
		}
	}
	if list := point.Policies(); ref.IsZero() && len(list) > 0 {
		ref = list[len(list)-1]
	}
	return Object{groupSecurity, ref.Kind, types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}}, field
}

func principalText(id spiffeid.ID) string { return strings.TrimPrefix(id.String(), "spiffe://") }

func findGatewaysOutside(w *World, found func(Finding)) {
	all := w.crossings()
	for i := 0; i < len(all); {
		v := all[i].view
		var names []string
		var by Object
		why := ""
		related := []Object{}
		for ; i < len(all) && all[i].view == v; i++ {
			c := &all[i]
			if !c.outside {
				continue
			}
			r, ok := w.refused(c)
			if !ok {
				continue
			}
			names, related = append(names, c.backend.Key.String()), append(related, serviceNamed(c.backend.Key))
			if why == "" {
				by, _ = deciding(r.point, r.decision, nil)
				why = by.String() + " admits nobody without an identity of the mesh"
				if r.decision.Reason == policy.Plaintext {
					why = by.String() + " asks for mTLS"
				}
			}
		}
		if len(names) == 0 {
			continue
		}
		c := crossing{view: v}
		f := Finding{
			Object: c.object(), Related: append([]Object{by}, related...),
			Message: fmt.Sprintf("none of its pods is in the mesh, so that it has no identity, and all that it sends to %s is refused: %s", inWords(names), why),
			Fix:     "bring its pods into the mesh: label them " + plan.LabelDataplaneMode + "=ambient",
		}
		if v.Object != nil && v.Vendor.Infrastructure && !slices.ContainsFunc(v.Pods, func(p *plan.Pod) bool { return p.Spec.HostNetwork }) {
			f.Patch = w.enrolCommand(v)
			if w.refusesClients(v) {
				f.Fix += ", and annotate them " + plan.AnnotationBypassInbound + "=true, as policies before them refuse their clients otherwise"
			}
		}
		found(f)
	}
}
