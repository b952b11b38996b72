package policy

import "fmt"

// Verdict is what an enforcement point does with a class of requests.
type Verdict uint8

// The verdicts. Allow and Deny hold for each request of the class; Depends is every other case, and may be too cautious.
const (
	Depends Verdict = iota
	Allow
	Deny
)

var verdictNames = [...]string{"depends", "allow", "deny"}

// String is allow, deny or depends.
func (v Verdict) String() string { return verdictNames[v] }

// Ref names a policy object.
type Ref struct{ Kind, Namespace, Name string }

// String is Kind namespace/name.
func (r Ref) String() string { return r.Kind + " " + r.Namespace + "/" + r.Name }

// IsZero reports whether it names nothing.
func (r Ref) IsZero() bool { return r == Ref{} }

// Reason is why a point decides.
type Reason uint8

// The reasons.
const (
	// NoPolicy allows: no ALLOW policy applies, and nothing denies.
	NoPolicy Reason = iota
	// Allowed: an ALLOW policy matches.
	Allowed
	// Denied: a DENY policy matches.
	Denied
	// NotAllowed: ALLOW policies apply and none matches.
	NotAllowed
	// Plaintext: a PeerAuthentication refuses sources without identity.
	Plaintext
	// BadToken: a RequestAuthentication refuses the token, before any AuthorizationPolicy is asked.
	BadToken
	// Custom: a CUSTOM policy matches; its provider decides, or is not there, which denies.
	Custom
	// NoIdentity: a waypoint takes nobody without identity.
	NoIdentity
	// Undecided: what decides is not known.
	Undecided
)

var reasonNames = [...]string{
	"no policy asks", "an ALLOW policy matches", "a DENY policy matches", "no ALLOW policy matches", "plaintext is refused", "the token is refused",
	"an external authorizer decides", "only identities of the mesh are taken", "it depends",
}

// String says it in a few words.
func (r Reason) String() string { return reasonNames[r] }

// Decision is what an enforcement point does.
type Decision struct {
	Verdict Verdict
	Reason  Reason
	// Policy decides, or is the first that a Depends depends on. Zero: none does, or none of several ALLOW policies matches.
	Policy Ref
	// Rule is the index in its spec.rules; -1 when no rule of it decides.
	Rule int
	// Field of the policy's spec, such as rules[0].from[0].source.principals, is the first that a Depends depends on.
	Field string
	// On is what a Depends depends on.
	On Attributes
}

// String says it in one line.
func (d Decision) String() string {
	s := d.Verdict.String()
	if d.Verdict == Depends {
		s += " on " + d.On.String()
	} else {
		s += ": " + d.Reason.String()
	}
	if d.Policy.IsZero() {
		return s
	}
	if s += " (" + d.Policy.String(); d.Field != "" {
		s += " " + d.Field
	} else if d.Rule >= 0 {
		s += fmt.Sprintf(" rules[%d]", d.Rule)
	}
	return s + ")"
}

func decided(v Verdict, reason Reason) Decision {
	return Decision{Verdict: v, Reason: reason, Rule: -1}
}

// either is the decision when it is not known which of two there will be.
func either(a, b Decision, on Attributes) Decision {
	if a.Verdict == b.Verdict {
		a.On |= b.On
		return a
	}
	d := a
	if b.Verdict == Depends {
		d = b
	}
	d.Verdict, d.Reason = Depends, Undecided
	d.On = a.On | b.On | on
	return d
}
