package rules

import (
	"cmp"
	"slices"
)

// Set is what an edge does.
type Set struct {
	Rules []Rule

	stands   []standing // of each of the rules
	byObject map[Ref][]int
}

// standing says which rules replace one.
type standing struct {
	// family of rules that replace each other: where several are in force, that with the narrower target stays, then the older object. Empty: all stay.
	family string
	// part of the family. Objects that merge replace only rules of the same part, others all of the family.
	part   string
	merges bool
	// last: those of the family with narrower targets do not hold.
	last bool
	// owner is the object whose rules of a part stand and fall together.
	owner Ref
	age   string
	// usual: it holds where no other rule is about the same thing.
	usual bool
}

// Place is where a request goes through an edge.
type Place struct {
	// ListenerSet that the listener is of. Zero: of the Gateway itself.
	ListenerSet Ref
	// Listener is its name. Empty: it is left open, and rules of single listeners are not told.
	Listener string
	// Route and the part of it, as rules[1] or rules[1].backendRefs[0].
	Route   Ref
	Section string
	// Service that it goes to, and the port there by its name or number, as rules have it.
	Service Ref
	Ports   []string
}

func newSet(list []Rule, stands []standing) *Set {
	s := &Set{Rules: list, stands: stands, byObject: map[Ref][]int{}}
	for i := range list {
		seen := map[Ref]bool{}
		for _, t := range list[i].Targets {
			if !seen[t.Object] {
				s.byObject[t.Object] = append(s.byObject[t.Object], i)
			}
			seen[t.Object] = true
		}
	}
	return s
}

// At are the rules in force at a place of a gateway, which may be a zero Ref: those whose targets it is in, without those that others replace.
func (s *Set) At(gateway Ref, p Place) []*Rule {
	var found []hit
	listener := p.Listener
	if p.ListenerSet != (Ref{}) {
		listener = "" // the Gateway may have one of that name too
	}
	for _, at := range []struct {
		object Ref
		level  int
		parts  []string
	}{
		{Ref{}, 0, []string{""}},
		{gateway, 1, []string{listener}},
		{p.ListenerSet, 2, []string{p.Listener}},
		{p.Route, 3, []string{p.Section}},
		{p.Service, 5, append([]string{""}, p.Ports...)},
	} {
		if at.level > 0 && at.object == (Ref{}) {
			continue
		}
		for _, i := range s.byObject[at.object] {
			if level := s.level(i, at.object, at.parts); level >= 0 {
				found = append(found, hit{rule: i, level: at.level*100 + level})
			}
		}
	}
	return s.unreplaced(found)
}

// hit is a rule that a place is in the target of.
type hit struct{ rule, level int }

// level is how narrow the narrowest target of a rule is that has one of the parts of an object. -1: none has.
func (s *Set) level(rule int, object Ref, parts []string) int {
	narrow := -1
	for _, t := range s.Rules[rule].Targets {
		if t.Object == object && slices.ContainsFunc(parts, func(part string) bool { return covers(t.Section, part) }) {
			narrow = max(narrow, min(len(t.Section), 99))
		}
	}
	return narrow
}

// unreplaced are the rules that stay.
func (s *Set) unreplaced(found []hit) []*Rule {
	slices.SortStableFunc(found, func(a, b hit) int {
		x, y := s.stands[a.rule], s.stands[b.rule]
		return cmp.Or(cmp.Compare(b.level, a.level), cmp.Compare(x.age, y.age))
	})
	limit := map[string]int{} // of the level, where one of a family is the last
	for _, h := range found {
		if st := s.stands[h.rule]; st.last {
			limit[st.family] = h.level
		}
	}
	found = slices.DeleteFunc(found, func(h hit) bool {
		family := s.stands[h.rule].family
		level, limited := limit[family]
		return limited && family != "" && h.level > level
	})
	type key struct{ family, part string }
	owner := map[key]Ref{}       // whose rules of a part stay
	whole := map[string]Ref{}    // the object that ends a family
	merged := map[string][]Ref{} // those that came before it
	var stay []*Rule
	about := map[string]bool{}
	for _, h := range found {
		st, r := s.stands[h.rule], &s.Rules[h.rule]
		switch by, ended := whole[st.family]; {
		case st.usual:
			continue
		case st.family == "":
			stay, about[r.about()] = append(stay, r), true
			continue
		case ended && by != st.owner && !slices.Contains(merged[st.family], st.owner):
			continue
		case !st.merges:
			whole[st.family] = st.owner
		case !slices.Contains(merged[st.family], st.owner):
			merged[st.family] = append(merged[st.family], st.owner)
		}
		k := key{st.family, st.part}
		if by, taken := owner[k]; st.part != "" && taken && by != st.owner {
			continue
		}
		owner[k] = st.owner
		stay, about[r.about()] = append(stay, r), true
	}
	for _, h := range found {
		if r := &s.Rules[h.rule]; s.stands[h.rule].usual && !about[r.about()] {
			stay = append(stay, r)
		}
	}
	return stay
}

// about is what a rule is about.
func (r *Rule) about() string {
	for _, x := range []struct {
		is   bool
		what string
	}{
		{r.JWT != nil, "JWT"}, {r.Login != nil, "Login"}, {r.Credentials != nil, "Credentials"}, {r.ExtAuth != nil, "ExtAuth"}, {r.Access != nil, "Access"},
		{r.IPs != nil, "IPs"}, {r.RateLimit != nil, "RateLimit"}, {r.Headers != nil, "Headers"}, {r.Forwarded != nil, "Forwarded"},
		{r.Rewrite != nil, "Rewrite"}, {r.TLS != nil, "TLS"}, {r.Affinity != nil, "Affinity"}, {r.Health != nil, "Health"}, {r.Retry != nil, "Retry"},
		{r.Timeout != nil, "Timeout"}, {r.CORS != nil, "CORS"},
	} {
		if x.is {
			return x.what
		}
	}
	return ""
}
