package check

import "strings"

// textClass is the hosts or paths that a rule of a route takes. The zero one is any text.
type textClass struct {
	kind textKind
	text string
}

type textKind int

const (
	anyText    textKind = iota
	oneText             // text
	segments            // paths that are text, or begin with it and a slash
	hostSuffix          // hosts that end with text, as .example.com
)

// hostClass is what a hostname of a route takes.
func hostClass(name string) textClass {
	name = strings.ToLower(name)
	if rest, ok := strings.CutPrefix(name, "*"); ok {
		return textClass{kind: hostSuffix, text: rest}
	}
	return textClass{kind: oneText, text: name}
}

// sample is one of the class, in the usual form.
func (c textClass) sample() string {
	switch c.kind {
	case oneText:
		return c.text
	case segments:
		return c.text + "/isthmus-sample"
	case hostSuffix:
		return "isthmus-sample" + c.text
	}
	return ""
}

// alike says whether a pattern of a policy, such as /api/*, holds for all of the class or for none of it: then one sample stands for all.
func (c textClass) alike(pattern string) bool {
	all, none := c.holds(pattern)
	return all || none
}

// holds says whether a pattern holds for all of the class, and whether it holds for none of it. Both are false where that is not so, or not clear.
func (c textClass) holds(pattern string) (all, none bool) {
	if pattern == "*" {
		return true, false
	}
	head, template := pattern, false
	if at := strings.IndexByte(pattern, '{'); at >= 0 {
		head, template = pattern[:at], true
	}
	prefix, isPrefix := strings.CutSuffix(pattern, "*")
	suffix, isSuffix := strings.CutPrefix(pattern, "*")
	switch c.kind {
	case oneText:
		if template {
			return false, !strings.HasPrefix(c.text, head)
		}
		is := c.text == pattern || isPrefix && strings.HasPrefix(c.text, prefix) || isSuffix && strings.HasSuffix(c.text, suffix)
		return is, !is
	case segments:
		within := c.text + "/"
		switch {
		case template:
			return false, !meets(head, within) && head != c.text
		case isSuffix:
			return false, false
		case isPrefix:
			return strings.HasPrefix(c.text, prefix), !meets(prefix, within)
		}
		return false, pattern != c.text && !strings.HasPrefix(pattern, within)
	case hostSuffix:
		switch {
		case template || isPrefix:
			return false, false
		case isSuffix:
			return strings.HasSuffix(c.text, suffix), !strings.HasSuffix(suffix, c.text) && !strings.HasSuffix(c.text, suffix)
		}
		return false, !strings.HasSuffix(pattern, c.text)
	}
	return false, false
}

// meets says whether texts can begin with both.
func meets(a, b string) bool { return strings.HasPrefix(a, b) || strings.HasPrefix(b, a) }
