package rules

import "strings"

// Ref names an object. Group is empty for those of Kubernetes' core, as Services.
type Ref struct{ Group, Kind, Namespace, Name string }

// String is the Ref for people: Kind namespace/name.
func (r Ref) String() string {
	if r.Namespace == "" {
		return r.Kind + " " + r.Name
	}
	return r.Kind + " " + r.Namespace + "/" + r.Name
}

// Rule is one thing that an edge does, where it is written, and what it is attached to. Of the pointers at most one is set; none: the object stands there,
// and only its Unknown fields are of interest.
type Rule struct {
	// Object and Field are where it is written. An Object without a name: the gateway does so when nobody says otherwise.
	Object Ref
	Field  string
	// By is the policy that attaches it, where that is another object.
	By Ref
	// Targets are what it is attached to. It holds for all that goes through one of them, unless another rule replaces it: see Set.At.
	Targets []Target

	JWT         *JWT
	Login       *Login
	Credentials *Credentials
	ExtAuth     *ExtAuth
	Access      *Access
	IPs         *IPs
	RateLimit   *RateLimit
	Headers     *Headers
	Forwarded   *Forwarded
	Rewrite     *Rewrite
	TLS         *BackendTLS
	Affinity    *Affinity
	Health      *Health
	Retry       *Retry
	Timeout     *Timeout
	CORS        *CORS

	// Unknown are fields in or below Field that were not understood. Whoever asks about the rule must answer that it depends.
	Unknown []string
}

// Target is what a rule is attached to: a Gateway or one listener of it, a route or a part of it, or a Service or one port of it. The zero Target is the whole
// edge, which has no Gateway.
type Target struct {
	// Object is the Gateway, the route or the Service.
	Object Ref
	// Section is the name of a listener, the field of a part of a route without "spec.", as rules[1] or rules[1].backendRefs[0], or a port's name or
	// number. Empty: the whole object.
	Section string
}

// String is the Target for people.
func (t Target) String() string {
	if t.Section == "" {
		return t.Object.String()
	}
	return t.Object.String() + " " + t.Section
}

// covers says whether a part of an object is in a section of it.
func covers(section, part string) bool {
	return section == "" || section == part || strings.HasPrefix(part, section+".")
}

// Answer is what is known about a question.
type Answer uint8

// The answers.
const (
	Unsure Answer = iota // nobody can tell
	No
	Yes
)

// String is the Answer as a word.
func (a Answer) String() string {
	return [...]string{"unsure", "no", "yes"}[min(a, Yes)]
}

// answer is Yes or No.
func answer(yes bool) Answer {
	if yes {
		return Yes
	}
	return No
}
