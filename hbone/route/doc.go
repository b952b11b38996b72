// Package route turns an address and what istiod says of the mesh into hops, in ztunnel's order: a Service's waypoint, else one of its
// endpoints; a workload's waypoint, else the workload. What is on another network is reached through its east-west gateway, by a tunnel in a tunnel.
//
// It is pure, but for two things: chance chooses among endpoints, by what a Memory knows of them, and those that failed of late are left out by the clock.
// A Table is changed by one goroutine, and its Snapshots are read by all. Ways are the answer for an address; they may be kept as long as they
// Hold, and each connection Picks one.
//
// It fails closed where ztunnel does not: a waypoint without a ready pod, a Service without endpoints, an address that nobody
// knows and a place on another network that istiod names no identity for are errors, never a silent plaintext or direct connection.
//
// testdata has the rules as cases. Where two rules meet: an exact VIP goes before a pod's address, and that before a range of addresses; of
// Services that share a VIP the one of the dialer's namespace is meant, else the canonical one, else the first by name.
//
// Limits: workloads known by a DNS name and not by an address are no endpoints here. A waypoint's own waypoint, and a gateway's own
// gateway, are not asked for.
package route
