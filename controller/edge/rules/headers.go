package rules

import (
	"slices"
	"strings"
)

// Clean says whether a header that comes to the backend is never what a client sent, with all the rules in force at a place: one of them strips or overwrites
// it, whatever becomes of the request. Unsure: it hangs on what was not understood. Names are compared without case; one that some backends take for the
// same, as x_tenant_id for x-tenant-id, is another header.
func Clean(inForce []*Rule, header string) Answer {
	clean := No
	for _, r := range inForce {
		said := r.cleans(header)
		if said == Yes && len(r.Unknown) == 0 {
			return Yes
		}
		if said != No || len(r.Unknown) > 0 {
			clean = Unsure
		}
	}
	return clean
}

// Origins are those of the values that rules in force write to a header, each once.
func Origins(inForce []*Rule, header string) (list []Origin) {
	for _, r := range inForce {
		if r.Headers == nil {
			continue
		}
		for _, h := range r.Headers.Writes {
			if sameHeader(h.Name, header) && !slices.Contains(list, h.From) {
				list = append(list, h.From)
			}
		}
	}
	return list
}

// cleans says whether one rule does.
func (r *Rule) cleans(header string) Answer {
	said := No
	if r.Headers == nil {
		return said
	}
	for _, name := range r.Headers.Strips {
		if sameHeader(name, header) {
			return Yes
		}
	}
	for _, h := range r.Headers.Writes {
		if !sameHeader(h.Name, header) {
			continue
		}
		switch h.Overwrites {
		case Yes:
			return Yes
		case Unsure:
			said = Unsure
		}
	}
	return said
}

// sameHeader compares a name of a rule, whose last "*" is any end, with that of a header.
func sameHeader(rule, header string) bool {
	if prefix, open := strings.CutSuffix(rule, "*"); open {
		return len(header) >= len(prefix) && strings.EqualFold(header[:len(prefix)], prefix)
	}
	return strings.EqualFold(rule, header)
}
