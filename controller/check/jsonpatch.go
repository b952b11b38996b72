package check

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	securityapi "istio.io/api/security/v1beta1"
	typev1beta1 "istio.io/api/type/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// operation is one of a JSON patch.
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// amend says how changes of AuthorizationPolicies are made that admit who, and has the commands that make them; none, when one of them is for people to make.
func (w *World) amend(changes []policy.Change, who string) (fix, patch string) {
	var texts []string
	whole := true
	for _, c := range changes {
		p := w.guard().byRef[c.Policy]
		instead := ""
		if p != nil && c.Advice == "" {
			instead = w.narrower(p)
			whole = whole && instead == "" && p.Spec.Action == actionAllow // a DENY is somebody's word, who is to take it back
		}
		if instead != "" {
			texts = append(texts, fmt.Sprintf("%s that admits %s: %v is for more than these", instead, who, c.Policy))
			continue
		}
		texts = append(texts, c.String())
	}
	if whole {
		patch = w.patch(changes)
	}
	return strings.Join(texts, ", and "), patch
}

// narrower is what to create in place of adding to an ALLOW that is for a whole namespace or the mesh, or "".
func (w *World) narrower(p *securityv1.AuthorizationPolicy) string {
	refs := targetRefsOf(&p.Spec)
	switch {
	case p.Spec.Action != actionAllow:
		return ""
	case len(refs) == 0 && (p.Namespace == w.Root() || len(p.Spec.Selector.GetMatchLabels()) == 0):
		return "create an ALLOW with a selector for these pods"
	case slices.ContainsFunc(refs, func(r *typev1beta1.PolicyTargetReference) bool { return r.GetKind() == "GatewayClass" }):
		return "create an ALLOW with targetRefs to this Service"
	}
	return ""
}

// patch is the commands that make changes of AuthorizationPolicies; empty, when one of them is for people to make.
func (w *World) patch(changes []policy.Change) string {
	var order []policy.Ref
	all := map[policy.Ref][]operation{}
	for _, c := range changes {
		p := w.guard().byRef[c.Policy]
		if p == nil || c.Advice != "" {
			return ""
		}
		ops := operations(p, c)
		if len(ops) == 0 {
			return ""
		}
		if !slices.Contains(order, c.Policy) {
			order = append(order, c.Policy)
		}
		all[c.Policy] = append(all[c.Policy], ops...)
	}
	text := ""
	for _, ref := range order {
		body, err := json.Marshal(all[ref])
		if err != nil || bytes.ContainsRune(body, '\'') {
			return ""
		}
		text += fmt.Sprintf("kubectl patch authorizationpolicies.security.istio.io -n %s %s --type=json -p '%s'\n", ref.Namespace, ref.Name, body)
	}
	return text
}

// anyMap is a JSON object.
type anyMap = map[string]any

func fromPrincipal(field, v string) []any {
	return []any{anyMap{"source": anyMap{field: []string{v}}}}
}

// operations make one change.
func operations(p *securityv1.AuthorizationPolicy, c policy.Change) []operation {
	if c.Field == "rules" {
		rule := anyMap{"from": fromPrincipal("principals", c.Value)}
		if len(p.Spec.Rules) == 0 {
			return []operation{{"add", "/spec/rules", []any{rule}}}
		}
		return []operation{{"add", "/spec/rules/-", rule}}
	}
	at := regexp.MustCompile(`^rules\[(\d+)\]\.(from|to)\[(\d*)\]\.(source|operation)\.(\w+)$`).FindStringSubmatch(c.Field)
	if at == nil {
		return nil
	}
	i, _ := strconv.Atoi(at[1])
	if i >= len(p.Spec.Rules) {
		return nil
	}
	rule := p.Spec.Rules[i]
	if at[3] != "" {
		j, _ := strconv.Atoi(at[3])
		return []operation{into(fmt.Sprintf("/spec/rules/%d/%s/%d/%s/%s", i, at[2], j, at[4], at[5]), fieldLists(rule, at[2], j, at[5]), c.Value)}
	}
	if len(rule.From) == 0 {
		return []operation{{"add", fmt.Sprintf("/spec/rules/%d/from", i), fromPrincipal("notPrincipals", c.Value)}}
	}
	var ops []operation
	for j := range rule.From {
		ops = append(ops, into(fmt.Sprintf("/spec/rules/%d/from/%d/source/%s", i, j, at[5]), fieldLists(rule, "from", j, at[5]), c.Value))
	}
	return ops
}

// into adds a value to a list, or a list of it.
func into(path string, there bool, value string) operation {
	if there {
		return operation{"add", path + "/-", value}
	}
	return operation{"add", path, []string{value}}
}

// fieldLists says whether a field of a source or an operation lists something.
func fieldLists(r *securityapi.Rule, part string, j int, field string) bool {
	p := &securityv1.AuthorizationPolicy{}
	p.Spec.Rules = []*securityapi.Rule{r}
	at := fmt.Sprintf("spec.rules[0].%s[%d].source.%s", part, j, field)
	if part == "to" {
		at = fmt.Sprintf("spec.rules[0].to[%d].operation.%s", j, field)
	}
	return slices.ContainsFunc(lists(p), func(l listed) bool { return l.field == at })
}
