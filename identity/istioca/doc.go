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
// New blocks for the first certificate; the Source renews until it is closed. The token is read for every call and is sent over TLS only.
package istioca
