// Package route turns an address and what istiod says of the mesh into hops, in ztunnel's order: a Service's waypoint, else one of its
// endpoints; a workload's waypoint, else the workload. It is pure: no client, no clock.
//
// It fails closed where ztunnel does not: a waypoint without a ready pod, a Service without endpoints and an address that nobody
// knows are errors, never a silent plaintext or direct connection.
//
// Limits: workloads on other networks (double HBONE) are refused with an error that says so. Workloads known by a DNS name
// and not by an address are no endpoints here. Who may see a Service is not looked at.
package route
