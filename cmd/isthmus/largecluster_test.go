package main

import (
	"fmt"
	"time"

	apisecurity "istio.io/api/security/v1"
	apitype "istio.io/api/type/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
)

// What a namespace of a large cluster has: 100 objects.
const (
	largeServices, largePods, largeSlices, largeRoutes, largePolicies = 20, 40, 20, 5, 5
	largeAccounts, largeNetworkPolicies, largeDeployments             = 3, 2, 2
	// And one Gateway, a waypoint, one PeerAuthentication and one ReferenceGrant.
	largeEach = largeServices + largePods + largeSlices + largeRoutes + largePolicies + largeAccounts + largeNetworkPolicies + largeDeployments + 3
	// largeShare is how many namespaces share a gateway at the edge.
	largeShare = 100
)

// largeCluster is a cluster of namespaces with waypoints, behind gateways of Istio: 100 objects each, besides the namespaces, their gateways and pods of these.
func largeCluster(namespaces int) *fakeCluster {
	edges := (namespaces + largeShare - 1) / largeShare
	each := func(n int, of func(ns string, i, j int) runtime.Object) (int, func(int) runtime.Object) {
		return n * namespaces, func(i int) runtime.Object { return of(fmt.Sprintf("team-%04d", i/n), i/n, i%n) }
	}
	kind := func(gv schema.GroupVersion, kind, resource string, list func() runtime.Object, n int, at func(int) runtime.Object) fakeKind {
		return fakeKind{gv: gv, kind: kind, resource: resource, cluster: kind == "Namespace" || kind == "GatewayClass", n: n, at: at, list: list}
	}
	in := func(group, version string) schema.GroupVersion {
		return schema.GroupVersion{Group: group, Version: version}
	}
	c := &fakeCluster{}
	add := func(k fakeKind) { c.kinds = append(c.kinds, k) }
	add(kind(in("", "v1"), "Namespace", "namespaces", func() runtime.Object { return &corev1.NamespaceList{} }, namespaces+1, func(i int) runtime.Object {
		if i == namespaces {
			return &corev1.Namespace{ObjectMeta: largeMeta("", "edge", nil)}
		}
		return &corev1.Namespace{ObjectMeta: largeMeta("", fmt.Sprintf("team-%04d", i), map[string]string{
			"istio.io/dataplane-mode": "ambient", "istio.io/use-waypoint": "waypoint", "istio.io/ingress-use-waypoint": "true",
		})}
	}))
	pods, pod := each(largePods, func(ns string, i, j int) runtime.Object {
		p := largePod(ns, i, j)
		if j == largePods-1 {
			p.Labels, p.Annotations, p.Spec.ServiceAccountName = map[string]string{"gateway.networking.k8s.io/gateway-name": "waypoint", "istio.io/dataplane-mode": "none"}, nil, "waypoint"
		}
		return p
	})
	add(kind(in("", "v1"), "Pod", "pods", func() runtime.Object { return &corev1.PodList{} }, pods+edges, func(i int) runtime.Object {
		if i >= pods {
			p := largePod("edge", 0, i-pods)
			p.Labels = map[string]string{"gateway.networking.k8s.io/gateway-name": fmt.Sprintf("edge-%d", i-pods), "istio.io/dataplane-mode": "none"}
			p.Annotations = nil
			p.Spec.ServiceAccountName = fmt.Sprintf("edge-%d-istio", i-pods)
			return p
		}
		return pod(i)
	}))
	n, at := each(largeServices, func(ns string, i, j int) runtime.Object { return largeService(ns, i*largeServices+j, j) })
	add(kind(in("", "v1"), "Service", "services", func() runtime.Object { return &corev1.ServiceList{} }, n, at))
	accounts, account := each(largeAccounts, func(ns string, _, j int) runtime.Object {
		return &corev1.ServiceAccount{ObjectMeta: largeMeta(ns, []string{"sa-0", "sa-1", "waypoint"}[j], nil)}
	})
	add(kind(in("", "v1"), "ServiceAccount", "serviceaccounts", nil, accounts+edges, func(i int) runtime.Object {
		if i >= accounts {
			return &corev1.ServiceAccount{ObjectMeta: largeMeta("edge", fmt.Sprintf("edge-%d-istio", i-accounts), nil)}
		}
		return account(i)
	}))
	n, at = each(largeSlices, func(ns string, _, j int) runtime.Object { return largeSlice(ns, j) })
	add(kind(in("discovery.k8s.io", "v1"), "EndpointSlice", "endpointslices", func() runtime.Object { return &discoveryv1.EndpointSliceList{} }, n, at))
	n, at = each(largeNetworkPolicies, func(ns string, _, j int) runtime.Object { return largeNetworkPolicy(ns, j) })
	add(kind(in("networking.k8s.io", "v1"), "NetworkPolicy", "networkpolicies", func() runtime.Object { return &networkingv1.NetworkPolicyList{} }, n, at))
	n, at = each(largeDeployments, func(ns string, i, j int) runtime.Object {
		p := largePod(ns, i, j)
		return &appsv1.Deployment{ObjectMeta: largeMeta(ns, fmt.Sprintf("app-%d", j), p.Labels), Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: p.Labels}, Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: p.Labels}, Spec: p.Spec},
		}}
	})
	add(kind(in("apps", "v1"), "Deployment", "deployments", func() runtime.Object { return &appsv1.DeploymentList{} }, n, at))
	n, at = each(largeRoutes, func(ns string, i, j int) runtime.Object { return largeRoute(ns, i/largeShare, j) })
	add(kind(in("gateway.networking.k8s.io", "v1"), "HTTPRoute", "httproutes", nil, n, at))
	gateways, waypoint := each(1, func(ns string, _, _ int) runtime.Object { return largeGateway(ns, "waypoint", "istio-waypoint") })
	add(kind(in("gateway.networking.k8s.io", "v1"), "Gateway", "gateways", nil, gateways+edges, func(i int) runtime.Object {
		if i >= gateways {
			return largeGateway("edge", fmt.Sprintf("edge-%d", i-gateways), "istio")
		}
		return waypoint(i)
	}))
	add(kind(in("gateway.networking.k8s.io", "v1"), "GatewayClass", "gatewayclasses", nil, 2, func(i int) runtime.Object {
		return &gatewayv1.GatewayClass{ObjectMeta: largeMeta("", []string{"istio", "istio-waypoint"}[i], nil), Spec: gatewayv1.GatewayClassSpec{
			ControllerName: gatewayv1.GatewayController([]string{"istio.io/gateway-controller", "istio.io/mesh-controller"}[i]),
		}}
	}))
	n, at = each(1, func(ns string, _, _ int) runtime.Object {
		return &gatewayv1beta1.ReferenceGrant{ObjectMeta: largeMeta(ns, "edge", nil), Spec: gatewayv1beta1.ReferenceGrantSpec{
			From: []gatewayv1beta1.ReferenceGrantFrom{{Group: gatewayv1.GroupName, Kind: "HTTPRoute", Namespace: "edge"}}, To: []gatewayv1beta1.ReferenceGrantTo{{Kind: "Service"}},
		}}
	})
	add(kind(in("gateway.networking.k8s.io", "v1beta1"), "ReferenceGrant", "referencegrants", nil, n, at))
	n, at = each(largePolicies, func(ns string, i, j int) runtime.Object { return largePolicy(ns, i/largeShare, j) })
	add(kind(in("security.istio.io", "v1"), "AuthorizationPolicy", "authorizationpolicies", nil, n, at))
	n, at = each(1, func(ns string, _, _ int) runtime.Object {
		o := &securityv1.PeerAuthentication{ObjectMeta: largeMeta(ns, "default", nil)}
		o.Spec.Mtls = &apisecurity.PeerAuthentication_MutualTLS{Mode: apisecurity.PeerAuthentication_MutualTLS_STRICT}
		return o
	})
	add(kind(in("security.istio.io", "v1"), "PeerAuthentication", "peerauthentications", nil, n, at))
	return c
}

