package check

import (
	"fmt"
	"slices"
	"strings"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// requestChecks are about what policies say of requests.
func requestChecks() []Check {
	return []Check{
		{
			Code: "ISM227", Title: "a host without its port", Severities: onlyWarning(), Pains: []string{"B2", "ER01"},
			Matter: "A policy at a waypoint names a host as it is without port. Envoy compares with what is sent, and clients send the port too where it is not 80.",
			Harm:   "A DENY is passed by host:port; an ALLOW refuses who calls another port than 80.",
			Fix:    "Name the host with its port as well, or as a prefix: [orders.shop, \"orders.shop:*\"].",
			Find:   findBareHosts,
		},
		{
			Code: "ISM228", Title: "a method in lower case", Severities: onlyError(), Pains: []string{"B2"},
			Matter: "A policy names an HTTP method in lower case. Methods are compared as they are.",
			Harm:   "It never matches: an ALLOW refuses, a DENY denies nothing.",
			Fix:    "Write it in capitals.",
			Find:   findLowerMethods,
		},
		{
			Code: "ISM229", Title: "a path that no request has", Severities: onlyError(), Pains: []string{"B2", "ER02"},
			Matter: "A path does not begin with a slash, has a * in the middle, braces that are no template, a template that is part of a segment, or a query.",
			Harm:   "It never matches: an ALLOW refuses, a DENY denies nothing.",
			Fix:    "Use x* and *x, or templates of whole segments: {*} for one, {**} for the rest.",
			Find:   findOddPaths,
		},
		{
			Code: "ISM230", Title: "a DENY of a path that others lead to as well", Severities: onlyWarning(), Pains: []string{"B2", "ER02"},
			Matter: "A DENY policy names a path exactly, or all below it but not itself. The evaluator finds spellings that it does not match and that many servers " +
				"take for the same.",
			Harm: "Who asks for /admin/ or //admin gets past a DENY of /admin.",
			Fix:  "Say what is allowed, in an ALLOW; or deny the prefix, and set pathNormalization MERGE_SLASHES.",
			Find: findEvadedPaths,
		},
		{
			Code: "ISM231", Title: "a DENY by the value of a header", Severities: onlyInfo(), Pains: []string{"EH01", "EH04"},
			Matter: "A DENY policy names values of a header. Envoy compares with the whole of it, and a header that is sent twice is one of both values, joined by " +
				"a comma.",
			Harm: "Who sends the header twice, or not at all, gets past.",
			Fix:  "Say which values are allowed, in an ALLOW.",
			Find: findDoubledHeaders,
		},
		{
			Code: "ISM232", Title: "a condition that never holds", Severities: both(), Pains: []string{"B2", "B14"},
			Matter: "A rule has a condition with a key that Istio does not know, on the server name, which waypoints do not see, on a claim with a dot in its name, " +
				"or on true and false, which claims never equal.",
			Harm: "The rule is left out, or never matches.",
			Fix:  "Correct the key: nested claims are request.auth.claims[a][b].",
			Find: findDeadConditions,
		},
	}
}

func findBareHosts(w *World, found func(Finding)) {
	for _, p := range w.Policies {
		if !w.waypointReads(p.Namespace, &p.Spec) || p.Spec.Action != actionAllow && p.Spec.Action != actionDeny {
			continue
		}
		for _, l := range lists(p) {
			if l.plainName() != "hosts" {
				continue
			}
			var bare []string
			for _, v := range l.values {
				if !strings.ContainsAny(v, "*:") && !withPort(v, l.values) {
					bare = append(bare, v)
				}
			}
			f := Finding{Object: accessObject(p), Field: l.field, Fix: "add it with its port: " + quoted(suffixed(bare, ":*"))}
			switch {
			case len(bare) == 0:
				continue
			case (p.Spec.Action == actionDeny) != l.not:
				f.Message = fmt.Sprintf("a request to %s gets past this when it says the port too, as in %s", quoted(bare), quoted(suffixed(bare[:1], ":80")))
			default:
				port := w.otherPort(p)
				if port == 0 {
					continue
				}
				f.Message = fmt.Sprintf("this does not match %s: clients say the port where it is not 80, and the Service has no port 80", quoted(suffixed(bare[:1],
					fmt.Sprintf(":%d", port))))
			}
			found(f)
		}
	}
}

// withPort says whether a list has a host with its ports too.
func withPort(host string, values []string) bool {
	return slices.ContainsFunc(values, func(v string) bool {
		prefix, ok := strings.CutSuffix(v, "*")
		return ok && strings.HasPrefix(host+":", prefix) || strings.HasPrefix(v, host+":")
	})
}

func suffixed(list []string, suffix string) []string {
	var all []string
	for _, v := range list {
		all = append(all, v+suffix)
	}
	return all
}

// otherPort is a port of the Services that a policy is for, where none of them has port 80 or 443; else zero.
func (w *World) otherPort(p *securityv1.AuthorizationPolicy) (port int32) {
	for _, r := range targetRefsOf(&p.Spec) {
		s := w.services[objectKey(p.Namespace, r.GetName())]
		if r.GetKind() != policy.KindService || s == nil {
			return 0
		}
		for i := range s.Spec.Ports {
			if port = s.Spec.Ports[i].Port; port == 80 || port == 443 {
				return 0
			}
		}
	}
	return port
}

func findLowerMethods(w *World, found func(Finding)) {
	for _, p := range w.Policies {
		for _, l := range lists(p) {
			if l.plainName() != "methods" {
				continue
			}
			for _, v := range l.values {
				if strings.ToUpper(v) == v {
					continue
				}
				found(Finding{
					Object: accessObject(p), Field: l.field,
					Message: fmt.Sprintf("%q never matches, as methods are compared as they are; with that value alone %s", v, effect(p, &l)),
					Fix:     "write " + strings.ToUpper(v),
				})
			}
		}
	}
}

func findDoubledHeaders(w *World, found func(Finding)) {
	for _, p := range w.Policies {
		for _, l := range lists(p) {
			if p.Spec.Action != actionDeny || l.not || !strings.HasPrefix(l.name, "request.headers[") || slices.Contains(l.values, "*") {
				continue
			}
			found(Finding{
				Object: accessObject(p), Field: l.field,
				Message: fmt.Sprintf("a request that sends the header twice is compared as one value with a comma, and gets past this, as one without the header does "+
					"(%s)", quoted(l.values)),
				Fix: "say which values are allowed, in an ALLOW",
			})
		}
	}
}

func findDeadConditions(w *World, found func(Finding)) {
	for _, p := range w.Policies {
		atWaypoint := w.waypointReads(p.Namespace, &p.Spec)
		for i, r := range p.Spec.Rules {
			for j, c := range r.GetWhen() {
				why, severity := deadCondition(c.GetKey(), slices.Concat(c.GetValues(), c.GetNotValues()), atWaypoint)
				if why == "" {
					continue
				}
				found(Finding{
					Object: accessObject(p), Field: fmt.Sprintf("spec.rules[%d].when[%d].key", i, j), Severity: severity, Message: fmt.Sprintf("key %q: %s", c.GetKey(), why),
					Fix: "correct the condition, or leave it out",
				})
			}
		}
	}
}

// deadCondition says why a condition does not do what it says, or "".
func deadCondition(key string, values []string, atWaypoint bool) (string, v1alpha1.Severity) {
	const claims = "request.auth.claims["
	closed := strings.HasSuffix(key, "]")
	switch {
	case key == "connection.sni" && atWaypoint:
		return "a waypoint sees no server name, and takes it for empty", v1alpha1.SeverityError
	case strings.HasPrefix(key, claims) && closed:
		inner := strings.TrimSuffix(strings.TrimPrefix(key, claims), "]")
		if strings.Contains(inner, ".") && !strings.Contains(inner, "/") {
			return "this is one claim with a dot in its name; a claim in a claim is request.auth.claims[" + strings.Join(strings.Split(inner, "."), "][") + "]",
				v1alpha1.SeverityWarning
		}
		if slices.Contains(values, "true") || slices.Contains(values, "false") {
			return "only texts and lists of texts are compared; a claim that is true or false never matches", v1alpha1.SeverityWarning
		}
		return "", ""
	case strings.HasPrefix(key, "request.headers[") && closed && len(key) > len("request.headers[]"), strings.HasPrefix(key, "experimental.envoy.filters."):
		return "", ""
	case slices.Contains([]string{
		"source.ip", "remote.ip", "source.namespace", "source.principal", "source.serviceAccount", "source.trustDomain", "destination.ip", "destination.port",
		"connection.sni",
		"request.auth.principal", "request.auth.audiences", "request.auth.presenter",
	}, key):
		return "", ""
	}
	return "Istio does not know it, and leaves out the whole rule", v1alpha1.SeverityError
}
