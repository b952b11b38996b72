package check

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// told is a check whose findings plans have too: those that are about how things are now, and not about what an AmbientEdge would do.
type told struct {
	Check

	// holds says whether a finding is one that somebody without an AmbientEdge should have, and how bad it is. Empty: it is not.
	holds func(w *World, v *plan.View, f *v1alpha1.Finding) v1alpha1.Severity
	// mend gives the Fix for somebody without an AmbientEdge. Nil: that of the plan.
	mend func(f *v1alpha1.Finding) (fix, patch string)
}

func (t told) check() Check {
	c := t.Check
	c.Find = func(w *World, found func(Finding)) {
		views := w.Views()
		for i := range views {
			v := &views[i]
			for j := range v.Findings {
				f := &v.Findings[j]
				if f.Code != c.Code {
					continue
				}
				severity := t.holds(w, v, f)
				if severity == "" {
					continue
				}
				is := Finding{Severity: severity, Object: w.standing(objectOf(f.Object)), Field: f.Field, Message: f.Message, Fix: f.Fix}
				if t.mend != nil {
					is.Fix, is.Patch = t.mend(f)
				}
				if at := viewObject(v); at != is.Object {
					is.Related = []Object{at}
				}
				found(is)
			}
		}
	}
	return c
}

// objectOf reads Kind namespace/name, as plans write it.
func objectOf(s string) Object {
	kind, name, _ := strings.Cut(s, " ")
	o := Object{Kind: kind}
	if ns, n, ok := strings.Cut(name, "/"); ok {
		o.NamespacedName = types.NamespacedName{Namespace: ns, Name: n}
	} else {
		o.Name = name
	}
	switch {
	case kind == "Deployment" || kind == "DaemonSet":
		o.Group = "apps"
	case kind == "Ingress":
		o.Group = "networking.k8s.io"
	case kind == "Gateway" || strings.HasSuffix(kind, "Route"):
		o.Group = gatewayGroup
	}
	for _, u := range edge.Uses() {
		if u.Kind.Kind == kind {
			o.Group = u.Group
		}
	}
	return o
}

// behind says whether a gateway sends to a Service that leads to a waypoint.
func behind(w *World, v *plan.View, f *v1alpha1.Finding) v1alpha1.Severity {
	return onlyIf(w.sendsWhere(v, func(*plan.ViewBackend) bool { return true }), f.Severity)
}

// sendsWhere says whether a gateway sends to a Service that leads to a waypoint, and for which is says true.
func (w *World) sendsWhere(v *plan.View, is func(*plan.ViewBackend) bool) bool {
	return slices.ContainsFunc(v.Backends, func(b plan.ViewBackend) bool { _, leads := w.leadsOf(b.Key); return leads && is(&b) })
}

// idle says how bad it is that a switch does nothing: an error where it is set for a Service that leads to a waypoint.
func idle(w *World, v *plan.View, f *v1alpha1.Finding) v1alpha1.Severity {
	meant := func(b *plan.ViewBackend) bool {
		return slices.ContainsFunc(v.Findings, func(o v1alpha1.Finding) bool {
			return o.Code == f.Code && o.Severity == v1alpha1.SeverityError && o.Message == b.Why
		})
	}
	switch {
	case behind(w, v, f) == "" || f.Severity != v1alpha1.SeverityError && (w.Paper || !strings.HasPrefix(f.Field, "env ")):
		return ""
	case !w.sendsWhere(v, meant):
		return v1alpha1.SeverityInfo
	}
	return f.Severity
}

