// Package sds gets an identity by Envoy's secret discovery service on a Unix socket, as Istio's agent and SPIRE's agent serve it.
//
//	id, err := sds.New(ctx, sds.Config{}) // Istio's agent beside us
//	id, err := sds.New(ctx, sds.Config{Socket: "/run/spire/sockets/agent.sock", Roots: "ALL"}) // SPIRE's, with federated domains
//
// Certificate and roots are asked for on a stream each, as Envoy does. What one brings is taken when it fits what the other has brought; until then the
// Source keeps what it has. An agent that goes away is looked for every few seconds, and meanwhile the certificate is shown to its end.
//
// Cancellation: New blocks for the first certificate, and obeys its context; the Source lives until Close, which ends the connection.
//
// Limits: secrets inline, keys unencrypted, answers of 4 MiB. Whoever can bind the socket's path is believed, as with every agent. Of a validation context
// the roots count, one set for the certificate's own trust domain or one for each domain (SPIFFE validator); the rest of it is left out. This package imports
// gRPC.
package sds
