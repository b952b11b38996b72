// Package spire gets an identity from a SPIRE agent, or from whatever else serves the SPIFFE Workload API on a socket.
//
//	id, err := spire.New(ctx, spire.Config{Socket: "unix:///run/spire/sockets/agent.sock"})
//
// The agent says who this process is, by what it sees of it: there is no token and no file. New certificates, and bundles of this and of federated trust
// domains, are pushed as they come. An agent that goes away is looked for every few seconds; meanwhile the certificate is shown to its end, and
// Stats of the Source have the error. Where there are several identities Config chooses one: hold a Source for each.
//
// Cancellation: New blocks for the first certificate, and obeys its context; the Source lives until Close, which ends the connection.
//
// Limits: X.509 SVIDs. This package imports gRPC.
package spire
