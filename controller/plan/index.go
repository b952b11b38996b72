package plan

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// index finds the objects of a large snapshot, which must not change as long as it is used.
type index struct {
	namespaces  map[string]*corev1.Namespace
	services    map[types.NamespacedName]*corev1.Service
	gateways    map[types.NamespacedName]*gatewayv1.Gateway
	deployments map[types.NamespacedName]*appsv1.Deployment
	pods        map[string][]*corev1.Pod // by namespace, without those that have ended
}

// indexed is the snapshot with an index.
func (s *Snapshot) indexed() *Snapshot {
	ix := &index{
		namespaces: make(map[string]*corev1.Namespace, len(s.Namespaces)), services: make(map[types.NamespacedName]*corev1.Service, len(s.Services)),
		gateways: make(map[types.NamespacedName]*gatewayv1.Gateway, len(s.Gateways)), deployments: make(map[types.NamespacedName]*appsv1.Deployment, len(s.Deployments)),
		pods: map[string][]*corev1.Pod{},
	}
	for i := range s.Namespaces {
		ix.namespaces[s.Namespaces[i].Name] = &s.Namespaces[i]
	}
	for i := range s.Services {
		ix.services[keyOf(&s.Services[i])] = &s.Services[i]
	}
	for i := range s.Gateways {
		ix.gateways[keyOf(&s.Gateways[i])] = &s.Gateways[i]
	}
	for i := range s.Deployments {
		ix.deployments[keyOf(&s.Deployments[i])] = &s.Deployments[i]
	}
	for i := range s.Pods {
		if p := &s.Pods[i]; alive(p) {
			ix.pods[p.Namespace] = append(ix.pods[p.Namespace], p)
		}
	}
	look := *s
	look.ix = ix
	return &look
}
