package policy

import "strings"

// Normalization is what a waypoint does to paths before it compares them: the mesh's pathNormalization.
type Normalization uint8

// The normalizations. Base is Istio's default.
const (
	// Base removes dot segments, decodes letters, digits and -._~, and makes slashes of backslashes.
	Base Normalization = iota
	// None leaves paths as they are.
	None
	// MergeSlashes is Base, and several slashes become one.
	MergeSlashes
	// DecodeAndMergeSlashes is MergeSlashes, after %2F and %5C became slashes.
	DecodeAndMergeSlashes
)

// normal is path as policies see it, without query. It is not ok when it is not known what Envoy makes of it.
func (n Normalization) normal(path string) (string, bool) {
	if i := strings.IndexByte(path, '?'); i >= 0 {
		path = path[:i]
	}
	if n == None || !strings.HasPrefix(path, "/") {
		return path, n == None && !strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '#' })
	}
	odd := false // there is something to do
	for i := range len(path) {
		switch c := path[i]; {
		case c == '%' || c == '\\' || c == '.' && path[i-1] == '/' || c == '/' && i > 0 && path[i-1] == '/':
			odd = true
		case !passes(c):
			return path, false
		}
	}
	if !odd {
		return path, true
	}
	return n.canonical(path)
}

func (n Normalization) canonical(path string) (string, bool) {
	out := make([]byte, 0, len(path))
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '\\' {
			c = '/'
		}
		if c != '%' {
			out = append(out, c)
			continue
		}
		if i+2 >= len(path) {
			return path, false
		}
		high, ok := hex(path[i+1])
		low, ok2 := hex(path[i+2])
		if !ok || !ok2 {
			return path, false
		}
		switch b := high<<4 | low; {
		case unreserved(b):
			out = append(out, b)
		case n == DecodeAndMergeSlashes && (b == '/' || b == '\\'):
			out = append(out, '/')
		case b == 0:
			return path, false
		default:
			out = append(out, path[i:i+3]...)
		}
		i += 2
	}
	kept := withoutDots(strings.Split(string(out[1:]), "/"))
	if n >= MergeSlashes {
		last := len(kept) - 1
		merged := kept[:0]
		for i, s := range kept {
			if s != "" || i == last {
				merged = append(merged, s)
			}
		}
		kept = merged
	}
	return "/" + strings.Join(kept, "/"), true
}

// withoutDots is RFC 3986, 5.2.4, for the segments of an absolute path.
func withoutDots(segments []string) (kept []string) {
	for i, s := range segments {
		switch s {
		default:
			kept = append(kept, s)
			continue
		case "..":
			kept = kept[:max(0, len(kept)-1)]
		case ".":
		}
		if i == len(segments)-1 {
			kept = append(kept, "")
		}
	}
	return kept
}

// passes says whether Envoy leaves a byte of a path alone.
func passes(c byte) bool {
	return c > ' ' && c < 0x7f && !strings.ContainsRune("\"#<>^`{|}", rune(c))
}

func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}

func hex(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}
