package node

import corev1 "k8s.io/api/core/v1"

// Labels and annotations of Istio's ambient mode, as its documentation names them.
const (
	labelDataplaneMode      = "istio.io/dataplane-mode"
	annotationSidecarStatus = "sidecar.istio.io/status"
	annotationRedirection   = "ambient.istio.io/redirection"
	annotationBypassInbound = "ambient.istio.io/bypass-inbound-capture"
	sidecarContainer        = "istio-proxy"
)

// enrolment is what a pod should have of the mesh.
type enrolment struct {
	on            bool
	bypassInbound bool
}

// enrolled decides by Istio's rules: the pod's label wins over its namespace's, "none" excludes, and pods on the
// host's network and pods with a sidecar are never captured.
func enrolled(pod *corev1.Pod, namespaceLabels map[string]string) enrolment {
	if pod.Spec.HostNetwork || hasSidecar(pod) {
		return enrolment{}
	}
	mode, ok := pod.Labels[labelDataplaneMode]
	if !ok || mode != "ambient" && mode != "none" {
		mode = namespaceLabels[labelDataplaneMode]
	}
	if mode != "ambient" {
		return enrolment{}
	}
	return enrolment{on: true, bypassInbound: pod.Annotations[annotationBypassInbound] == "true"}
}

// hasSidecar reports whether a proxy of Istio's own runs in the pod: a sidecar, a waypoint or an ingress gateway.
func hasSidecar(pod *corev1.Pod) bool {
	if _, ok := pod.Annotations[annotationSidecarStatus]; ok {
		return true
	}
	for _, c := range pod.Spec.Containers {
		if c.Name == sidecarContainer {
			return true
		}
	}
	for _, c := range pod.Spec.InitContainers {
		if c.Name == sidecarContainer {
			return true
		}
	}
	return false
}
