package plan

import (
	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// keep adds the steps by which what was written stays, and is the edge's no more: another of its name does not take it back.
func (m *maker) keep() {
	var list []carrier
	for i := range m.Namespaces {
		list = append(list, carrier{"v1", "Namespace", &m.Namespaces[i]})
	}
	for i := range m.Services {
		list = append(list, carrier{"v1", "Service", &m.Services[i]})
	}
	for i := range m.Deployments {
		list = append(list, carrier{"apps/v1", "Deployment", &m.Deployments[i]})
	}
	for i := range m.DaemonSets {
		list = append(list, carrier{"apps/v1", "DaemonSet", &m.DaemonSets[i]})
	}
	for i := range m.Ingresses {
		list = append(list, carrier{"networking.k8s.io/v1", "Ingress", &m.Ingresses[i]})
	}
	for i := range m.Gateways {
		list = append(list, carrier{gatewayAPI, "Gateway", &m.Gateways[i]})
	}
	for _, p := range m.Policies {
		list = append(list, carrier{policyAPI, "AuthorizationPolicy", p})
	}
	for _, o := range m.Objects {
		list = append(list, carrier{o.GetAPIVersion(), o.GetKind(), o})
	}
	for _, c := range list {
		if !m.created(c.object) && !m.wrote(c.object) {
			continue
		}
		m.add(Step{
			part: partRelease, Step: v1alpha1.Step{Verb: VerbRelease, Object: c.String(), Reason: "it stays as it is, and belongs to nobody's AmbientEdge"},
			Write: &Write{APIVersion: c.apiVersion, Kind: c.kind, Key: keyOf(c.object), UID: c.object.GetUID(), Release: true},
		})
	}
}
