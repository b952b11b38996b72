// Package node plays the only node of a test cluster: scheduler, kubelet, network plugin with ambient capture, service
// proxy and DNS server, for a real API server and without a container runtime.
//
//	func main() {
//		funcs := node.Funcs() // containers are started through functions of this program
//		funcs["shop"] = shop  // a Go function that an image runs
//		world.Enter(funcs)
//		…
//		p, err := node.Start(ctx, node.Config{REST: rc, NS: ns, Dir: dir, Images: map[string]node.Image{"shop": {Func: "shop"}}})
//		pod, err := p.RunPod(ctx, &corev1.Pod{…})
//
// A pod gets a network namespace of its own, joined to the node's by a routed veth pair. A container is a process with mount,
// process and host name namespaces of its own and a root file system that shows the host's programs and libraries read-only,
// the files of its Image, and its volumes: emptyDir, configMap, secret, downwardAPI and projected, with service
// account tokens that are renewed. Probes, restarts, init containers and sidecars, graceful deletion and status are
// a kubelet's. Deployments work when kube-controller-manager makes their pods.
//
// Cluster IPs are translated by nftables in the node's namespace, to endpoints of EndpointSlices; names of Services
// resolve. kubectl logs and port-forward work. A pod that Istio's rules enrol is captured: Config.Capture's process is started in its network namespace, connections
// are redirected to it by nftables, and the pod is annotated. A Sniffer shows what is on the wire in the clear.
// Istio enrols the pods of a Gateway by labels in Gateway.spec.infrastructure; here those count as labels of pods do, once
// who deploys the Gateway has put them there. The Gateways that istiod deploys have a sidecar's container, and are never captured.
//
// Start's context bounds the start only; Close ends every process. Methods that wait take a context.
//
// Limits: IPv4; TCP and UDP; one node without scheduling constraints; no resource limits, users or capabilities, since
// every process is (a namespace's) root; no session affinity, node ports or external names; DNS answers A records
// only and knows no world outside; probes by gRPC and hostPath and CSI volumes are refused. Probes that never passed run
// every 200 ms, so that a pod is ready as soon as it can be. Service environment variables are those of
// the API server only.
//
// Where the kernel allows no nftables in namespaces (Rules, CheckNFTables), Services are served by a balancer beside the node instead, over TCP only, and
// endpoints see its address, the one after the node's. Captured pods then send what goes to a Service's port to their process, and nothing else:
// connections to pods' own addresses, headless Services too, go as they are; so does what comes in outside port 15008, past policies
// and STRICT. Connections to Services that are open break when a pod is captured or let go.
package node