// largeMeta is metadata as the API server gives it, with who has set what.
func largeMeta(namespace, name string, labels map[string]string) metav1.ObjectMeta {
	at := metav1.NewTime(time.Unix(1_790_000_000, 0))
	fields := metav1.NewFieldsV1(`{"f:metadata":{"f:annotations":{".":{},"f:kubectl.kubernetes.io/last-applied-configuration":{}},"f:labels":{".":{},"f:app":{}}},"f:spec":{"f:ports":{".":{},"k:{\"port\":80,\"protocol\":\"TCP\"}":{".":{},"f:name":{},"f:port":{},"f:protocol":{},"f:targetPort":{}}},"f:selector":{},"f:sessionAffinity":{},"f:type":{}}}`)
	return metav1.ObjectMeta{
		Namespace: namespace, Name: name, Labels: labels, UID: types.UID(fmt.Sprintf("%-36.36s", name+namespace+"0f3c1c9e-5d0b-4c3e-9d57-6f2f3f1d2c1a")), ResourceVersion: "123456", Generation: 1, CreationTimestamp: at,
		Annotations:   map[string]string{"kubectl.kubernetes.io/last-applied-configuration": `{"apiVersion":"v1","kind":"Service","metadata":{"annotations":{},"name":"` + name + `","namespace":"` + namespace + `"},"spec":{"ports":[{"name":"http","port":80,"targetPort":8080}],"selector":{"app":"app"}}}`},
		ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kubectl-client-side-apply", Operation: "Update", APIVersion: "v1", Time: &at, FieldsType: "FieldsV1", FieldsV1: fields}},
	}
}

