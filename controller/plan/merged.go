package plan

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
)

// merged are the parameters of a Gateway's class by which the same pods serve all Gateways of the class, or nil.
func (m *maker) merged(g *gateway) *unstructured.Unstructured {
	how := &g.vendor.Proxies.Merge
	class := find(m.Classes, func(c *gatewayv1.GatewayClass) bool { return c.Name == string(g.object.Spec.GatewayClassName) })
	if class == nil || class.Spec.ParametersRef == nil || len(how.Path) == 0 {
		return nil
	}
	ref := class.Spec.ParametersRef
	if string(ref.Group) != how.Kind.Group || string(ref.Kind) != how.Kind.Kind || ref.Namespace == nil {
		return nil
	}
	o := m.vendorObject(how.Kind, string(*ref.Namespace), ref.Name)
	if o == nil {
		return nil
	}
	if is, _ := value(o, how.Path); is != true {
		return nil
	}
	return o
}

// enrolMerged sees whether pods that serve all Gateways of a class are in the mesh: nothing of one Gateway reaches them.
func (m *maker) enrolMerged(g *gateway, mode string) Step {
	s := Step{part: partEnrol, wide: true, Step: v1alpha1.Step{Verb: VerbEnrol, Object: g.String(), State: v1alpha1.StepDone, Reason: "its pods are in the mesh already, not by us"}}
	if mode == modeNone || len(g.pods) > 0 && !slices.ContainsFunc(g.pods, func(p *Pod) bool { return !captured(p) }) {
		return s
	}
	params, how := object(g.merged.GetKind(), keyOf(g.merged)), &g.vendor.Proxies.Merge
	s.State, s.Reason = v1alpha1.StepBlocked, "its pods serve all Gateways of its class, as "+params+" says"
	m.found(v1alpha1.Finding{
		Code: v1alpha1.FindingShared, Severity: v1alpha1.SeverityError, Object: g.String(), Field: "spec.gatewayClassName",
		Message: fmt.Sprintf("the same pods serve all Gateways of GatewayClass %s, as %s has %s: labels of this Gateway do not reach them, and an AmbientEdge for one Gateway does not touch what serves others",
			g.object.Spec.GatewayClassName, params, edge.Field(how.Path)),
		Fix: fmt.Sprintf("set %s to %s in %s, which brings in all of them; or take %s away there", edge.Field(append(slices.Clip(how.Enrol), LabelDataplaneMode)), mode, params, edge.Field(how.Path)),
	})
	return s
}
