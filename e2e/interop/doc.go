// Package interop tests hbone against peers that others wrote: h2spec, Istio's Go pkg/hbone, golang.org/x/net's HTTP/2, a real Envoy, and with
// ISTHMUS_ZTUNNEL=/absolute/path a real ztunnel. It is a module of its own, so that nobody else gets their dependencies. What a machine lacks is
// skipped there, and fails with CI=true; but for ztunnel, which nobody publishes as a program.
package interop