func largeLabels(j int) map[string]string {
	return map[string]string{"app": fmt.Sprintf("app-%d", j%largeServices)}
}

func largePod(ns string, i, j int) *corev1.Pod {
	at := metav1.NewTime(time.Unix(1_790_000_100, 0))
	name := fmt.Sprintf("app-%d-7d9c6b5f4-%05d", j%largeServices, j)
	p := &corev1.Pod{ObjectMeta: largeMeta(ns, name, largeLabels(j))}
	p.Labels["pod-template-hash"] = "7d9c6b5f4"
	p.Annotations = map[string]string{"ambient.istio.io/redirection": "enabled", "prometheus.io/scrape": "true"}
	p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: name[:len(name)-6], UID: p.UID}}
	p.ManagedFields = append(p.ManagedFields, metav1.ManagedFieldsEntry{
		Manager: "install-cni", Operation: "Update", APIVersion: "v1", Time: &p.CreationTimestamp, FieldsType: "FieldsV1", Subresource: "status",
		FieldsV1: metav1.NewFieldsV1(`{"f:metadata":{"f:annotations":{"f:ambient.istio.io/redirection":{}}}}`),
	})
	var env []corev1.EnvVar
	for k := range 8 {
		env = append(env, corev1.EnvVar{Name: fmt.Sprintf("SETTING_%d", k), Value: "a value that nobody here looks at"})
	}
	p.Spec = corev1.PodSpec{
		ServiceAccountName: fmt.Sprintf("sa-%d", j%2), NodeName: fmt.Sprintf("node-%d", i%100), DNSPolicy: "ClusterFirst", RestartPolicy: "Always",
		Containers: []corev1.Container{{
			Name: "app", Image: "registry.invalid/team/app:1.2.3", Env: env, Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: "TCP"}},
			ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/ready", Port: intstr.FromInt32(8080)}}},
			VolumeMounts:   []corev1.VolumeMount{{Name: "kube-api-access", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount", ReadOnly: true}},
		}},
		Volumes:     []corev1.Volume{{Name: "kube-api-access", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{}}}},
		Tolerations: []corev1.Toleration{{Key: "node.kubernetes.io/not-ready", Operator: "Exists", Effect: "NoExecute"}, {Key: "node.kubernetes.io/unreachable", Operator: "Exists", Effect: "NoExecute"}},
	}
	ip := fmt.Sprintf("10.%d.%d.%d", 128+i/1000, i%250, j)
	p.Status = corev1.PodStatus{Phase: "Running", PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}}, HostIP: "172.18.0.2", StartTime: &p.CreationTimestamp, QOSClass: "BestEffort"}
	for _, c := range []corev1.PodConditionType{"PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"} {
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: c, Status: "True", LastTransitionTime: at})
	}
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: "app", Image: "registry.invalid/team/app:1.2.3", ImageID: "registry.invalid/team/app@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
		ContainerID: "containerd://0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: at}},
	}}
	return p
}

