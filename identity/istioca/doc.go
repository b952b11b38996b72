// Package istioca gets an identity from Istio's certificate authority (istiod, or whatever serves
// istio.v1.auth.IstioCertificateService), with a service account's token.
//
//	id, err := istioca.New(ctx, istioca.Config{
//		Addresses: []string{"istiod.istio-system.svc:15012"},
//		RootsFile: "/var/run/secrets/istio/root-cert.pem",
//		TokenFile: "/var/run/secrets/tokens/istio-token",
//		ID:        spiffeid.RequireFromString("spiffe://cluster.local/ns/edge/sa/gateway"),
//	})
//
// Every certificate is for a new ECDSA P-256 key. The token and the roots are read for every call, and the token is sent over TLS to who
// holds a certificate of the roots only. Several addresses are tried in turn, each with its share of the time. When the roots change, new
// ones are asked about and trusted without waiting for the certificate's end; the root that istiod issues by is trusted in addition, so a
// rotation has both for a while.
//
// Errors say which address, which token file and what about the token does not fit; tokens and keys are in no error.
//
// Cancellation: New blocks for the first certificate, obeys its context, and ends at once when the token is refused for a reason that can
// be seen in it; the Source renews until it is closed. After the first certificate a refusal is tried again like any failure, as tokens are renewed too.
//
// One process may hold many identities, a Source each, with a token of each service account (Kubernetes' TokenRequest gives them to who has the right,
// by Config.Token); a node agent asks by its own token with Config.Impersonate.
//
// Limits: answers of 1 MiB and 16 certificates.
package istioca
