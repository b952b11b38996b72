package check

import (
	"strings"
	"testing"
)

// TestTextClass: what a class says of a pattern is so for each text of it.
func TestTextClass(t *testing.T) {
	texts := []string{"/", "/a", "/a/", "/a/b", "/ab", "/ab/c", "/b", "/a/b/c", "/isthmus-sample", "/a/isthmus-sample"}
	hosts := []string{"example.com", "a.example.com", "b.a.example.com", "example.org", "isthmus-sample.example.com", "a.example.com.evil.com"}
	patterns := []string{"*", "/a", "/a/", "/a/*", "/a*", "/*", "/ab", "/ab*", "*b", "*/b", "/", "/b/*", "", "/{*}", "/a/{**}", "/b/{*}",
		"example.com", "*.example.com", "*example.com", "*.com", "a.example.com", "*.a.example.com", "a.*"}
	within := func(c textClass, s string) bool {
		switch c.kind {
		case oneText:
			return s == c.text
		case segments:
			return s == c.text || strings.HasPrefix(s, c.text+"/")
		case hostSuffix:
			return strings.HasSuffix(s, c.text) && s != c.text
		}
		return true
	}
	var classes []textClass
	for _, s := range texts {
		classes = append(classes, textClass{kind: oneText, text: s}, textClass{kind: segments, text: strings.TrimSuffix(s, "/")})
	}
	for _, s := range hosts {
		classes = append(classes, hostClass(s), hostClass("*."+s))
	}
	classes = append(classes, textClass{})
	sure := 0
	for _, c := range classes {
		if s := c.sample(); c.kind != anyText && !within(c, s) {
			t.Errorf("%+v: sample %q is not of it", c, s)
		}
		for _, p := range patterns {
			all, none := c.holds(p)
			if all || none {
				sure++
			}
			for _, s := range append(texts, hosts...) {
				if !within(c, s) {
					continue
				}
				if fits := fits(p, s); all && !fits || none && fits {
					t.Errorf("%+v: %q holds for all %v, none %v, and for %q %v", c, p, all, none, s, fits)
				}
			}
		}
	}
	if sure < len(classes)*len(patterns)/2 {
		t.Errorf("only %d of %d answers are sure", sure, len(classes)*len(patterns))
	}
}

// fits says whether a pattern of a policy fits a text. Templates are read as one or more segments, which is more than they take.
func fits(pattern, s string) bool {
	if head, _, template := strings.Cut(pattern, "{"); template {
		return strings.HasPrefix(s, head)
	}
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(s, prefix)
	}
	if suffix, ok := strings.CutPrefix(pattern, "*"); ok {
		return strings.HasSuffix(s, suffix)
	}
	return s == pattern
}
