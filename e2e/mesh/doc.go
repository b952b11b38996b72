// Package mesh starts a real Istio control plane for tests and the demo: etcd, kube-apiserver, kube-controller-manager and
// istiod in ambient mode, in a network namespace of their own, with the player of package node as the cluster's only
// node. Several meshes run side by side in one process.
//
//	func TestMain(m *testing.M) {
//		world.Enter(mesh.Funcs())
//		os.Exit(m.Run())
//	}
//
//	m, err := mesh.Start(ctx, mesh.Options{})
//	...
//	defer m.Stop()
//
// The node's address is 10.244.0.1: API server on 6443, istiod on 15010, 15012 and 15017, reached from pods as
// istiod.istio-system.svc. Mesh.Config reaches the API server from the calling process, Mesh.Kubeconfig from processes in
// Mesh.NS.
//
// The context of Start bounds the start only; Stop ends a mesh, as does the end of the process. When a start fails its
// error shows the tail of the log that matters, and its folder stays. All state is thrown away at Stop:
// programs are killed, not shut down. The API server's admission plugin ServiceAccount is off; the node plays its part.
package mesh
