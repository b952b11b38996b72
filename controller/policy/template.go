package policy

import (
	"regexp"
	"strings"
)

const (
	oneSegment = "{*}"  // one segment of a path, or a part of one
	anyRest    = "{**}" // any text
)

// template is a path with variables.
type template struct {
	strict  *regexp.Regexp // variables stand for what they certainly may
	lenient *regexp.Regexp // variables stand for anything
}

// isTemplate says whether a path of a policy is a template.
func isTemplate(v string) bool {
	return strings.Contains(v, oneSegment) || strings.Contains(v, anyRest)
}

// newTemplate reads a template. Nil is one that Envoy does not take.
func newTemplate(v string) *template {
	var strict, lenient strings.Builder
	seen := false // {**} is the last variable
	for v != "" {
		at := strings.IndexAny(v, "{}*")
		if at < 0 {
			at = len(v)
		}
		for _, b := range []*strings.Builder{&strict, &lenient} {
			b.WriteString(regexp.QuoteMeta(v[:at]))
		}
		switch v = v[at:]; {
		case v == "":
		case seen:
			return nil
		case strings.HasPrefix(v, anyRest):
			strict.WriteString("[" + variable + "/]*")
			lenient.WriteString("(?s:.*)")
			v, seen = v[len(anyRest):], true
		case strings.HasPrefix(v, oneSegment):
			strict.WriteString("[" + variable + "]+")
			lenient.WriteString("[^/]+")
			v = v[len(oneSegment):]
		default:
			return nil
		}
	}
	return &template{regexp.MustCompile(`\A` + strict.String() + `\z`), regexp.MustCompile(`\A` + lenient.String() + `\z`)}
}

// variable are the bytes that certainly may be part of what a variable stands for.
const variable = `a-zA-Z0-9\-._~%!$&'()+,;:@=`

// holds matches a path.
func (t *template) holds(path string) tri {
	switch {
	case t == nil:
		return maybe
	case t.strict.MatchString(path):
		return yes
	case t.lenient.MatchString(path):
		return maybe
	}
	return no
}
