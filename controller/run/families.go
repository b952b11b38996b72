package run

import (
	"github.com/isthmus-mesh/isthmus/controller/edge"
)

// family is a kind in the versions that plans can read, the newest first: of those that the API server has, the first is read.
type family []edge.Kind

func versions(group, kind, resource string, of ...string) family {
	var f family
	for _, v := range of {
		f = append(f, edge.Kind{Group: group, Version: v, Kind: kind, Resource: resource})
	}
	return f
}

// callers are the kinds of objects that have the API server call Services.
func callers() []family {
	const admission = "admissionregistration.k8s.io"
	return []family{
		versions(admission, "ValidatingWebhookConfiguration", "validatingwebhookconfigurations", "v1"),
		versions(admission, "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", "v1"),
		versions("apiregistration.k8s.io", "APIService", "apiservices", "v1"),
	}
}

// otherRoutes are the kinds of routes of the Gateway API that a cluster may lack.
func otherRoutes() []family {
	const group = "gateway.networking.k8s.io"
	return []family{
		versions(group, "GRPCRoute", "grpcroutes", "v1", "v1alpha2"),
		versions(group, "TLSRoute", "tlsroutes", "v1", "v1alpha3", "v1alpha2"),
		versions(group, "TCPRoute", "tcproutes", "v1", "v1alpha2"),
		versions(group, "UDPRoute", "udproutes", "v1", "v1alpha2"),
	}
}

// listenerSets are the kinds of objects that add listeners to Gateways: that of the standard, and the one before it.
func listenerSets() []family {
	return []family{
		versions("gateway.networking.k8s.io", "ListenerSet", "listenersets", "v1"),
		versions("gateway.networking.x-k8s.io", "XListenerSet", "xlistenersets", "v1alpha1"),
	}
}

// extensions are the kinds that waypoints obey by targetRefs, besides policies.
func extensions() []family {
	return []family{
		versions("extensions.istio.io", "WasmPlugin", "wasmplugins", "v1alpha1"),
		versions("extensions.istio.io", "TrafficExtension", "trafficextensions", "v1alpha1"),
		versions("networking.istio.io", "EnvoyFilter", "envoyfilters", "v1alpha3"),
	}
}

func serviceEntries() family {
	return versions("networking.istio.io", "ServiceEntry", "serviceentries", "v1", "v1beta1", "v1alpha3")
}

// families are all kinds that are read without their Go types: those of vendors, and those that a cluster may lack.
func families() []family {
	all := append(callers(), serviceEntries())
	all = append(all, otherRoutes()...)
	all = append(all, listenerSets()...)
	all = append(all, extensions()...)
	for _, u := range edge.Uses() {
		all = append(all, family{u.Kind})
	}
	return all
}
