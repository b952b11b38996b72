// Package identitytest holds tests of package identity on a real istiod and API server, on Istio's agent, and on a real SPIRE server and agent.
package identitytest
