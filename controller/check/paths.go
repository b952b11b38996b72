package check

import (
	"fmt"
	"slices"
	"strings"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

func findOddPaths(w *World, found func(Finding)) {
	for _, p := range w.Policies {
		for _, l := range lists(p) {
			if l.plainName() != "paths" {
				continue
			}
			for _, v := range l.values {
				if why, fix := oddPath(v); why != "" {
					found(Finding{Object: accessObject(p), Field: l.field, Message: fmt.Sprintf("%q never matches: %s; with that value alone %s", v, why, effect(p, &l)),
						Fix: fix})
				}
			}
		}
	}
}

// oddPath says why no request has a path, or "".
func oddPath(v string) (why, fix string) {
	if strings.Contains(v, "{*}") || strings.Contains(v, "{**}") {
		rest := false
		for part := range strings.SplitSeq(strings.TrimPrefix(v, "/"), "/") {
			operator := part == "{*}" || part == "{**}"
			switch {
			case !operator && strings.ContainsAny(part, "{}*"):
				return "a template is for whole segments, and Istio refuses " + part, "make the segment {*}, or end the path with {**}"
			case rest && operator:
				return "nothing that varies may follow {**}, and Istio refuses it", "have {**} at the end"
			}
			rest = rest || part == "{**}"
		}
	}
	inner := strings.TrimSuffix(v, "*")
	if strings.HasPrefix(v, "*") {
		inner = v[1:]
	}
	switch {
	case v == "" || v == "*":
		return "", ""
	case !strings.HasPrefix(v, "/") && !strings.HasPrefix(v, "*"):
		return "a path begins with a slash", "write /" + v
	case strings.Contains(v, "{*}"), strings.Contains(v, "{**}"):
		return "", ""
	case strings.Contains(inner, "*"):
		return "a * counts at the beginning or at the end, and not at both or in the middle", "write {*} for a segment: " + strings.ReplaceAll(v, "*", "{*}")
	case strings.ContainsAny(v, "{}"):
		return "braces are taken literally but for {*} and {**}", "write {*} for a segment"
	case strings.Contains(v, "?"):
		return "a query is no part of the path", "leave out what stands after the ?"
	}
	return "", ""
}

func findEvadedPaths(w *World, found func(Finding)) {
	for _, p := range w.Policies {
		refs := targetRefsOf(&p.Spec)
		if p.Spec.Action != actionDeny || len(refs) == 0 {
			continue
		}
		passes := w.passesDeny(p, policy.Target{Kind: refs[0].GetKind(), Namespace: p.Namespace, Name: refs[0].GetName()})
		for _, l := range lists(p) {
			if l.name != "paths" {
				continue
			}
			for _, v := range l.values {
				denied, others := spellings(v)
				if open := passes(denied, others); len(open) > 0 {
					found(Finding{
						Object: accessObject(p), Field: l.field,
						Message: fmt.Sprintf("%s %s past a DENY of %q, and many servers take %s for the same", quoted(open), verb(len(open), "gets", "get"), v, verb(len(open),
							"it", "them")),
						Fix: "say what is allowed, in an ALLOW; or deny the prefix as well, and have pathNormalization: {normalization: MERGE_SLASHES} in the mesh's " +
							"configuration",
					})
				}
			}
		}
	}
}

// passesDeny says which paths get past a DENY policy that stops, or may stop, another path of the same caller.
func (w *World) passesDeny(p *securityv1.AuthorizationPolicy, target policy.Target) func(denied string, others []string) []string {
	alone := w.meshOf()
	alone.AuthorizationPolicies = []*securityv1.AuthorizationPolicy{p}
	at := policy.New(alone).Waypoint(target, target)
	callers := plan.Callers(w.Snapshot, alone.AuthorizationPolicies)
	const few = 16
	callers = callers[:min(len(callers), few)]
	return func(denied string, others []string) (open []string) {
		if denied == "" {
			return nil
		}
		for _, id := range callers {
			passes := func(path string) bool {
				return at.Decide(&policy.Request{Source: policy.Of(id), Path: policy.Of(path), Protocol: policy.Of(policy.HTTP)}).Verdict == policy.Allow
			}
			if passes(denied) {
				continue
			}
			for _, path := range others {
				if passes(path) && !slices.Contains(open, path) {
					open = append(open, path)
				}
			}
		}
		return open
	}
}

// spellings are a path that a DENY has, and other forms of it, where it is exact or for what is below a path only.
func spellings(v string) (denied string, others []string) {
	for _, below := range []string{"/*", "/{**}"} {
		if path, ok := strings.CutSuffix(v, below); ok && path != "" && !strings.ContainsAny(path, "*{}") {
			return path + "/x", []string{path}
		}
	}
	if strings.ContainsAny(v, "*{}?") || len(strings.Trim(v, "/")) == 0 || !strings.HasPrefix(v, "/") || strings.HasPrefix(v, "//") {
		return "", nil
	}
	if path, ok := strings.CutSuffix(v, "/"); ok {
		return v, []string{path, "/" + v}
	}
	return v, []string{v + "/", "/" + v}
}
