package plan

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	securityapi "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// obstacle is what keeps the answers of a backend's pods from being had at its waypoint.
type obstacle struct {
	policy *securityv1.AuthorizationPolicy // nil: it is about the Service
	field  string                          // of the policy's spec, or of the Service
	why    string                          // after the name of the object, as in "decides by the caller's address"
	fix    string
	opens  bool // it lets callers in past the policies at the waypoint, if the pods admit that
}

// twins makes rules that a waypoint enforces for a Service, of those that its pods' ztunnel enforces.
type twins struct {
	m     *maker
	ports []port // of the Service, with their numbers at the pods
	named string // the name of a port at the pods whose number nobody tells, or ""
	// lenient: what cannot be had is no obstacle. Rules that allow are left out then, and rules that deny are widened; denies: it is about these.
	lenient, denies bool
}

// maxTwinRules is how many rules one policy may have.
const maxTwinRules = 512

func (m *maker) twinsFor(b *backend) *twins {
	t := &twins{m: m}
	pods := m.podsWith(b.key.Namespace, b.service.Spec.Selector)
	for i, p := range ports(b.service) {
		if p.pod == 0 && i < len(b.service.Spec.Ports) {
			name := b.service.Spec.Ports[i].TargetPort.StrVal
			numbers := numbersOf(name, pods)
			slices.Sort(numbers)
			if numbers = slices.Compact(numbers); len(numbers) != 1 {
				t.named = name
			} else if n, err := strconv.ParseUint(numbers[0], 10, 16); err == nil {
				p.pod = uint16(n)
			}
		}
		t.ports = append(t.ports, p)
	}
	return t
}

// rules are the twins of a policy's rules, as far as ztunnel enforces them: of an ALLOW policy none that has HTTP conditions, and of a DENY policy what is
// left without these, where something is.
func (t *twins) rules(p *securityv1.AuthorizationPolicy) (list []*securityapi.Rule, o *obstacle) {
	allow := p.Spec.GetAction() == securityapi.AuthorizationPolicy_ALLOW
	t.denies = !allow
	for i, r := range p.Spec.GetRules() {
		if r == nil || allow && policy.OnlyHTTP(r) {
			continue
		}
		twin, o := t.rule(p, r, fmt.Sprintf("rules[%d].", i))
		if o != nil && t.lenient {
			if wide := widened(r); allow || wide == nil {
				continue
			} else if twin, o = t.rule(p, wide, ""); o != nil {
				wide.To = nil // of which nobody knows the ports
				if twin, o = t.rule(p, wide, ""); o != nil {
					continue
				}
			}
		}
		if o != nil {
			o.policy = p
			return nil, o
		}
		if twin != nil {
			list = append(list, twin)
		}
	}
	return list, nil
}

// rule is the twin of a rule, or nil where that never matches at the pods.
func (t *twins) rule(p *securityv1.AuthorizationPolicy, r *securityapi.Rule, at string) (*securityapi.Rule, *obstacle) {
	twin := &securityapi.Rule{}
	for j, to := range r.GetTo() {
		op, never, o := t.operation(to.GetOperation(), fmt.Sprintf("%sto[%d].operation.", at, j))
		if o != nil {
			return nil, o
		}
		if !never {
			twin.To = append(twin.To, &securityapi.Rule_To{Operation: op})
		}
	}
	for j, from := range r.GetFrom() {
		s, never, o := t.source(p.Namespace, from.GetSource(), fmt.Sprintf("%sfrom[%d].source.", at, j))
		if o != nil {
			return nil, o
		}
		if !never {
			twin.From = append(twin.From, &securityapi.Rule_From{Source: s})
		}
	}
	if len(r.GetTo()) > 0 && len(twin.To) == 0 || len(r.GetFrom()) > 0 && len(twin.From) == 0 {
		return nil, nil
	}
	for j, when := range r.GetWhen() {
		c, never, o := t.condition(when, fmt.Sprintf("%swhen[%d].", at, j))
		if o != nil || never {
			return nil, o
		}
		if c != nil {
			twin.When = append(twin.When, c)
		}
	}
	return twin, nil
}

// operation is that of a twin. never: it matches nothing that is sent to the Service, or ztunnel leaves it out, as it has HTTP conditions alone.
func (t *twins) operation(op *securityapi.Operation, at string) (twin *securityapi.Operation, never bool, o *obstacle) {
	is, not := numbers(op.GetPorts()), numbers(op.GetNotPorts())
	if len(is)+len(not) == 0 {
		return nil, true, nil
	}
	list, o := t.services(is, not, at+"ports")
	if o != nil || len(list) == 0 {
		return nil, true, o
	}
	return &securityapi.Operation{Ports: list}, false, nil
}

