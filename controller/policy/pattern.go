package policy

import (
	"regexp"
	"strings"

	"github.com/isthmus-mesh/isthmus/hbone/authz"
)

// pattern compares a string. Where istiod makes a regular expression of a value without quoting it, so does this.
type pattern struct {
	authz.StringMatch
	contains   bool           // Value anywhere, in place of Kind
	re         *regexp.Regexp // in place of all that
	odd        *regexp.Regexp // in place of it for sources that are not td/ns/x/sa/y
	unreadable bool           // no proxy can read it, and what it then does is not known
}

func (p *pattern) holds(s string) tri {
	switch {
	case p.unreadable:
		return maybe
	case p.odd != nil && strings.Count(s, "/") != 4:
		return is(p.odd.MatchString(s))
	case p.re != nil:
		return is(p.re.MatchString(s))
	case p.contains:
		return is(strings.Contains(s, p.Value))
	}
	return is(p.Holds(s))
}

// anyHolds says whether one of patterns holds for s.
func anyHolds(patterns []pattern, s string) tri {
	t := no
	for i := range patterns {
		if t = t.or(patterns[i].holds(s)); t == yes {
			break
		}
	}
	return t
}

// match reads a value of a policy: * is presence, *x a suffix, x* a prefix.
func match(v string) authz.StringMatch {
	switch {
	case v == "*":
		return authz.StringMatch{Kind: authz.Presence}
	case strings.HasPrefix(v, "*"):
		return authz.StringMatch{Kind: authz.Suffix, Value: v[1:]}
	case strings.HasSuffix(v, "*"):
		return authz.StringMatch{Kind: authz.Prefix, Value: v[:len(v)-1]}
	}
	return authz.StringMatch{Kind: authz.Exact, Value: v}
}

func matches(values []string) []authz.StringMatch {
	var list []authz.StringMatch
	for _, v := range values {
		list = append(list, match(v))
	}
	return list
}

func patterns(values []string, one func(string) pattern) []pattern {
	list := make([]pattern, len(values))
	for i, v := range values {
		list[i] = one(v)
	}
	return list
}

func plain(v string) pattern { return pattern{StringMatch: match(v)} }

// folded is for hosts, whose case does not matter: the other side is in lower case.
func folded(v string) pattern { return plain(strings.ToLower(v)) }

// expression is a regular expression for a whole string.
func expression(re string) pattern {
	compiled, err := regexp.Compile(`\A(?:` + re + `)\z`)
	return pattern{re: compiled, unreadable: err != nil}
}

// literal says whether s is no regular expression but itself.
func literal(s string) bool { return regexp.QuoteMeta(s) == s }

// principal compares a source as a waypoint does: in the form td/ns/x/sa/y.
func principal(v string) pattern {
	m := match(v)
	if m.Kind == authz.Suffix && !literal(m.Value) {
		return expression(".*" + m.Value)
	}
	return pattern{StringMatch: m}
}

// namespaceOf compares the namespace in a source, as a waypoint does. Each * is any text.
func namespaceOf(v string) pattern {
	if !strings.Contains(v, "*") {
		return pattern{StringMatch: authz.StringMatch{Value: "/ns/" + v + "/"}, contains: true}
	}
	return expression(".*/ns/" + anyText(v, ".*") + "/.*")
}

// anyText is a regular expression of v in which each * is star.
func anyText(v, star string) string {
	parts := strings.Split(v, "*")
	for i, p := range parts {
		parts[i] = regexp.QuoteMeta(p)
	}
	return strings.Join(parts, star)
}

// accountOf compares the service account in a source, as a waypoint does, for a policy of a namespace.
func accountOf(namespace string) func(string) pattern {
	return func(v string) pattern {
		ns, sa, ok := strings.Cut(v, "/")
		if !ok {
			ns, sa = namespace, v
		}
		return pattern{
			StringMatch: authz.StringMatch{Kind: authz.Suffix, Value: "/ns/" + ns + "/sa/" + sa},
			odd:         expression(".+/ns/" + regexp.QuoteMeta(ns) + "/(.+/|)sa/" + regexp.QuoteMeta(sa) + "(/.+)?").re,
		}
	}
}

// domainOf compares the trust domain in a source, as a waypoint does.
func domainOf(v string) pattern {
	switch {
	case v == "*":
		return plain("*")
	case !strings.Contains(v, "*"):
		return pattern{StringMatch: authz.StringMatch{Kind: authz.Prefix, Value: v + "/"}}
	}
	before, after, _ := strings.Cut(v, "*")
	return expression(regexp.QuoteMeta(before) + "[^/]*" + regexp.QuoteMeta(after) + "/.*")
}
