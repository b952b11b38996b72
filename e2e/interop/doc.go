// Package interop tests hbone against peers that others wrote: h2spec, Istio's Go pkg/hbone, golang.org/x/net's HTTP/2, and a real
// Envoy. It is a module of its own, so that nobody else gets their dependencies. What a machine lacks is skipped there, and fails with CI=true.
package interop