// services are the ports of the Service that lead to pods' ports: those that are one of is, where there is any, and none of not.
func (t *twins) services(is, not []uint16, field string) (list []string, o *obstacle) {
	for _, p := range t.ports {
		if p.pod == 0 {
			return nil, &obstacle{field: field, why: fmt.Sprintf("tells ports apart, and no pod says for sure which port %q is", t.named), fix: "give the Service the number of the port"}
		}
		if (len(is) == 0 || slices.Contains(is, p.pod)) && !slices.Contains(not, p.pod) {
			list = append(list, strconv.Itoa(int(p.service)))
		}
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

// numbers are ports as ztunnel reads them: what is none is left out.
func numbers(values []string) (list []uint16) {
	for _, v := range values {
		if n, err := strconv.ParseUint(v, 10, 16); err == nil {
			list = append(list, uint16(n))
		}
	}
	return list
}

// source is that of a twin. never: ztunnel leaves it out, as it has nothing that it knows.
func (t *twins) source(namespace string, s *securityapi.Source, at string) (twin *securityapi.Source, never bool, o *obstacle) {
	if len(s.GetIpBlocks())+len(s.GetNotIpBlocks()) > 0 {
		return nil, false, byAddress(at + "ipBlocks")
	}
	twin = &securityapi.Source{
		Principals: s.GetPrincipals(), NotPrincipals: s.GetNotPrincipals(), Namespaces: s.GetNamespaces(), NotNamespaces: s.GetNotNamespaces(),
		ServiceAccounts: qualified(s.GetServiceAccounts(), namespace), NotServiceAccounts: qualified(s.GetNotServiceAccounts(), namespace),
	}
	if !tellsSource(twin) {
		return nil, true, nil
	}
	return twin, false, t.aliased(slices.Concat(twin.Principals, twin.NotPrincipals), at+"principals")
}

// qualified are service accounts with their namespaces: a twin may be of another than the policy.
func qualified(accounts []string, namespace string) (list []string) {
	for _, a := range accounts {
		if !strings.Contains(a, "/") {
			a = namespace + "/" + a
		}
		list = append(list, a)
	}
	return list
}

// aliased finds principals of a trust domain that is not the mesh's: a waypoint takes those of an alias for the mesh's own, and ztunnel does not.
func (t *twins) aliased(principals []string, field string) *obstacle {
	if t.lenient && t.denies {
		return nil // then it denies more
	}
	for _, p := range principals {
		domain, _, whole := strings.Cut(p, "/")
		if whole && !strings.HasPrefix(p, "*") && domain != t.m.trustDomain() {
			return &obstacle{field: field, why: fmt.Sprintf("names trust domain %s, which a waypoint may take for one of the mesh and the pods do not", domain), fix: "name principals of " + t.m.trustDomain()}
		}
	}
	return nil
}

func byAddress(field string) *obstacle {
	return &obstacle{field: field, why: "decides by an address, which a waypoint does not see as the pods do", fix: "let it tell callers apart by their identity"}
}

// condition is that of a twin. never: the rule matches nothing that is sent to the Service. Without a condition it always holds.
func (t *twins) condition(c *securityapi.Condition, at string) (twin *securityapi.Condition, never bool, o *obstacle) {
	if len(c.GetValues())+len(c.GetNotValues()) == 0 {
		return nil, true, nil
	}
	switch c.GetKey() {
	case "source.ip", "destination.ip":
		return nil, false, byAddress(at + "values")
	case "destination.port":
		is, not := numbers(c.GetValues()), numbers(c.GetNotValues())
		if len(is)+len(not) == 0 {
			return nil, true, nil
		}
		list, o := t.services(is, not, at+"values")
		if o != nil || len(list) == 0 {
			return nil, true, o
		}
		return &securityapi.Condition{Key: c.GetKey(), Values: list}, false, nil
	case "source.principal":
		o = t.aliased(slices.Concat(c.GetValues(), c.GetNotValues()), at+"values")
		return c.DeepCopy(), false, o
	case "source.namespace":
		return c.DeepCopy(), false, nil
	}
	return nil, true, nil // of HTTP: ztunnel leaves it out of a DENY rule, which matches nothing then
}
