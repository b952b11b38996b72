package plan

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Pod is what plans and checks look at of a pod: a cluster has very many, and most of a whole one is for others.
type Pod struct {
	metav1.ObjectMeta

	Spec   PodSpec
	Status PodStatus
}

// PodSpec is who a pod is, and what listens in it.
type PodSpec struct {
	ServiceAccountName         string
	HostNetwork                bool
	InitContainers, Containers []corev1.Container
}

// PodStatus is what became of a pod.
type PodStatus struct {
	Phase             corev1.PodPhase
	PodIP             string
	StartTime         *metav1.Time
	Conditions        []corev1.PodCondition
	ContainerStatuses []corev1.ContainerStatus
}

// PodOf is a whole pod's. They share what the fields point to.
func PodOf(o *corev1.Pod) Pod {
	return Pod{
		ObjectMeta: o.ObjectMeta, Spec: SpecOf(&o.Spec),
		Status: PodStatus{
			Phase: o.Status.Phase, PodIP: o.Status.PodIP, StartTime: o.Status.StartTime, Conditions: o.Status.Conditions,
			ContainerStatuses: o.Status.ContainerStatuses,
		},
	}
}

// SpecOf is that of a pod, or of a template. They share what the fields point to.
func SpecOf(s *corev1.PodSpec) PodSpec {
	return PodSpec{ServiceAccountName: s.ServiceAccountName, HostNetwork: s.HostNetwork, InitContainers: s.InitContainers, Containers: s.Containers}
}

// PodsOf are those of whole pods.
func PodsOf(list []corev1.Pod) []Pod {
	pods := make([]Pod, len(list))
	for i := range list {
		pods[i] = PodOf(&list[i])
	}
	return pods
}
