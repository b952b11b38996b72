package run

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// workloads reads Deployments and DaemonSets.
func (v *viewer) workloads(opts ...client.ListOption) error {
	var deployments appsv1.DeploymentList
	if err := v.list("Deployments", &deployments, opts...); err != nil {
		return err
	}
	for i := range deployments.Items {
		if o := &deployments.Items[i]; v.first("Deployment", client.ObjectKeyFromObject(o)) {
			v.s.Deployments = append(v.s.Deployments, *o)
		}
	}
	var sets appsv1.DaemonSetList
	if err := v.list("DaemonSets", &sets, opts...); err != nil {
		return err
	}
	for i := range sets.Items {
		if o := &sets.Items[i]; v.first("DaemonSet", client.ObjectKeyFromObject(o)) {
			v.s.DaemonSets = append(v.s.DaemonSets, *o)
		}
	}
	return nil
}

// proxies are where the pods of the gateways may be, and all workloads there; and the other Gateways of the same vendors.
func (v *viewer) proxies() error {
	if err := v.workloads(client.InNamespace(v.edge.Namespace)); err != nil {
		return err
	}
	v.scope.workloads = len(v.edge.Spec.WorkloadRefs) > 0
	shared := map[string]bool{}
	for i := range v.s.Classes {
		c := &v.s.Classes[i]
		if !v.ofClass(c.Name) {
			continue
		}
		of := edge.ByController(string(c.Spec.ControllerName))
		v.scope.vendors[of.Name] = true
		v.scope.anywhere = v.scope.anywhere || of.Proxies.Anywhere
		shared[of.Name] = of.Proxies.Shared
	}
	for i := range v.s.Classes {
		c := &v.s.Classes[i]
		if !v.scope.vendors[edge.ByController(string(c.Spec.ControllerName)).Name] {
			continue
		}
		v.scope.classes[c.Name] = true
		var gateways gatewayv1.GatewayList
		if err := v.list("Gateways", &gateways, client.MatchingFields{indexClass: c.Name}); err != nil {
			return err
		}
		v.gateways(gateways.Items)
	}
	for i := range v.s.Deployments {
		if d := &v.s.Deployments[i]; shared[vendorOf(&d.Spec.Template)] && d.Spec.Selector != nil {
			v.selects(d.Namespace, d.Spec.Selector.MatchLabels)
		}
	}
	for i := range v.s.DaemonSets {
		if d := &v.s.DaemonSets[i]; shared[vendorOf(&d.Spec.Template)] && d.Spec.Selector != nil {
			v.selects(d.Namespace, d.Spec.Selector.MatchLabels)
		}
	}
	if !v.scope.anywhere {
		return nil
	}
	var pods corev1.PodList
	if err := v.list("Pods", &pods, client.MatchingFields{indexProxy: known}); err != nil {
		return err
	}
	for i := range pods.Items {
		o := &pods.Items[i]
		if v.pod(o); o.Namespace != v.edge.Namespace {
			v.scope.namespaces[o.Namespace] = true
			if err := v.workloads(client.InNamespace(o.Namespace)); err != nil {
				return err
			}
		}
	}
	return nil
}

// ofClass says whether one of the edge's Gateways is of a class.
func (v *viewer) ofClass(class string) bool {
	return slices.ContainsFunc(v.s.Gateways, func(g gatewayv1.Gateway) bool {
		return g.Namespace == v.edge.Namespace && string(g.Spec.GatewayClassName) == class &&
			slices.ContainsFunc(v.edge.Spec.TargetRefs, func(r v1alpha1.TargetRef) bool { return r.Name == g.Name })
	})
}

// selects makes the pods of a namespace matter that have labels.
func (v *viewer) selects(namespace string, labels map[string]string) {
	v.scope.namespaces[namespace] = true
	v.scope.selectors[namespace] = append(v.scope.selectors[namespace], labels)
}

func (v *viewer) pod(o *corev1.Pod) {
	if v.first("Pod", client.ObjectKeyFromObject(o)) {
		v.s.Pods = append(v.s.Pods, plan.PodOf(o))
	}
}
