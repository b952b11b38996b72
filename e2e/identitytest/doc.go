// Package identitytest holds tests of package identity on a real istiod and a real API server.
package identitytest
