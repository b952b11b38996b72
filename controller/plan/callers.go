package plan

import (
	"cmp"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	securityapi "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
)

// somebody stands for a part of an identity that no condition asks for.
const somebody = "isthmus-somebody"

// maxCallers bounds how many callers of a point are tried, each counted once. Policies that tell apart more are not looked at further.
const maxCallers = 2048

// callers are identities between which policies may tell: for each value of a condition on the source one that has it, and a stranger. Those of
// conditions that go together are put together.
func (m *maker) callers(list []*securityv1.AuthorizationPolicy) []spiffeid.ID {
	ids := m.ids(somebody, somebody)
	seen := map[spiffeid.ID]bool{}
	add := func(more []spiffeid.ID) {
		for _, id := range more {
			if !seen[id] && len(ids) < maxCallers {
				seen[id], ids = true, append(ids, id)
			}
		}
	}
	for _, p := range list {
		for _, r := range p.Spec.GetRules() {
			var sources []*securityapi.Source
			for _, from := range r.GetFrom() {
				sources = append(sources, from.GetSource())
			}
			if len(sources) == 0 {
				sources = append(sources, nil)
			}
			for _, s := range sources {
				if len(ids) < maxCallers {
					add(m.callersOf(p.Namespace, s, r.GetWhen()))
				}
			}
		}
	}
	slices.SortFunc(ids, func(a, b spiffeid.ID) int { return cmp.Compare(a.String(), b.String()) })
	return slices.Compact(ids)
}

// callersOf are those of one source, and of the conditions that a request must meet with it.
func (m *maker) callersOf(namespace string, s *securityapi.Source, when []*securityapi.Condition) []spiffeid.ID {
	principals := slices.Concat(s.GetPrincipals(), s.GetNotPrincipals())
	namespaces := slices.Concat(s.GetNamespaces(), s.GetNotNamespaces())
	accounts := slices.Concat(s.GetServiceAccounts(), s.GetNotServiceAccounts())
	for _, c := range when {
		values := slices.Concat(c.GetValues(), c.GetNotValues())
		switch c.GetKey() {
		case "source.principal":
			principals = append(principals, values...)
		case "source.namespace":
			namespaces = append(namespaces, values...)
		case "source.serviceAccount":
			accounts = append(accounts, values...)
		}
	}
	var texts []string
	names := []string{somebody} // of accounts
	for _, v := range principals {
		text := m.complete(v)
		texts = append(texts, text)
		names = append(names, text[strings.LastIndex(text, "/")+1:])
	}
	for _, v := range accounts {
		ns, name, ok := strings.Cut(v, "/")
		if !ok {
			ns, name = namespace, v
		}
		texts = append(texts, m.trustDomain()+"/ns/"+ns+"/sa/"+name)
		names = append(names, name)
	}
	const most = 64 // of each that goes with every other
	for i, v := range namespaces {
		with := names[:1]
		if i < most {
			with = names[:min(len(names), most)]
		}
		for _, name := range with {
			texts = append(texts, m.trustDomain()+"/ns/"+strings.ReplaceAll(v, "*", "x")+"/sa/"+name)
		}
	}
	for i := range texts {
		texts[i] = "spiffe://" + texts[i]
	}
	return parseIDs(texts)
}

// complete makes of a principal, which may begin or end with *, one that is whole and has it.
func (m *maker) complete(v string) string {
	whole := []string{m.trustDomain(), "ns", somebody, "sa", somebody}
	start, isPrefix := strings.CutSuffix(v, "*")
	end, isSuffix := strings.CutPrefix(v, "*")
	switch {
	case v == "*":
	case isPrefix:
		parts := strings.Split(start, "/")
		for i := range parts[:min(len(parts), len(whole))] {
			if i < len(parts)-1 || !strings.HasPrefix(whole[i], parts[i]) {
				whole[i] = parts[i]
			}
		}
	case isSuffix:
		parts := strings.Split(end, "/")
		for i := range min(len(parts), len(whole)) {
			at, from := len(whole)-1-i, len(parts)-1-i
			if from > 0 || !strings.HasSuffix(whole[at], parts[from]) {
				whole[at] = parts[from]
			}
		}
	default:
		return v
	}
	return strings.Join(whole, "/")
}
