package check

import (
	"fmt"
	"slices"
	"strings"

	securityapi "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/isthmus-mesh/isthmus/controller/edge/rules"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// trusted is a condition of an ALLOW rule on a header.
type trusted struct {
	policy *securityv1.AuthorizationPolicy
	rule   *securityapi.Rule
	// field of the condition, and of the rule.
	field, at string
	// header in lower case, and a value that it takes.
	header, value string
}

// trusts are the headers by which policies let in.
func (s *meshSide) trusts() []trusted {
	var list []trusted
	for _, p := range s.policies {
		if p.Spec.Action != securityapi.AuthorizationPolicy_ALLOW {
			continue
		}
		for i, r := range p.Spec.Rules {
			for j, when := range r.GetWhen() {
				if name, is := policy.HeaderOf(when.GetKey()); is && len(when.GetValues()) > 0 {
					at := fmt.Sprintf("spec.rules[%d]", i)
					list = append(list, trusted{p, r, fmt.Sprintf("%s.when[%d]", at, j), at, name, fitting(when.GetValues()[0])})
				}
			}
		}
	}
	return list
}

// fitting is a text that a pattern takes.
func fitting(pattern string) string {
	if pattern == "*" {
		return "any"
	}
	return strings.Trim(pattern, "*")
}

// pinned says whether a rule names who may send.
func pinned(r *securityapi.Rule) bool {
	names := func(list []string) bool { return len(list) > 0 && !slices.Contains(list, "*") }
	for _, when := range r.GetWhen() {
		if slices.Contains([]string{"source.principal", "source.namespace", "source.serviceAccount"}, when.GetKey()) && names(when.GetValues()) {
			return true
		}
	}
	return len(r.GetFrom()) > 0 && !slices.ContainsFunc(r.GetFrom(), func(f *securityapi.Rule_From) bool {
		s := f.GetSource()
		return !names(s.GetPrincipals()) && !names(s.GetServiceAccounts()) && !names(s.GetNamespaces())
	})
}

// writer is a rule of an edge that writes a header which the mesh trusts, and the trip on which it does.
type writer struct {
	trip *trip
	rule *rules.Rule
}

// writers are the rules of a gateway that write headers of their own accord, by name: not as the client has it.
func (e *Edge) writers() map[string]writer {
	writes := map[string]writer{}
	for i := range e.trips {
		t := &e.trips[i]
		for _, r := range t.rules {
			if r.Headers == nil {
				continue
			}
			for _, h := range r.Headers.Writes {
				name := fold(h.Name)
				if _, there := writes[name]; !there && h.From != rules.FromRequest && h.From != rules.FromToken {
					writes[name] = writer{t, r}
				}
			}
		}
	}
	return writes
}

// passes says whether a header comes through as a client sends it.
func (t *trip) passes(header string) rules.Answer {
	is := rules.Yes
	for _, r := range t.rules {
		if r.Headers == nil {
			continue
		}
		for _, name := range r.Headers.Strips {
			prefix, open := strings.CutSuffix(fold(name), "*")
			if fold(name) == header || open && strings.HasPrefix(header, prefix) {
				return rules.No
			}
		}
		for _, h := range r.Headers.Writes {
			switch {
			case fold(h.Name) != header && h.Name != "*":
			case h.Name != "*" && h.Overwrites == rules.Yes:
				return rules.No
			default:
				is = rules.Unsure
			}
		}
	}
	if t.open {
		return rules.Unsure
	}
	return is
}
