// Package rules reads what an edge gateway does to requests before they come into the mesh, from the policy objects of its vendor, in one shape for all
// vendors: which tokens it asks for and what becomes of them, which headers it writes and takes away, whom it lets in, how it rewrites, and what it does
// about the backends. It is pure: no client, no clock. A vendor is a file.
//
//	set := rules.Of("kgateway", gateway, routes, objects)
//	for _, r := range set.At(rules.Place{Listener: "https", Route: route, Section: "rules[0]"}) {
//		if r.JWT != nil { … }
//	}
//
// Of looks at the objects that Kinds names, and nothing else. What it finds and does not understand it puts into Rule.Unknown, with its field: of what
// such a field may change, nobody can be sure, and callers answer "depends". A field with a value that its schema does not allow is such a field.
//
// Limits: settings outside the cluster's objects, as a controller's command line, are not seen. Nor is whether a controller has taken an object:
// what stands in its status is for the caller to read. Expressions, as of CEL, are not evaluated: that they are there is told.
package rules
