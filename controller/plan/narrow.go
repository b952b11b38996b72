package plan

import (
	"fmt"
	"slices"
	"strconv"

	securityapi "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// listEdge finds the lists of a backend whose pods have none: at its waypoint one of the gateway, beside a list of others there, which would refuse it once it
// is enforced, or, where that is asked for, to shut out whom no list names; and then one of the waypoint at the pods.
func (m *maker) listEdge(x *pairing) {
	beside := x.listed && !x.led // where it has led there before, that list decides already
	if !beside && !m.Edge.Narrows() {
		return
	}
	principals, why, _ := m.principals()
	numbers, named := portsOf(x.service, m.podsWith(x.key.Namespace, x.service.Spec.Selector))
	if why != "" || named != "" || len(numbers) == 0 {
		return // the lock tells
	}
	edge := m.atService(x.backend, pairEdge, securityapi.AuthorizationPolicy_ALLOW, []*securityapi.Rule{{
		From: []*securityapi.Rule_From{{Source: &securityapi.Source{Principals: principals}}},
		To:   []*securityapi.Rule_To{{Operation: &securityapi.Operation{Ports: m.calledPorts(x.backend)}}},
	}})
	if beside {
		x.wanted = append(x.wanted, edge)
	}
	if !m.Edge.Narrows() || m.alsoServed(x.backend, m.podsWith(x.key.Namespace, x.service.Spec.Selector), numbers) != "" {
		return // the lock tells of that too
	}
	only, o := m.admission(x.backend)
	if o != nil {
		x.obstacle = o
		return
	}
	key := m.pairKey(x.backend, pairOnly)
	only.Namespace, only.Name = key.Namespace, key.Name
	others := &securityapi.Operation{NotPorts: numbers} // what is not the Service's
	only.Spec.Rules = append(only.Spec.Rules, &securityapi.Rule{To: []*securityapi.Rule_To{{Operation: others}}})
	if !x.listed {
		x.narrow = append(x.narrow, edge)
	}
	x.narrow = append(x.narrow, only)
}

// calledPorts are the ports of a backend that routes of the gateways call, those that may yet count too; all of them where routes do not say.
func (m *maker) calledPorts(b *backend) (list []string) {
	whole := m.Edge.Spec.Backends != nil && (len(m.Edge.Spec.Backends.Services) > 0 || m.Edge.Spec.Backends.From == v1alpha1.FromIngresses)
	for _, f := range m.follow() {
		if whole || f.why != "" && f.decided {
			continue
		}
		for i := range f.look().sends {
			s := &f.sends[i]
			if !isService(s.ref) || f.refers(s.ref) != b.key {
				continue
			}
			if s.ref.Port == nil {
				whole = true
				break
			}
			list = append(list, strconv.Itoa(int(*s.ref.Port)))
		}
	}
	if whole || len(list) == 0 {
		list = nil
		for _, p := range ports(b.service) {
			list = append(list, strconv.Itoa(int(p.service)))
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// narrow adds the steps that shut out whom no list names. They come last, when connections of before have ended.
func (m *maker) narrow() {
	for _, x := range m.pairings {
		for _, want := range x.narrow {
			if x.stays() {
				continue
			}
			_, role := pairedFor(want)
			m.about(x.itself(), func() {
				s := m.pairStep(x, want, role, partLock)
				m.add(s, partEnrol, partWaypoint, partPair, partWire, partLock)
			})
		}
		if len(x.narrow) > 0 && !x.stays() && m.policyAt(keyOf(x.narrow[0])) == nil {
			m.shutOutTold(x)
		}
	}
}

// shutOutTold finds whom the lists of a backend will shut out, as far as they are seen.
func (m *maker) shutOutTold(x *pairing) {
	var names []string
	for _, id := range m.strangers(x.backend, nil) {
		names = append(names, caller(id))
	}
	f := v1alpha1.Finding{
		Code: v1alpha1.FindingPair, Severity: v1alpha1.SeverityInfo, Object: x.String(),
		Message: "defaultDeny Set shuts out whom no list names: at last this Service is for the gateway alone, beside whom lists of others allow",
		Fix:     "list those who are to call it too in an AuthorizationPolicy ALLOW with targetRefs to this Service; or set defaultDeny to Keep",
	}
	if len(names) > 0 {
		f.Message += fmt.Sprintf("; of the pods that are seen, those of %s could call it", listed(unique(names)))
	}
	m.found(f)
}

// shutsOut says whether one of our policies shuts out others, and carries nothing: without it all are let in who were before it.
func (m *maker) shutsOut(p *securityv1.AuthorizationPolicy, service types.NamespacedName) bool {
	_, role := pairedFor(p)
	o := m.service(service)
	if p.Labels[v1alpha1.LabelOwner] == "" || role != pairEdge || o == nil {
		return role == pairOnly && p.Labels[v1alpha1.LabelOwner] != ""
	}
	b := &backend{key: service, service: o}
	b.waypoint = m.present(b)
	return !slices.ContainsFunc(m.Policies, func(o *securityv1.AuthorizationPolicy) bool {
		here := targets(o, &o.Spec, service, "Service") || targets(o, &o.Spec, b.waypoint, "Gateway") || m.targetsClass(o, &o.Spec)
		return o != p && o.Spec.GetAction() == securityapi.AuthorizationPolicy_ALLOW && here
	})
}
