package check

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	typev1beta1 "istio.io/api/type/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/isthmus-mesh/isthmus/controller/policy"
)

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

// narrower is what to create in place of adding to an ALLOW that is for a whole namespace, a whole waypoint or the mesh, or "".
func (w *World) narrower(p *securityv1.AuthorizationPolicy) string {
	refs := targetRefsOf(&p.Spec)
	switch {
	case p.Spec.Action != actionAllow:
		return ""
	case len(refs) == 0 && (p.Namespace == w.Root() || len(p.Spec.Selector.GetMatchLabels()) == 0):
		return "create an ALLOW with a selector for these pods"
	case slices.ContainsFunc(refs, func(r *typev1beta1.PolicyTargetReference) bool {
		return r.GetKind() == "GatewayClass" || r.GetKind() == policy.KindGateway
	}):
		return "create an ALLOW with targetRefs to this Service"
	}
	return ""
}

// patch is the commands that make changes of AuthorizationPolicies; empty, when one of them is for people to make.
func (w *World) patch(changes []policy.Change) (text string) {
	byRef := w.guard().byRef
	p := policy.NewPatcher(func(r policy.Ref) *securityv1.AuthorizationPolicy { return byRef[r] })
	for _, c := range changes {
		if !p.Add(c) {
			return ""
		}
	}
	whole := true
	p.Each(func(ref policy.Ref, ops []policy.Operation) {
		body, err := json.Marshal(ops)
		whole = whole && err == nil && !bytes.ContainsRune(body, '\'')
		text += fmt.Sprintf("kubectl patch authorizationpolicies.security.istio.io -n %s %s --type=json -p '%s'\n", ref.Namespace, ref.Name, body)
	})
	if !whole {
		return ""
	}
	return text
}