func largeService(ns string, n, j int) *corev1.Service {
	s := &corev1.Service{ObjectMeta: largeMeta(ns, fmt.Sprintf("app-%d", j), nil)}
	http, tcp := "http", intstr.FromInt32(8080)
	s.Spec = corev1.ServiceSpec{
		Type: "ClusterIP", ClusterIP: fmt.Sprintf("10.%d.%d.%d", 96+n>>16, n>>8&255, n&255), Selector: largeLabels(j),
		Ports: []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: tcp, Protocol: "TCP", AppProtocol: &http}},
	}
	s.Spec.ClusterIPs = []string{s.Spec.ClusterIP}
	s.Status.Conditions = []metav1.Condition{{
		Type: "istio.io/WaypointBound", Status: "True", Reason: "WaypointAccepted", Message: "Successfully attached to waypoint " + ns + "/waypoint", LastTransitionTime: s.CreationTimestamp,
	}}
	return s
}

func largeSlice(ns string, j int) *discoveryv1.EndpointSlice {
	ready, port := true, int32(8080)
	o := &discoveryv1.EndpointSlice{ObjectMeta: largeMeta(ns, fmt.Sprintf("app-%d-x2k4p", j), map[string]string{
		"kubernetes.io/service-name": fmt.Sprintf("app-%d", j), "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
	}), AddressType: "IPv4", Ports: []discoveryv1.EndpointPort{{Port: &port}}}
	for k := range 2 {
		o.Endpoints = append(o.Endpoints, discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.128.%d.%d", j, k)}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}})
	}
	return o
}

func largeNetworkPolicy(ns string, j int) *networkingv1.NetworkPolicy {
	app, hbone := intstr.FromInt32(8080), intstr.FromInt32(15008)
	return &networkingv1.NetworkPolicy{ObjectMeta: largeMeta(ns, fmt.Sprintf("allow-%d", j), nil), Spec: networkingv1.NetworkPolicySpec{
		PodSelector: metav1.LabelSelector{MatchLabels: largeLabels(j)},
		Ingress:     []networkingv1.NetworkPolicyIngressRule{{Ports: []networkingv1.NetworkPolicyPort{{Port: &app}, {Port: &hbone}}}},
	}}
}

func largeGateway(ns, name, class string) *gatewayv1.Gateway {
	g := &gatewayv1.Gateway{ObjectMeta: largeMeta(ns, name, nil)}
	l := gatewayv1.Listener{Name: "mesh", Port: 15008, Protocol: "HBONE"}
	if class == "istio" {
		all := gatewayv1.NamespacesFromAll
		l = gatewayv1.Listener{Name: "http", Port: 80, Protocol: "HTTP", AllowedRoutes: &gatewayv1.AllowedRoutes{Namespaces: &gatewayv1.RouteNamespaces{From: &all}}}
	} else {
		g.Labels = map[string]string{"istio.io/waypoint-for": "service"}
	}
	g.Spec = gatewayv1.GatewaySpec{GatewayClassName: gatewayv1.ObjectName(class), Listeners: []gatewayv1.Listener{l}}
	kind := gatewayv1.IPAddressType
	g.Status.Addresses = []gatewayv1.GatewayStatusAddress{{Type: &kind, Value: "10.96.0.9"}}
	for _, c := range []string{"Accepted", "Programmed"} {
		g.Status.Conditions = append(g.Status.Conditions, metav1.Condition{Type: c, Status: "True", Reason: c, ObservedGeneration: 1, LastTransitionTime: g.CreationTimestamp})
	}
	return g
}

func largeRoute(ns string, edge, j int) *gatewayv1.HTTPRoute {
	o := &gatewayv1.HTTPRoute{ObjectMeta: largeMeta(ns, fmt.Sprintf("route-%d", j), nil)}
	home, port, prefix, path := gatewayv1.Namespace("edge"), gatewayv1.PortNumber(80), gatewayv1.PathMatchPathPrefix, fmt.Sprintf("/%s/%d", ns, j)
	ref := gatewayv1.ParentReference{Namespace: &home, Name: gatewayv1.ObjectName(fmt.Sprintf("edge-%d", edge))}
	o.Spec.ParentRefs = []gatewayv1.ParentReference{ref}
	o.Spec.Hostnames = []gatewayv1.Hostname{gatewayv1.Hostname(ns + ".example.com")}
	o.Spec.Rules = []gatewayv1.HTTPRouteRule{{
		Matches: []gatewayv1.HTTPRouteMatch{{Path: &gatewayv1.HTTPPathMatch{Type: &prefix, Value: &path}}},
		BackendRefs: []gatewayv1.HTTPBackendRef{{BackendRef: gatewayv1.BackendRef{BackendObjectReference: gatewayv1.BackendObjectReference{
			Name: gatewayv1.ObjectName(fmt.Sprintf("app-%d", j)), Port: &port,
		}}}},
	}}
	s := gatewayv1.RouteParentStatus{ParentRef: ref, ControllerName: "istio.io/gateway-controller"}
	for _, c := range []string{"Accepted", "ResolvedRefs"} {
		s.Conditions = append(s.Conditions, metav1.Condition{Type: c, Status: "True", Reason: c, ObservedGeneration: 1, LastTransitionTime: o.CreationTimestamp})
	}
	o.Status.Parents = []gatewayv1.RouteParentStatus{s}
	return o
}

// largePolicy: the edge may call, and so may a neighbour, at the waypoint; the pods admit the waypoint.
func largePolicy(ns string, edge, j int) *securityv1.AuthorizationPolicy {
	o := &securityv1.AuthorizationPolicy{ObjectMeta: largeMeta(ns, fmt.Sprintf("policy-%d", j), nil)}
	admits := func(accounts ...string) []*apisecurity.Rule {
		return []*apisecurity.Rule{{From: []*apisecurity.Rule_From{{Source: &apisecurity.Source{Principals: accounts}}}}}
	}
	if j%2 == 1 {
		o.Spec.Selector = &apitype.WorkloadSelector{MatchLabels: largeLabels(j - 1)}
		o.Spec.Rules = admits("cluster.local/ns/" + ns + "/sa/waypoint")
		return o
	}
	o.Spec.TargetRefs = []*apitype.PolicyTargetReference{{Kind: "Service", Name: fmt.Sprintf("app-%d", j)}}
	o.Spec.Rules = admits(fmt.Sprintf("cluster.local/ns/edge/sa/edge-%d-istio", edge), "cluster.local/ns/"+ns+"/sa/sa-0")
	o.Spec.Rules[0].To = []*apisecurity.Rule_To{{Operation: &apisecurity.Operation{Methods: []string{"GET", "POST"}}}}
	return o
}
