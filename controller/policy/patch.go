package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"

	securityapi "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
)

// Operation is one of a JSON patch.
type Operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// Patcher makes patches of changes. It makes each on copies too, so that later ones find what earlier ones have added.
type Patcher struct {
	find   func(Ref) *securityv1.AuthorizationPolicy
	order  []Ref
	copies map[Ref]*securityv1.AuthorizationPolicy
	ops    map[Ref][]Operation
	done   map[Change]bool // whether operations make it
}

// NewPatcher begins with no changes. find gives policies, or nil; they are not changed.
func NewPatcher(find func(Ref) *securityv1.AuthorizationPolicy) *Patcher {
	return &Patcher{find: find, copies: map[Ref]*securityv1.AuthorizationPolicy{}, ops: map[Ref][]Operation{}, done: map[Change]bool{}}
}

// Each calls f for each policy with its operations, in the order of the changes.
func (p *Patcher) Each(f func(Ref, []Operation)) {
	for _, ref := range p.order {
		if len(p.ops[ref]) > 0 {
			f(ref, p.ops[ref])
		}
	}
}

// fieldOf reads rules[0].from[1].source.principals; from[] is each source of the rule.
var fieldOf = regexp.MustCompile(`^rules\[(\d+)\]\.(from|to)\[(\d*)\]\.(source|operation)\.(\w+)$`)

// Add adds the operations for a change, and says whether it is made by them. One that no value of a field makes is not.
func (p *Patcher) Add(c Change) bool {
	c.Near, c.NearValue, c.Careful = "", "", "" // they change nothing
	made, done := p.done[c]
	if !done {
		made = p.add(c)
		p.done[c] = made
	}
	return made
}

func (p *Patcher) add(c Change) bool {
	if c.Advice != "" {
		return false
	}
	o := p.copies[c.Policy]
	if o == nil {
		if o = p.find(c.Policy); o == nil {
			return false
		}
		o = o.DeepCopy()
		p.copies[c.Policy] = o
		p.order = append(p.order, c.Policy)
	}
	at := fieldOf.FindStringSubmatch(c.Field)
	if at == nil {
		if c.Field != fieldRules {
			return false
		}
		p.rule(c, o)
		return true
	}
	i, _ := strconv.Atoi(at[1])
	if i >= len(o.Spec.Rules) || o.Spec.Rules[i] == nil {
		return false
	}
	rule, path := o.Spec.Rules[i], fmt.Sprintf("/spec/rules/%d/%s", i, at[2])
	switch {
	case at[2] == "to":
		j, _ := strconv.Atoi(at[3])
		if j < len(rule.To) && rule.To[j].GetOperation() != nil {
			return p.value(c, fmt.Sprintf("%s/%d/operation/%s", path, j, at[5]), operationField(rule.To[j].Operation, at[5]))
		}
	case at[3] != "":
		j, _ := strconv.Atoi(at[3])
		if j < len(rule.From) && rule.From[j].GetSource() != nil {
			return p.value(c, fmt.Sprintf("%s/%d/source/%s", path, j, at[5]), sourceField(rule.From[j].Source, at[5]))
		}
	case len(rule.From) == 0:
		from := &securityapi.Rule_From{Source: &securityapi.Source{}}
		if to := sourceField(from.Source, at[5]); to != nil {
			*to = []string{c.Value}
			rule.From = append(rule.From, from)
			p.op(c, path, []any{map[string]any{"source": map[string]any{at[5]: []string{c.Value}}}})
			return true
		}
	default:
		made := true
		for j, from := range rule.From {
			if from.GetSource() == nil {
				rule.From[j] = &securityapi.Rule_From{Source: &securityapi.Source{}}
				p.op(c, fmt.Sprintf("%s/%d/source", path, j), map[string]any{})
			}
			made = p.value(c, fmt.Sprintf("%s/%d/source/%s", path, j, at[5]), sourceField(rule.From[j].Source, at[5])) && made
		}
		return made
	}
	return false
}

// rule adds a rule of its own.
func (p *Patcher) rule(c Change, o *securityv1.AuthorizationPolicy) {
	rule := map[string]any{"from": []any{map[string]any{"source": map[string]any{"principals": []string{c.Value}}}}}
	own := &securityapi.Rule{From: []*securityapi.Rule_From{{Source: &securityapi.Source{Principals: []string{c.Value}}}}}
	if fields := c.To.fields(); len(fields) > 0 {
		operation, to := map[string]any{}, &securityapi.Operation{}
		for _, f := range fields {
			operation[f.name] = []string{f.value}
			*operationField(to, f.name) = []string{f.value}
		}
		rule["to"] = []any{map[string]any{"operation": operation}}
		own.To = []*securityapi.Rule_To{{Operation: to}}
	}
	spec := &o.Spec
	switch {
	case len(spec.Rules) > 0:
		p.op(c, "/spec/rules/-", rule)
	case spec.Selector == nil && len(spec.TargetRefs) == 0 && spec.GetTargetRef() == nil && spec.Action == securityapi.AuthorizationPolicy_ALLOW:
		p.op(c, "/spec", map[string]any{"rules": []any{rule}}) // it may have no spec at all
	default:
		p.op(c, "/spec/rules", []any{rule})
	}
	spec.Rules = append(spec.Rules, own)
}

// value adds to a list, which may not be there yet. Nil is none.
func (p *Patcher) value(c Change, path string, to *[]string) bool {
	switch {
	case to == nil:
		return false
	case slices.Contains(*to, c.Value):
		return true
	case len(*to) == 0:
		p.op(c, path, []string{c.Value})
	default:
		p.op(c, path+"/-", c.Value)
	}
	*to = append(*to, c.Value)
	return true
}

func (p *Patcher) op(c Change, path string, value any) {
	p.ops[c.Policy] = append(p.ops[c.Policy], Operation{"add", path, value})
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
