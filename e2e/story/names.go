package story

import (
	"context"
	"net"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// owner is what people call a pod: its namespace and the workload that it belongs to.
func owner(p *corev1.Pod) string {
	for _, label := range []string{"gateway.networking.k8s.io/gateway-name", "app"} {
		if v := p.Labels[label]; v != "" {
			return p.Namespace + "/" + v
		}
	}
	return p.Namespace + "/" + p.Name
}

// nameOf is the owner of the pod at address, ip or ip:port; the address itself where no pod has it.
func (w *World) nameOf(ctx context.Context, address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	var pods corev1.PodList
	if err := w.Client().List(ctx, &pods); err != nil {
		return address
	}
	for i := range pods.Items {
		if p := &pods.Items[i]; p.Status.PodIP == host && !p.Spec.HostNetwork {
			return owner(p)
		}
	}
	return address
}

// short is a SPIFFE id without scheme and trust domain, for narrow lines.
func short(id string) string {
	if _, rest, ok := strings.Cut(strings.TrimPrefix(id, "spiffe://"), "/"); ok {
		return rest
	}
	return id
}
