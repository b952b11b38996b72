// Package istiocatest is a certificate authority that speaks as istiod does (gRPC over TLS, service istio.v1.auth.IstioCertificateService), for
// tests of programs that get their identity by package istioca.
//
//	ca := identitytest.NewCA(td)
//	s, err := istiocatest.New(ca)
//	...
//	defer s.Close()
//	s.Admit("a token", spiffeid.RequireFromString("spiffe://cluster.local/ns/edge/sa/gateway"))
//
// Like istiod it issues for whom the token names, whatever the request asks for, and the chain ends with the root. What it answers can be
// changed by Answer, and it can be away by Stop and Start.
//
// Limits: it listens on 127.0.0.1 and knows no ImpersonatedIdentity. Tokens are compared, not parsed.
package istiocatest
