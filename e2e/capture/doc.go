// Package capture is the process that carries an enrolled pod's connections in the test world: what ztunnel is to a pod of a real mesh,
// made of this project's own library.
//
// It runs in the pod's network namespace with the pod's own identity. Outbound connections, redirected to port 15001, go where
// the workload API says: through a waypoint, to a workload, or as they are to what the mesh does not know. Inbound
// tunnels come on port 15008 and inbound plaintext, redirected, on 15006; both are decided by the L4 policies that istiod
// sends, and a policy that the workload lists and that has not come yet denies, unless the pod is Lenient. Every connection leaves a line of JSON (Entry) on
// standard output.
//
// Where the node has no nftables (node.AnyIP) it listens on the ports of the Services instead of 15001, and carries nothing else out; inbound
// plaintext is then not its business.
//
// When its pod leaves the mesh nobody who was led to it loses a request that is answered within 5 s: it serves who comes until nobody does any more, and tunnels until istiod has told
// others that the pod takes none; then it waits for what was asked and not answered. A connection on which nothing has passed for a second is closed, and one that never rests is cut
// after 5 s. A ztunnel closes its listeners at once, and cuts all after 5 s.
//
// With ISTHMUS_ZTUNNEL=/absolute/path in the environment a real ztunnel takes this place, in dedicated mode, where the node has nftables;
// Entries reads its access log. Tried with one of August 2026 (62d82653). It decides an open connection by the policies that the pod listed when the
// connection began, and those of namespaces: a kept connection outlives a policy that comes to select its pod, and STRICT.
package capture
