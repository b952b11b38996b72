package rules

import "time"

// ExtAuth asks a service whether a request may pass.
type ExtAuth struct {
	// Backend is that service. Without a name: it is none of the cluster, or nobody can tell.
	Backend Ref
	// Address is where it is asked, when that is no object.
	Address string
	// FailOpen says whether requests pass while it does not answer.
	FailOpen Answer
}

// Access lets requests in by conditions on claims, headers or expressions, which are not evaluated.
type Access struct {
	// Denies: the conditions are of those that are refused.
	Denies bool
	// Expressions as they are written, as far as they are texts.
	Expressions []string
}

// IPs lets requests in by addresses of clients.
type IPs struct {
	// Allow and Deny are CIDRs or addresses. With Allow, all others are refused, unless AllowOthers. Which holds for an address in both is the vendor's affair.
	Allow, Deny []string
	AllowOthers bool
	// FromHeader: the address is what X-Forwarded-For says.
	FromHeader bool
	// Else: other conditions must hold too, or may let others in.
	Else bool
}

// RateLimit limits how many requests pass.
type RateLimit struct {
	// Global: all proxies count together.
	Global bool
	// By is what is counted apart: "source" for each address of clients, "header NAME", or as the vendor has it. Empty: all together, or unknown.
	By []string
}

// Headers are written, and taken away, on the way to the backend.
type Headers struct {
	Writes []Header
	// Strips are names that never come to the backend, unless they are written too. A last "*" stands for any end.
	Strips []string
	// Early: it happens before everything else, so that what rules for tokens and authorizers write comes to the backend all the same.
	Early bool
}

// Header is one that is written.
type Header struct {
	// Name as it is written; "*" is any, as an external authorizer says.
	Name string
	// From says where the value comes from.
	From Origin
	// What it is: the value of Static, or the claim's name.
	What string
	// Overwrites: what a client sends under that name never comes to the backend, also where there is nothing to write. No: it may.
	Overwrites Answer
	// Appends: the value comes after those that are there.
	Appends bool
}

// Origin is where the value of a header comes from.
type Origin string

// The origins.
const (
	FromStatic  Origin = "Static"
	FromClaim   Origin = "Claim"   // of a token that was checked
	FromToken   Origin = "Token"   // the token itself, after it was checked
	FromExtAuth Origin = "ExtAuth" // the answer of an external authorizer
	FromLogin   Origin = "Login"   // credentials other than tokens
	FromRequest Origin = "Request" // an expression, or a variable
)

// Forwarded says what becomes of what the client says about itself.
type Forwarded struct {
	// For says what becomes of X-Forwarded-For.
	For Treatment
	// TrustedHops of X-Forwarded-For count as the gateway's own, or it trusts what TrustedSources send. Then the client's address is from the header.
	TrustedHops    int
	TrustedSources []string
	// ClientCert says what becomes of X-Forwarded-Client-Cert.
	ClientCert Treatment
}

// Treatment is what becomes of a header that proxies write.
type Treatment string

// The treatments. The empty Treatment is unknown.
const (
	Appends  Treatment = "Appends"  // what came stays, and the gateway's own is added behind
	Replaces Treatment = "Replaces" // what came is gone, and the gateway's own is there
	Removes  Treatment = "Removes"  // what came is gone, and nothing is there
	Passes   Treatment = "Passes"   // what came stays
)

// Rewrite changes what backends and waypoints see of a request.
type Rewrite struct {
	// Host is what they see in place of the client's. BackendHost: it is the backend's name or address.
	Host        string
	BackendHost bool
	// Path is the whole path that they see, Prefix what stands in place of the prefix that matched. Nil: it stays.
	Path, Prefix *string
	// StripPrefixes are taken from the front.
	StripPrefixes []string
	// AddPrefix is put in front.
	AddPrefix string
	// Pattern: the path is rewritten by a regular expression, or in another way that is not told here.
	Pattern bool
}

// BackendTLS has the edge open TLS to the backend by itself.
type BackendTLS struct {
	Hostname string
	// Verifies says whether the backend's certificate is checked.
	Verifies Answer
}

// Affinity sends a client to the same endpoint again.
type Affinity struct {
	// By is cookie, header, source, hash, or as the vendor has it.
	By string
}

// Health judges endpoints.
type Health struct {
	Active  bool // it sends probes
	Passive bool // it takes endpoints out that fail
}

// Retry sends failed requests again.
type Retry struct {
	// Attempts after the first. Zero: the vendor's default.
	Attempts int
	On       []string
}

// Timeout ends requests. Zero: it is not set.
type Timeout struct {
	Request time.Duration // all attempts together
	Backend time.Duration // one attempt
}

// CORS answers preflight requests of browsers.
type CORS struct{ Origins []string }
