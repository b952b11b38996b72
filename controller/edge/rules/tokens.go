package rules

// Mode says what becomes of requests without a good token.
type Mode string

// The modes. The empty Mode is unknown.
const (
	Strict     Mode = "Strict"     // refused
	Optional   Mode = "Optional"   // without a token they pass, with a bad one they are refused
	Permissive Mode = "Permissive" // they pass
)

// JWT asks for tokens.
type JWT struct {
	Mode      Mode
	Providers []Provider
}

// Provider is one whose tokens are taken.
type Provider struct {
	Name string
	// Issuer as tokens must have it. Empty: any.
	Issuer string
	// Audiences of which tokens must have one. None: any.
	Audiences []string
	// Locations where tokens are looked for, defaults of the vendor filled in. None: nobody knows.
	Locations []Location
	// Forward says whether the gateway leaves the token where it was. See Forwards.
	Forward Answer
	// Keys are where keys are fetched.
	Keys Keys
}

// Location is where a request has its token: one of Header, Query and Cookie is set.
type Location struct {
	Header string
	Prefix string // of the header's value, as "Bearer "
	Query  string
	Cookie string
}

// Keys are where the keys of a Provider are fetched: nothing of it is set where they are written in an object.
type Keys struct {
	URI string
	// Backend is what the gateway asks for them, as a Service. Without a name: it follows URI.
	Backend Ref
}

// Login sends people without a session to an identity provider, by OIDC or OAuth2.
type Login struct {
	Issuer string
	// Forwards says whether an access token comes to the backend, as "Authorization: Bearer".
	Forwards Answer
	// ForwardsIDToken says whether an ID token does, in a header.
	ForwardsIDToken Answer
	// TakesTokens: requests that bring a bearer token of their own go on to the rule for JWTs.
	TakesTokens Answer
}

// Credentials are asked for, other than tokens.
type Credentials struct {
	Kind CredentialKind
	Mode Mode
	// Forwards says whether they come to the backend.
	Forwards Answer
}

// CredentialKind is a kind of credentials.
type CredentialKind string

// The kinds.
const (
	Basic      CredentialKind = "Basic"
	APIKey     CredentialKind = "APIKey"
	ClientCert CredentialKind = "ClientCertificate"
	Other      CredentialKind = "Other"
)

// bearer is where tokens are when nobody says otherwise.
func bearer() []Location { return []Location{{Header: "Authorization", Prefix: "Bearer "}} }

// Forwards says whether the token of a provider comes to the backend, with all the rules in force at a place: some gateways take it away, and put it back
// by another rule. Where that other header is not the one it came by, the backend looks for it elsewhere.
func (p *Provider) Forwards(inForce []*Rule) Answer {
	for _, r := range inForce {
		if r.Headers == nil {
			continue
		}
		for _, h := range r.Headers.Writes {
			if h.From == FromToken {
				return Yes
			}
		}
	}
	return p.Forward
}
