package plan_test

import (
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// outsideYet takes the gateway of a world out of the mesh: it was never there.
func outsideYet(s *plan.Snapshot) {
	s.Namespaces[0].Labels, s.Namespaces[0].ManagedFields = nil, nil
	for i := range s.Pods {
		if s.Pods[i].Namespace == "edge" {
			s.Pods[i].Annotations = nil
		}
	}
}

// TestEnrolmentWaitsForWhomItWouldCutOff: who refuses the gateway before as after holds back himself. Where a gateway gets through now, and would not with
// its identity, it stays outside for all.
func TestEnrolmentWaitsForWhomItWouldCutOff(t *testing.T) {
	const leads = `uid: s-NS, labels: {istio.io/use-waypoint: waypoint}`
	const bound = `ports: [{port: 80}]}, status: {conditions: [{type: istio.io/WaypointBound, status: "True"}]}}`
	const ports = `ports: [{port: 80}]}}`
	const silentOther = `{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: other, namespace: NS, uid: o-NS, annotations: {test/why: "connection refused"}}, spec: {gatewayClassName: istio-waypoint}, status: {addresses: [{value: 10.96.0.10}], conditions: [{type: Programmed, status: "True"}]}}`
	noWaypoints := func(e *v1alpha1.AmbientEdge) { e.Spec.Waypoint = &v1alpha1.Waypoint{Policy: v1alpha1.WaypointNone} }
	toService := atPods + `{targetRefs: [{kind: Service, group: "", name: orders}], `
	const gateway, job = `cluster.local/ns/edge/sa/gateway`, `cluster.local/ns/batch/sa/job`
	for name, c := range map[string]struct {
		otherwise []string
		more      string
		code      string // of what keeps the gateway outside
		spec      func(*v1alpha1.AmbientEdge)
	}{
		"nobody asks":                                   {},
		"pods deny the gateway alone":                   {more: atPods + `{action: DENY, rules: [{from: [{source: {principals: [` + gateway + `]}}]}]}}`, code: v1alpha1.FindingNotAdmitted},
		"pods deny it at one port":                      {otherwise: []string{ports, "ports: [{port: 80}, {port: 81}]}}"}, more: atPods + `{action: DENY, rules: [{from: [{source: {principals: [` + gateway + `]}}], to: [{operation: {ports: ["81"]}}]}]}}`, code: v1alpha1.FindingNotAdmitted},
		"pods deny it at a port of no Service":          {more: atPods + `{action: DENY, rules: [{from: [{source: {principals: [` + gateway + `]}}], to: [{operation: {ports: ["81"]}}]}]}}`},
		"pods admit another, now as then":               {more: atPods + `{rules: [{from: [{source: {principals: [` + job + `]}}]}]}}`},
		"pods admit it and nobody outside":              {more: atPods + `{rules: [{from: [{source: {principals: [` + gateway + `]}}]}]}}`},
		"pods deny another":                             {more: atPods + `{action: DENY, rules: [{from: [{source: {principals: [` + job + `]}}]}]}}`},
		"its own waypoint denies it":                    {otherwise: []string{"uid: s-NS", leads, ports, bound}, more: toService + `action: DENY, rules: [{from: [{source: {principals: [` + gateway + `]}}]}]}}`, code: v1alpha1.FindingNotAdmitted},
		"its own waypoint takes others":                 {otherwise: []string{"uid: s-NS", leads, ports, bound}, more: toService + `rules: [{from: [{source: {principals: [` + job + `]}}]}]}}`, code: v1alpha1.FindingNotAdmitted},
		"its own waypoint takes some requests":          {otherwise: []string{"uid: s-NS", leads, ports, bound}, more: toService + `rules: [{from: [{source: {principals: [` + gateway + `]}}], to: [{operation: {methods: [GET]}}]}]}}`},
		"its pods know no waypoint, and it has one":     {otherwise: []string{"uid: s-NS", leads, ports, bound}, more: atPods + `{action: DENY, rules: [{from: [{source: {principals: [cluster.local/ns/NS/sa/waypoint]}}]}]}}`, code: v1alpha1.FindingNotAdmitted},
		"its own waypoint is silent":                    {otherwise: []string{"uid: s-NS", leads, ports, bound, `test/answers: "yes"`, `test/why: "connection refused"`}, code: v1alpha1.FindingWaypointSilent},
		"a waypoint that it does not lead to is":        {otherwise: []string{`test/answers: "yes"`, `test/why: "connection refused"`}},
		"without waypoints, one that it leads to is":    {otherwise: []string{"uid: s-NS", leads, ports, bound, `test/answers: "yes"`, `test/why: "connection refused"`}, spec: noWaypoints, code: v1alpha1.FindingWaypointSilent},
		"without waypoints, it leads to one that is up": {otherwise: []string{"uid: s-NS", leads, ports, bound}, spec: noWaypoints},
		"without waypoints, it is not bound to it yet":  {otherwise: []string{"uid: s-NS", leads, `test/answers: "yes"`, `test/why: "connection refused"`}, spec: noWaypoints},
		"somebody leads it to another, which is":        {otherwise: []string{"uid: s-NS", strings.Replace(leads, "use-waypoint: waypoint", "use-waypoint: other", 1), ports, bound}, more: silentOther, code: v1alpha1.FindingWaypointSilent},
		"without waypoints": {more: atPods + `{action: DENY, rules: [{from: [{source: {principals: [` + gateway + `]}}]}]}}`, code: v1alpha1.FindingNotAdmitted,
			spec: noWaypoints},
		"without waypoints, it is refused now as then": {more: atPods + `{rules: [{from: [{source: {principals: [` + job + `]}}]}]}}`,
			spec: noWaypoints},
	} {
		t.Run(name, func(t *testing.T) {
			s := inTenants(t, tenant, c.otherwise, c.more)
			if c.spec != nil {
				c.spec(s.Edge)
				asked(s)
			}
			outsideYet(s)
			p := plan.Make(s)
			enrol := stepsOf(p, "Namespace edge")[plan.VerbEnrol]
			if c.code == "" {
				if enrol.Write == nil || p.Blocked() {
					t.Errorf("the gateway is not enrolled: %+v\n%+v", enrol, p.Findings)
				}
				return
			}
			if enrol.Write != nil || enrol.State != v1alpha1.StepBlocked || !p.Blocked() {
				t.Errorf("the gateway is enrolled: %+v\n%+v", enrol, p.Findings)
			}
			f := first(p, c.code)
			if f.Severity != v1alpha1.SeverityError || !strings.Contains(f.Message, "stays outside") || !strings.Contains(f.Message, "for all of its backends") {
				t.Errorf("the finding is %+v", f)
			}
			// One that is in the mesh already is not cut off by us, and what got lost is mended.
			s.Edge.Status.Plan.Steps = []v1alpha1.Step{{ID: plan.VerbVerify + " Deployment edge/gateway", State: v1alpha1.StepDone}}
			if p := plan.Make(s); stepsOf(p, "Namespace edge")[plan.VerbEnrol].Write == nil {
				t.Errorf("the label that got lost is not mended: %+v", p.Findings)
			}
		})
	}
}

// TestWaypointsThatServicesLeadToAreAsked: by whose label ever, before a gateway is brought into the mesh, and of hidden backends none.
func TestWaypointsThatServicesLeadToAreAsked(t *testing.T) {
	led := func(waypoint string) []string {
		return []string{"uid: s-NS", "uid: s-NS, labels: {istio.io/use-waypoint: " + waypoint + "}", `ports: [{port: 80}]}}`, `ports: [{port: 80}]}, status: {conditions: [{type: istio.io/WaypointBound, status: "True"}]}}`}
	}
	const other = `{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: other, namespace: NS}, spec: {gatewayClassName: istio-waypoint}, status: {addresses: [{value: 10.96.0.10}], conditions: [{type: Programmed, status: "STATUS"}]}}`
	for name, c := range map[string]struct {
		otherwise []string
		programmed,
		inside bool
		policy v1alpha1.WaypointPolicy
		want   string
	}{
		"no waypoint is wanted":                 {led("waypoint"), true, false, v1alpha1.WaypointNone, "b/waypoint"},
		"none is wanted, and it leads to none":  {nil, true, false, v1alpha1.WaypointNone, ""},
		"the gateway is in the mesh":            {led("waypoint"), true, true, v1alpha1.WaypointNone, ""},
		"others lead it elsewhere":              {led("other"), true, false, v1alpha1.WaypointUse, "a/waypoint b/other b/waypoint"},
		"that is not programmed":                {led("other"), false, false, v1alpha1.WaypointUse, "a/waypoint b/waypoint"},
		"its namespace has not consented to it": {append(led("other"), `, annotations: {isthmus.dev/edges: "edge/public"}`, ""), true, false, v1alpha1.WaypointUse, "a/waypoint"},
	} {
		status := "False"
		if c.programmed {
			status = "True"
		}
		s := inTenants(t, tenant, c.otherwise, strings.Replace(other, "STATUS", status, 1))
		if c.policy == v1alpha1.WaypointNone {
			s.Edge.Spec.Waypoint = &v1alpha1.Waypoint{Policy: c.policy}
		}
		if !c.inside {
			outsideYet(s)
		}
		var got []string
		for _, key := range plan.WaypointsToAsk(s) {
			got = append(got, key.String())
		}
		if is := strings.Join(got, " "); is != c.want {
			t.Errorf("%s: %q are asked, want %q", name, is, c.want)
		}
	}
}

// TestWhoConsentsInPartStopsNobodyByASilentWaypoint: his Service leads to that of somebody else, which falls silent. Its own Services wait for it.
func TestWhoConsentsInPartStopsNobodyByASilentWaypoint(t *testing.T) {
	const grant = `{apiVersion: gateway.networking.k8s.io/v1beta1, kind: ReferenceGrant, metadata: {name: edges, namespace: NS}, spec: {from: [{group: isthmus.dev, kind: AmbientEdge, namespace: edge}], to: [{group: "", kind: Service}]}}`
	silent := strings.Replace(tenant, `test/answers: "yes"`, `test/why: "connection refused"`, 1)
	for name, consents := range map[string]bool{"he consents": true, "he consents in part": false} {
		t.Run(name, func(t *testing.T) {
			otherwise := []string{
				"uid: s-NS", "uid: s-NS, labels: {istio.io/use-waypoint: waypoint, istio.io/use-waypoint-namespace: a}",
				`ports: [{port: 80}]}}`, `ports: [{port: 80}]}, status: {conditions: [{type: istio.io/WaypointBound, status: "True"}]}}`,
			}
			if !consents {
				otherwise = append(otherwise, `, annotations: {isthmus.dev/edges: "edge/public"}`, "")
			}
			s := inTenants(t, silent, otherwise, grant)
			s.Edge.Spec.Authorization = &v1alpha1.Authorization{Mode: v1alpha1.AuthorizationLock}
			outsideYet(s)
			p := plan.Make(s)
			f := first(p, v1alpha1.FindingWaypointSilent)
			enrol := stepsOf(p, "Namespace edge")[plan.VerbEnrol]
			if consents {
				if f.Severity != v1alpha1.SeverityError || enrol.Write != nil || !p.Blocked() {
					t.Errorf("the gateway is enrolled: %+v\n%+v", enrol, p.Findings)
				}
				return
			}
			if f.Severity != v1alpha1.SeverityWarning || f.Object != "Gateway a/waypoint" || !strings.Contains(f.Message, "Service b/orders leads there") || !strings.Contains(f.Message, "nobody waits for it") {
				t.Errorf("the finding is %+v", f)
			}
			if enrol.Write == nil || p.Blocked() {
				t.Errorf("the gateway is not enrolled: %+v\n%+v", enrol, p.Findings)
			}
			if by := backend(p.Status(s.Edge), "a/orders").Held; len(by) != 1 || !strings.HasPrefix(by[0], v1alpha1.FindingWaypointSilent) {
				t.Errorf("a/orders is held by %q", by)
			}
		})
	}
}

func first(p *plan.Plan, code string) v1alpha1.Finding {
	for _, f := range p.Findings {
		if f.Code == code {
			return f
		}
	}
	return v1alpha1.Finding{}
}

// TestNothingIsBegunForNobody: where every backend is held back, the gateway is not enrolled. Once it is, that goes on.
func TestNothingIsBegunForNobody(t *testing.T) {
	headless := []string{"clusterIP: 10.96.0.1", "clusterIP: None"}
	s := inTenants(t, strings.ReplaceAll(tenant, headless[0], headless[1]), headless, "")
	outsideYet(s)
	p := plan.Make(s)
	if w := p.Writes(); len(w) > 0 || !p.Blocked() {
		t.Errorf("blocked: %t, and written is %v", p.Blocked(), w)
	}
	if c := p.Status(s.Edge).Conditions[0]; c.Reason != v1alpha1.ReasonBlocked || !strings.Contains(c.Message, v1alpha1.FindingHeadless) {
		t.Errorf("Ready is %+v", c)
	}
	s.Edge.Finalizers = []string{v1alpha1.Finalizer}
	if p := plan.Make(s); stepsOf(p, "Namespace edge")[plan.VerbEnrol].Write == nil {
		t.Error("it was begun, and does not go on")
	}
}

// TestWhoConsentsInPartIsToldOfEnrolment: what his pods will refuse is told, and stops nobody.
func TestWhoConsentsInPartIsToldOfEnrolment(t *testing.T) {
	const consent = `, annotations: {isthmus.dev/edges: "edge/public"}`
	grant := `{apiVersion: gateway.networking.k8s.io/v1beta1, kind: ReferenceGrant, metadata: {name: edges, namespace: NS}, spec: {from: [{group: isthmus.dev, kind: AmbientEdge, namespace: edge}], to: [{group: "", kind: Service}]}}
---
`
	s := inTenants(t, tenant, []string{consent, ""}, grant+atPods+`{action: DENY, rules: [{from: [{source: {principals: [cluster.local/ns/edge/sa/gateway]}}]}]}}`)
	s.Edge.Spec.Authorization = &v1alpha1.Authorization{Mode: v1alpha1.AuthorizationLock}
	outsideYet(s)
	p := plan.Make(s)
	list := said(p, v1alpha1.FindingNotAdmitted)
	if len(list) != 1 || list[0].Severity != v1alpha1.SeverityWarning || !strings.Contains(list[0].Message, "b/orders are let through now") || strings.Contains(list[0].Message, "stays outside") {
		t.Errorf("it finds %+v", p.Findings)
	}
	if enrol := stepsOf(p, "Namespace edge")[plan.VerbEnrol]; enrol.Write == nil || p.Blocked() {
		t.Errorf("the gateway is not enrolled: %+v", enrol)
	}
}
