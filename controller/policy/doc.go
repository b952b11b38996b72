// Package policy says what AuthorizationPolicies, PeerAuthentications and RequestAuthentications do to a request, at each point that enforces
// them. It is pure: no client, no clock.
//
//	set := policy.New(policy.Mesh{AuthorizationPolicies: list})
//	path := policy.Path{
//		Waypoint:       set.Waypoint(policy.Target{Kind: policy.KindGateway, Namespace: "shop", Name: "waypoint"},
//			policy.Target{Kind: policy.KindService, Namespace: "shop", Name: "orders"}),
//		WaypointSource: policy.Of(waypoint),
//		Workload:       set.Ztunnel(policy.Workload{Namespace: "shop", Labels: labels}),
//	}
//	answer := path.Decide(&policy.Request{Source: policy.Of(gateway), Method: policy.Of("GET")})
//
// A Request is a class of requests: what is not said of it is unknown. Allow and Deny hold for every request of the class; Depends says on
// which attribute, and by which field of which policy, it comes to lie. Conditions on what is unknown are looked at one by one, so that Depends may be too
// cautious: a policy that denies a path and one that denies all others are together Depends for an unknown path.
//
// The two kinds of points read the same policy in different ways, and a Point is compiled for one of them. ztunnel enforces what is attached by
// namespace or selector, knows sources, addresses and ports of pods, leaves out rules of ALLOW policies that have HTTP conditions, and of DENY
// policies only the conditions. A waypoint enforces what has targetRefs, knows requests, and sees ports and addresses of Services. Behind it
// ztunnel sees the waypoint as the source. Policies with the annotation istio.io/dry-run decide nowhere, AUDIT ones neither. A CUSTOM policy asks
// somebody else: Depends, on OnExternalAuthorizer. Each reading follows what istiod, ztunnel and Envoy really do, their faults too.
//
// Limits: what a proxy was told by EnvoyFilters, WasmPlugins or routes is not looked at; nor whether istiod's validation would have taken a
// policy. Conditions on Envoy's metadata are Depends, on OnUnreadable.
package policy
