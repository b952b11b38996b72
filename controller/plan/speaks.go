package plan

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// SpeaksHTTP says whether a waypoint reads requests on a port of a Service.
func SpeaksHTTP(s *corev1.Service, port int32) bool {
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		if p.Port != port {
			continue
		}
		name, _, _ := strings.Cut(p.Name, "-")
		if p.AppProtocol != nil {
			name = strings.TrimPrefix(*p.AppProtocol, "kubernetes.io/")
		}
		return slices.Contains([]string{"http", "http2", "grpc", "grpc-web", "h2c", "ws"}, strings.ToLower(name))
	}
	return false
}
