package main

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// cleaner lets no byte through that a terminal would take for a command: what objects of a cluster say is text of others. Line ends, tabs and, where
// they are wanted, the colours of page are let through. The rest is written as JSON would have it, so that JSON stays what it is.
type cleaner struct {
	w       io.Writer
	colours bool // are wanted
}

// Write cleans p, and counts it as written whole.
func (c cleaner) Write(p []byte) (int, error) {
	var keep func(string) int
	if c.colours {
		keep = colourAt
	}
	if _, err := io.WriteString(c.w, cleanKeeping(string(p), keep)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// clean is text without a sign that would do something to a terminal, or end the line.
func clean(text string) string { return cleanKeeping(strings.ReplaceAll(text, "\n", "; "), nil) }

// cleanKeeping keeps what begins a text of keep, which says how long it is.
func cleanKeeping(text string, keep func(string) int) string {
	if !strings.ContainsFunc(text, harmful) {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRuneInString(text[i:])
		switch {
		case !harmful(r):
			b.WriteString(text[i : i+n])
		case keep != nil && keep(text[i:]) > 0:
			n = keep(text[i:])
			b.WriteString(text[i : i+n])
		case r == utf8.RuneError && n == 1:
			b.WriteRune(r)
		case r == utf8.RuneError:
			b.WriteString(text[i : i+n])
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		i += n
	}
	return b.String()
}

// harmful says whether a terminal would do something at r other than show it: controls, and marks that turn the direction of text. RuneError may be a
// byte that is no text.
func harmful(r rune) bool {
	return r != '\n' && r != '\t' && unicode.In(r, unicode.Cc, unicode.Bidi_Control, unicode.Zl, unicode.Zp) || r == utf8.RuneError
}

// colourAt is the length of a sequence of page.paint at the beginning of text, or 0.
func colourAt(text string) int {
	for _, c := range []colour{"0", bold, red, green, yellow, grey} {
		if s := "\x1b[" + string(c) + "m"; strings.HasPrefix(text, s) {
			return len(s)
		}
	}
	return 0
}

var _ io.Writer = cleaner{}
