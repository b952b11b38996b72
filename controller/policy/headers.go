package policy

import "strings"

// HeaderOf is the header that a condition's key is about, in lower case, and whether it is about one.
func HeaderOf(key string) (name string, is bool) {
	name, is = strings.CutPrefix(key, "request.headers[")
	if !is {
		return "", false
	}
	if name, is = strings.CutSuffix(name, "]"); !is {
		return "", false
	}
	return strings.ToLower(name), true
}
