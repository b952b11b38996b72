package explain

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"

	securityapi "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// Patch changes one policy.
type Patch struct {
	Policy policy.Ref
	// Text is a JSON patch in YAML, below a comment with the command that takes it.
	Text string
}

// operation is one of a JSON patch.
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// patcher makes patches of changes. It makes each on copies too, so that later ones find what earlier ones have added.
type patcher struct {
	points *points
	order  []policy.Ref
	copies map[policy.Ref]*securityv1.AuthorizationPolicy
	ops    map[policy.Ref][]operation
	done   map[policy.Change]bool
}

func newPatcher(p *points) *patcher {
	return &patcher{points: p, copies: map[policy.Ref]*securityv1.AuthorizationPolicy{}, ops: map[policy.Ref][]operation{}, done: map[policy.Change]bool{}}
}

// fieldOf reads rules[0].from[1].source.principals; from[] is each source of the rule.
var fieldOf = regexp.MustCompile(`^rules\[(\d+)\]\.(from|to)\[(\d*)\]\.(source|operation)\.(\w+)$`)

// add adds the operations for a change. One that no value of a field makes has none.
func (p *patcher) add(c policy.Change) {
	if c.Advice != "" || p.done[c] {
		return
	}
	p.done[c] = true
	o := p.copies[c.Policy]
	if o == nil {
		if o = p.points.policy(c.Policy); o == nil {
			return
		}
		o = o.DeepCopy()
		p.copies[c.Policy] = o
		p.order = append(p.order, c.Policy)
	}
	at := fieldOf.FindStringSubmatch(c.Field)
	if at == nil {
		p.rule(c, o)
		return
	}
	i, _ := strconv.Atoi(at[1])
	if i >= len(o.Spec.Rules) || o.Spec.Rules[i] == nil {
		return
	}
	rule, path := o.Spec.Rules[i], fmt.Sprintf("/spec/rules/%d/%s", i, at[2])
	switch {
	case at[2] == "to":
		j, _ := strconv.Atoi(at[3])
		if j < len(rule.To) && rule.To[j].GetOperation() != nil {
			p.value(c, fmt.Sprintf("%s/%d/operation/%s", path, j, at[5]), operationField(rule.To[j].Operation, at[5]))
		}
	case at[3] != "":
		j, _ := strconv.Atoi(at[3])
		if j < len(rule.From) && rule.From[j].GetSource() != nil {
			p.value(c, fmt.Sprintf("%s/%d/source/%s", path, j, at[5]), sourceField(rule.From[j].Source, at[5]))
		}
	case len(rule.From) == 0:
		from := &securityapi.Rule_From{Source: &securityapi.Source{}}
		if to := sourceField(from.Source, at[5]); to != nil {
			*to = []string{c.Value}
			rule.From = append(rule.From, from)
			p.op(c, path, []any{map[string]any{"source": map[string]any{at[5]: []string{c.Value}}}})
		}
	default:
		for j, from := range rule.From {
			if from.GetSource() == nil {
				rule.From[j] = &securityapi.Rule_From{Source: &securityapi.Source{}}
				p.op(c, fmt.Sprintf("%s/%d/source", path, j), map[string]any{})
			}
			p.value(c, fmt.Sprintf("%s/%d/source/%s", path, j, at[5]), sourceField(rule.From[j].Source, at[5]))
		}
	}
}

// rule adds a rule of its own.
func (p *patcher) rule(c policy.Change, o *securityv1.AuthorizationPolicy) {
	rule := map[string]any{"from": []any{map[string]any{"source": map[string]any{"principals": []string{c.Value}}}}}
	spec := &o.Spec
	switch {
	case len(spec.Rules) > 0:
		p.op(c, "/spec/rules/-", rule)
	case spec.Selector == nil && len(spec.TargetRefs) == 0 && spec.GetTargetRef() == nil && spec.Action == securityapi.AuthorizationPolicy_ALLOW:
		p.op(c, "/spec", map[string]any{"rules": []any{rule}}) // it may have no spec at all
	default:
		p.op(c, "/spec/rules", []any{rule})
	}
	spec.Rules = append(spec.Rules, &securityapi.Rule{From: []*securityapi.Rule_From{{Source: &securityapi.Source{Principals: []string{c.Value}}}}})
}

// value adds to a list, which may not be there yet.
func (p *patcher) value(c policy.Change, path string, to *[]string) {
	switch {
	case to == nil || slices.Contains(*to, c.Value):
		return
	case len(*to) == 0:
		p.op(c, path, []string{c.Value})
	default:
		p.op(c, path+"/-", c.Value)
	}
	*to = append(*to, c.Value)
}

func (p *patcher) op(c policy.Change, path string, value any) {
	p.ops[c.Policy] = append(p.ops[c.Policy], operation{"add", path, value})
}

// patches are those of all changes, by policy.
func (p *patcher) patches() (list []Patch) {
	for _, ref := range p.order {
		text, err := yaml.Marshal(p.ops[ref])
		if err != nil || len(p.ops[ref]) == 0 {
			continue
		}
		command := fmt.Sprintf("# kubectl patch authorizationpolicies.security.istio.io -n %s %s --type json --patch-file FILE\n", ref.Namespace, ref.Name)
		list = append(list, Patch{ref, command + string(text)})
	}
	return list
}

func sourceField(s *securityapi.Source, name string) *[]string {
	return map[string]*[]string{
		"principals": &s.Principals, "notPrincipals": &s.NotPrincipals, "namespaces": &s.Namespaces, "serviceAccounts": &s.ServiceAccounts,
		"trustDomains": &s.TrustDomains, "ipBlocks": &s.IpBlocks,
	}[name]
}

func operationField(o *securityapi.Operation, name string) *[]string {
	return map[string]*[]string{"ports": &o.Ports, "methods": &o.Methods, "hosts": &o.Hosts, "paths": &o.Paths}[name]
}
