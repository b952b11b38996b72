package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// rewriting is what filters make of a request before the waypoint sees it.
type rewriting struct {
	hosts        []string // none: any
	full, prefix *string  // what the path becomes
}

// apply adds filters of a rule, and of those that delegate to its route. It says what of them cannot be said, so that the rule's port is all that is.
func (w *rewriting) apply(f *followed, filters []gatewayv1.HTTPRouteFilter) (what string) {
	for by := f.by; by != nil; by = by.by {
		for _, r := range rulesOf(by.route) {
			if slices.ContainsFunc(r.filters, rewrites) {
				return fmt.Sprintf("what filters of %s, which delegates to it, make of a request", by)
			}
		}
	}
	for i := range filters {
		is := &filters[i]
		switch {
		case !rewrites(*is):
		case is.URLRewrite != nil && f.by == nil:
			if h := is.URLRewrite.Hostname; h != nil {
				w.hosts = asHost(string(*h))
			}
			if p := is.URLRewrite.Path; p != nil {
				w.full, w.prefix = p.ReplaceFullPath, p.ReplacePrefixMatch
				if w.full == nil && w.prefix == nil {
					return "what its filter URLRewrite makes of a path"
				}
			}
		default:
			return fmt.Sprintf("what its filter %s makes of a request", is.Type)
		}
	}
	return ""
}

// rewrites says whether a filter may change what a waypoint sees of a request: its host, method or path.
func rewrites(f gatewayv1.HTTPRouteFilter) bool {
	switch f.Type {
	case gatewayv1.HTTPRouteFilterRequestMirror, gatewayv1.HTTPRouteFilterResponseHeaderModifier, gatewayv1.HTTPRouteFilterRequestRedirect, gatewayv1.HTTPRouteFilterCORS:
		return false // what is redirected goes nowhere
	case gatewayv1.HTTPRouteFilterRequestHeaderModifier:
		h := f.RequestHeaderModifier
		if h == nil {
			return true
		}
		special := func(name string) bool { return strings.EqualFold(name, "host") || strings.HasPrefix(name, ":") }
		return slices.ContainsFunc(slices.Concat(h.Set, h.Add), func(h gatewayv1.HTTPHeader) bool { return special(string(h.Name)) }) || slices.ContainsFunc(h.Remove, special)
	}
	return true
}

// Telling are the filters of a route by which a plan tells what waypoints see of its requests, where copies go, and which headers are written, with no more in them
// than that needs.
func Telling(filters []gatewayv1.HTTPRouteFilter) (list []gatewayv1.HTTPRouteFilter) {
	for i := range filters {
		f := &filters[i]
		switch {
		case f.RequestMirror != nil, f.URLRewrite != nil, f.RequestHeaderModifier != nil, f.ExtensionRef != nil, f.ExternalAuth != nil:
			list = append(list, *f)
		case rewrites(*f):
			list = append(list, gatewayv1.HTTPRouteFilter{Type: f.Type})
		}
	}
	return list
}

// paths are those of a match, as policies have them; none: any. what of it cannot be said, and is left open.
func (w *rewriting) paths(is *match) (list []string, what string) {
	path, kind := is.path, is.kind
	switch {
	case w.full != nil:
		path, kind = *w.full, gatewayv1.PathMatchExact
	case w.prefix != nil && path != "" && kind != gatewayv1.PathMatchPathPrefix:
		return nil, "what its filter URLRewrite makes of a path that is no prefix"
	case w.prefix != nil:
		path = cmp.Or(*w.prefix, "/")
	}
	switch {
	case path == "" && kind != gatewayv1.PathMatchRegularExpression:
		return nil, ""
	case kind == gatewayv1.PathMatchExact && plain(path):
		return []string{path}, ""
	case kind == underPath && plain(path):
		return []string{path + "/*"}, ""
	case kind == suffixPath && plain(path):
		return []string{"*" + path}, ""
	case kind == gatewayv1.PathMatchPathPrefix:
		bare := strings.TrimRight(path, "/")
		if bare == "" {
			return nil, ""
		}
		if plain(bare) {
			return []string{bare, bare + "/*"}, ""
		}
	case kind == gatewayv1.PathMatchRegularExpression:
		return nil, "its path, which is a regular expression"
	}
	return nil, fmt.Sprintf("its path %q, of which a policy may make another", path)
}

// plain says whether a path means in a policy what it means in a route: it has nothing that a policy reads as a pattern, and nothing that proxies write otherwise.
func plain(path string) bool {
	if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "*{}%?#\\;") || strings.Contains(path, "//") {
		return false
	}
	return !slices.ContainsFunc(strings.Split(path, "/"), func(part string) bool { return part == "." || part == ".." })
}
