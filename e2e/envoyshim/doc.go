// Package envoyshim runs Istio's waypoints and ingress gateways in the test world: the real pilot-agent, and a stock Envoy instead of
// Istio's own build.
//
// What the two builds differ in is telemetry. pilot-agent starts the shim as its Envoy; the shim takes what a stock
// Envoy does not know out of the bootstrap and out of every xDS response, and starts Envoy. It drops only what is on its list
// (dropped), which has nothing that decides about requests: anything else that Envoy does not know makes Envoy refuse the
// configuration by name, and the pod does not get ready.
package envoyshim
