// Package envoyshim runs Istio's waypoints and ingress gateways in the test world: the real pilot-agent, and a stock Envoy instead of
// Istio's own build.
//
//	world.Enter(mesh.Funcs(envoyshim.Funcs())) // first in main or TestMain
//
//	image, err := envoyshim.Image(set)
//	m, err := mesh.Start(ctx, mesh.Options{
//		MeshConfig: envoyshim.MeshConfig,
//		Images:     map[string]node.Image{programs.ProxyImage: image},
//	})
//
// Then a Gateway of class istio-waypoint or istio gets a pod that works, about a second after it was applied. Its log is that of
// container istio-proxy; Requests reads who asked for what, what was decided and by which policy. Admin asks Envoy itself.
//
// What the two builds differ in is telemetry. pilot-agent starts the shim as its Envoy; the shim takes what a stock
// Envoy does not know out of the bootstrap and out of every xDS response, and starts Envoy. It drops only what is on its list
// (dropped), which has nothing that decides about requests: anything else that Envoy does not know makes Envoy refuse the
// configuration by name, and a new pod does not get ready.
//
// The shim ends with its Envoy, and hands signals on; it dies with pilot-agent's pod, and Envoy with the shim.
//
// Limits: the metrics and labels of Istio's own extensions are missing, and so is its protocol negotiation for upstream TLS (istio.alpn).
// Envoy needs amd64, glibc and pip; without them Image's error says so.
package envoyshim