func toldChecks() []Check {
	list := []told{
		{
			Check: Check{
				Code: v1alpha1.FindingSwitchIdle, Title: "a gateway's switch does nothing", Severities: []v1alpha1.Severity{v1alpha1.SeverityError, v1alpha1.SeverityInfo},
				Pains:  []string{"A1", "EP02", "EP11", "G8"},
				Matter: "A setting, a version or a mode of a gateway keeps its switch from doing anything, and it sends to Services that lead to waypoints.",
				Harm:   "It sends to pods, past every waypoint, whatever labels say.",
				Fix:    "Set or upgrade what the finding names.",
			},
			holds: idle,
			mend: func(f *v1alpha1.Finding) (string, string) {
				if fix, _, cut := strings.Cut(f.Fix, ", or set spec."); cut {
					return fix, ""
				}
				return f.Fix, ""
			},
		},
		{
			Check: Check{
				Code: v1alpha1.FindingLoss, Title: "a feature is lost behind a waypoint", Severities: []v1alpha1.Severity{v1alpha1.SeverityWarning},
				Pains:  []string{"D6", "E8", "EP15", "EP16"},
				Matter: "Session affinity, hashing or health checks by pod are asked for, and the gateway sends to a Service's address, which is one endpoint.",
				Harm:   "They have no effect: requests are spread by the waypoint, and one bad answer judges the whole Service.",
				Fix:    "Do without, or leave the Service without a waypoint.",
			},
			holds: func(w *World, v *plan.View, f *v1alpha1.Finding) v1alpha1.Severity {
				return onlyIf(w.sendsWhere(v, func(b *plan.ViewBackend) bool {
					return b.Sends == plan.ToService && strings.Contains(f.Message, " Service "+b.Key.String()+" ") // which it names
				}), f.Severity)
			},
		},
		{
			Check: Check{
				Code: v1alpha1.FindingLate, Title: "a gateway's pod has not noticed that it is in the mesh", Severities: []v1alpha1.Severity{v1alpha1.SeverityWarning},
				Pains:  []string{"E5", "EP03"},
				Matter: "A pod was captured after it had connected to its controller, which looks once.",
				Harm:   "The controller goes on sending it past waypoints.",
				Fix:    "Start the pod anew.",
			},
			holds: behind,
			mend: func(f *v1alpha1.Finding) (string, string) {
				return "start it anew", "kubectl delete " + objectOf(f.Object).resource()
			},
		},
		{
			Check: Check{
				Code: v1alpha1.FindingOverridden, Title: "a setting wins over a gateway's switch",
				Severities: []v1alpha1.Severity{v1alpha1.SeverityError, v1alpha1.SeverityWarning},
				Pains:      []string{"EP08"},
				Matter:     "A policy for a listener, a route or one of its rules has the gateway send to pods, and what is behind it leads to a waypoint.",
				Harm:       "What it is for goes past the waypoint, though the switch of the gateway is set.",
				Fix:        "Remove the field, or set it as the finding says.",
			},
			holds: func(w *World, v *plan.View, f *v1alpha1.Finding) v1alpha1.Severity {
				return onlyIf(w.sendsWhere(v, func(b *plan.ViewBackend) bool { return b.Sends == plan.ToService }), f.Severity)
			},
		},
		{
			Check: Check{
				Code: v1alpha1.FindingRejected, Title: "a gateway does not accept the policy with its switch", Severities: []v1alpha1.Severity{v1alpha1.SeverityWarning},
				Pains:  []string{"A1", "ER08"},
				Matter: "The policy that has a gateway send to Services' addresses is not accepted.",
				Harm:   "The gateway goes on sending to pods, past waypoints.",
				Fix:    "See the conditions of the policy.",
			},
			holds: behind,
		},
		{
			Check: Check{
				Code: v1alpha1.FindingHostNetwork, Title: "a gateway is asked into the mesh, and has the node's network",
				Severities: []v1alpha1.Severity{v1alpha1.SeverityError}, Pains: []string{"C1"},
				Matter: "Labels ask for a gateway's pods to be captured, and they have the node's network.",
				Harm:   "They never are: what they send goes in plaintext, past waypoints, and STRICT refuses it.",
				Fix:    "Run the gateway without hostNetwork.",
			},
			holds: func(w *World, v *plan.View, f *v1alpha1.Finding) v1alpha1.Severity {
				return onlyIf(asked(w, v), f.Severity)
			},
			mend: func(*v1alpha1.Finding) (string, string) {
				return "run the gateway without hostNetwork; where it has to be so, put a gateway before these Services that can be captured", ""
			},
		},
		{
			Check: Check{
				Code: v1alpha1.FindingSidecar, Title: "a gateway is asked into the mesh, and has a sidecar", Severities: []v1alpha1.Severity{v1alpha1.SeverityWarning},
				Pains:  []string{"C4"},
				Matter: "Labels ask for a gateway's pods to be captured, and they have a sidecar.",
				Harm:   "Sidecars are left alone: the label does nothing, and the sidecar decides where requests go.",
				Fix:    "Run it without sidecar, or take the label away.",
			},
			holds: func(w *World, v *plan.View, _ *v1alpha1.Finding) v1alpha1.Severity {
				return onlyIf(asked(w, v), v1alpha1.SeverityWarning)
			},
			mend: func(*v1alpha1.Finding) (string, string) {
				return "run it without a sidecar (sidecar.istio.io/inject: \"false\" in its pod template), or label its " +
					"pods " + plan.LabelDataplaneMode + "=" + modeNone, ""
			},
		},
		{
			Check: Check{
				Code: v1alpha1.FindingRefusesOutside, Title: "a gateway in the mesh refuses its own clients", Severities: []v1alpha1.Severity{v1alpha1.SeverityWarning},
				Pains:  []string{"B5", "C11", "EI01", "EI03"},
				Matter: "STRICT, or an AuthorizationPolicy, holds for the pods of a gateway, and clients from outside the mesh have no identity.",
				Harm:   "Those who call the gateway are refused.",
				Fix:    "Annotate its pods ambient.istio.io/bypass-inbound-capture=true, or make an exception for them.",
			},
			holds: func(_ *World, _ *plan.View, f *v1alpha1.Finding) v1alpha1.Severity { return f.Severity },
		},
		{
			Check: Check{
				Code: v1alpha1.FindingDNSCaptured, Title: "ztunnel answers what a gateway sends to a DNS server", Severities: []v1alpha1.Severity{v1alpha1.SeverityWarning},
				Pains:  []string{"C9"},
				Matter: "A gateway that is captured sends to port 53, by a route or because it serves DNS itself.",
				Harm:   "ztunnel answers in place of the DNS server: wrong answers, refused updates, or a loop.",
				Fix:    "Annotate its pods ambient.istio.io/dns-capture=false.",
			},
			holds: func(_ *World, _ *plan.View, f *v1alpha1.Finding) v1alpha1.Severity { return f.Severity },
		},
	}
	checks := make([]Check, 0, len(list))
	for _, t := range list {
		checks = append(checks, t.check())
	}
	return checks
}

// asked says whether labels ask for the pods of a gateway to be captured.
func asked(w *World, v *plan.View) bool {
	if w.byInfrastructure(v) {
		return true
	}
	for _, p := range v.Pods {
		if is, known := w.askedIn(p); is && known {
			return true
		}
	}
	return false
}

// onlyIf is a severity, or none.
func onlyIf(holds bool, s v1alpha1.Severity) v1alpha1.Severity {
	if holds {
		return s
	}
	return ""
}
