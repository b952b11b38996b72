package plan

import (
	"slices"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	securityapi "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// TestCallersMeetEveryCondition: of the callers that are tried one at least meets a source as policies write it, and one does not.
func TestCallersMeetEveryCondition(t *testing.T) {
	m := &maker{Snapshot: &Snapshot{}}
	for name, c := range map[string]struct {
		source *securityapi.Source
		when   []*securityapi.Condition
	}{
		"a principal":             {source: &securityapi.Source{Principals: []string{"cluster.local/ns/batch/sa/job"}}},
		"of another trust domain": {source: &securityapi.Source{Principals: []string{"other/ns/batch/sa/job"}}},
		"all of a namespace":      {source: &securityapi.Source{Principals: []string{"cluster.local/ns/batch/*"}}},
		"part of a namespace":     {source: &securityapi.Source{Principals: []string{"cluster.local/ns/bat*"}}},
		"part of the rest":        {source: &securityapi.Source{Principals: []string{"cluster.local/ns/batch/s*"}}},
		"an account anywhere":     {source: &securityapi.Source{Principals: []string{"*/sa/job"}}},
		"the end of an account":   {source: &securityapi.Source{Principals: []string{"*-job"}}},
		"accounts":                {source: &securityapi.Source{ServiceAccounts: []string{"job", "batch/other"}}},
		"namespaces":              {source: &securityapi.Source{Namespaces: []string{"batch-*"}}},
		"both at once":            {source: &securityapi.Source{Namespaces: []string{"batch"}, Principals: []string{"*/sa/job"}}},
		"but for one":             {source: &securityapi.Source{NotPrincipals: []string{"cluster.local/ns/edge/sa/gateway"}}},
		"but in one":              {source: &securityapi.Source{Namespaces: []string{"batch"}, NotPrincipals: []string{"*/sa/job"}}},
		"when": {when: []*securityapi.Condition{
			{Key: "source.namespace", Values: []string{"batch"}}, {Key: "source.principal", Values: []string{"*/sa/job"}},
		}},
	} {
		p := &securityv1.AuthorizationPolicy{Spec: securityapi.AuthorizationPolicy{Action: securityapi.AuthorizationPolicy_DENY, Rules: []*securityapi.Rule{{When: c.when}}}}
		p.Namespace, p.Name = "shop", "p"
		if c.source != nil {
			p.Spec.Rules[0].From = []*securityapi.Rule_From{{Source: c.source}}
		}
		list := []*securityv1.AuthorizationPolicy{p}
		at := m.set(list).Ztunnel(policy.Workload{Namespace: "shop"})
		for _, want := range []policy.Verdict{policy.Deny, policy.Allow} {
			if ids := m.callers(list); !slices.ContainsFunc(ids, func(id spiffeid.ID) bool { return at.Decide(&policy.Request{Source: policy.Of(id)}).Verdict == want }) {
				t.Errorf("%s: nobody gets %v: %v", name, want, ids)
			}
		}
	}
}

// TestCallersAreCountedOnce: many rules may name the same ones.
func TestCallersAreCountedOnce(t *testing.T) {
	m := &maker{Snapshot: &Snapshot{}}
	p := &securityv1.AuthorizationPolicy{}
	for range 3 * maxCallers {
		p.Spec.Rules = append(p.Spec.Rules, &securityapi.Rule{From: []*securityapi.Rule_From{{Source: &securityapi.Source{Principals: []string{"cluster.local/ns/batch/sa/job"}}}}})
	}
	p.Spec.Rules = append(p.Spec.Rules, &securityapi.Rule{From: []*securityapi.Rule_From{{Source: &securityapi.Source{Principals: []string{"cluster.local/ns/batch/sa/last"}}}}})
	ids := m.callers([]*securityv1.AuthorizationPolicy{p})
	if !slices.ContainsFunc(ids, func(id spiffeid.ID) bool { return id.Path() == "/ns/batch/sa/last" }) || len(ids) > 8 {
		t.Errorf("%d callers, and the last is not among them: %v", len(ids), ids[:min(len(ids), 8)])
	}
}
