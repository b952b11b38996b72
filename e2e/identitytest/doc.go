// Package identitytest holds tests of package identity on a real istiod and API server, and on Istio's agent.
package identitytest
