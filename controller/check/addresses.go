package check

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func (w *World) socketBalancing(found func(Finding)) {
	if len(w.index().leads) == 0 {
		return
	}
	kind := schema.GroupKind{Kind: "ConfigMap"}
	c := w.Other(kind, "kube-system", "cilium-config")
	if c == nil {
		return
	}
	is := func(key string) string { v, _, _ := unstructured.NestedString(c.Object, "data", key); return v }
	replaces := is("kube-proxy-replacement")
	on := is("bpf-lb-sock") == "true" || is("bpf-lb-sock") == "" && (replaces == "true" || replaces == "strict")
	if !on || is("bpf-lb-sock-hostns-only") == "true" {
		return
	}
	found(Finding{
		Object: Object{"", "ConfigMap", keyOf(c)}, Field: "data[bpf-lb-sock-hostns-only]",
		Message: fmt.Sprintf("Cilium makes a pod of a Service's address at the socket of the caller, before ztunnel sees it: no caller passes a waypoint "+
			"(%s)", w.index().leads[0].waypoint),
		Fix: "helm upgrade cilium with socketLB.hostNamespaceOnly=true",
	})
}

func (w *World) sameAddress(found func(Finding)) {
	first := map[string]*corev1.Service{}
	for i := range w.Services {
		s := &w.Services[i]
		if s.Spec.ClusterIP == "" || s.Spec.ClusterIP == corev1.ClusterIPNone {
			continue
		}
		o := first[s.Spec.ClusterIP]
		if o == nil {
			first[s.Spec.ClusterIP] = s
			continue
		}
		found(Finding{
			Object: ServiceObject(s), Field: "spec.clusterIP", Related: []Object{ServiceObject(o)},
			Message: fmt.Sprintf("%s is the address of %s too: the mesh tells Services apart by their addresses", s.Spec.ClusterIP, ServiceObject(o)),
			Fix:     "leave spec.clusterIP to the API server",
		})
	}
}
