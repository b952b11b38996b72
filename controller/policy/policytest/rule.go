package policytest

import (
	"math/rand/v2"

	securityapi "istio.io/api/security/v1beta1"
)

// Words are what policies are made of. A list that is empty leaves its fields out.
type Words struct {
	Principals, Namespaces, Accounts, Domains, Blocks, Ports []string
	Methods, Paths, Hosts                                    []string
	// Subjects are request principals, Texts what headers and claims are compared with.
	Subjects, Texts []string
	// Keys of conditions, by the words that go with them. Others than these keys take Texts.
	Keys []string
	// Often is one in how many fields is set. Zero means 4.
	Often int
}

// Pick is one of list.
func Pick[T any](rng *rand.Rand, list []T) T { return list[rng.IntN(len(list))] }

// some is mostly nothing, else one or two of list.
func (w *Words) some(rng *rand.Rand, list []string) (few []string) {
	often := w.Often
	if often == 0 {
		often = 4
	}
	if len(list) == 0 || rng.IntN(often) != 0 {
		return nil
	}
	for range 1 + rng.IntN(2) {
		few = append(few, Pick(rng, list))
	}
	return few
}

// Rule is a random rule.
func (w *Words) Rule(rng *rand.Rand) *securityapi.Rule {
	r := &securityapi.Rule{}
	for range rng.IntN(3) {
		s := &securityapi.Source{
			Principals: w.some(rng, w.Principals), NotPrincipals: w.some(rng, w.Principals), Namespaces: w.some(rng, w.Namespaces), NotNamespaces: w.some(rng, w.Namespaces),
			TrustDomains: w.some(rng, w.Domains), NotTrustDomains: w.some(rng, w.Domains), IpBlocks: w.some(rng, w.Blocks), NotIpBlocks: w.some(rng, w.Blocks),
			RequestPrincipals: w.some(rng, w.Subjects), NotRequestPrincipals: w.some(rng, w.Subjects),
		}
		if len(w.Subjects) > 0 {
			s.RemoteIpBlocks, s.NotRemoteIpBlocks = w.some(rng, w.Blocks), w.some(rng, w.Blocks)
		}
		if len(s.Principals)+len(s.NotPrincipals)+len(s.Namespaces)+len(s.NotNamespaces) == 0 { // the API refuses both
			s.ServiceAccounts, s.NotServiceAccounts = w.some(rng, w.Accounts), w.some(rng, w.Accounts)
		}
		r.From = append(r.From, &securityapi.Rule_From{Source: s})
	}
	for range rng.IntN(3) {
		r.To = append(r.To, &securityapi.Rule_To{Operation: &securityapi.Operation{
			Ports: w.some(rng, w.Ports), NotPorts: w.some(rng, w.Ports), Methods: w.some(rng, w.Methods), NotMethods: w.some(rng, w.Methods),
			Paths: w.some(rng, w.Paths), NotPaths: w.some(rng, w.Paths), Hosts: w.some(rng, w.Hosts), NotHosts: w.some(rng, w.Hosts),
		}})
	}
	if len(w.Keys) > 0 && rng.IntN(4) == 0 {
		c := &securityapi.Condition{Key: Pick(rng, w.Keys)}
		values := w.of(c.Key)
		c.Values, c.NotValues = w.some(rng, values), w.some(rng, values)
		if len(c.Values)+len(c.NotValues) == 0 {
			c.Values = []string{Pick(rng, values)}
		}
		r.When = append(r.When, c)
	}
	return r
}

// of are the words that go with a key.
func (w *Words) of(key string) []string {
	switch key {
	case "source.ip", "remote.ip", "destination.ip":
		return w.Blocks
	case "source.namespace":
		return w.Namespaces
	case "source.principal":
		return w.Principals
	case "source.serviceAccount":
		return w.Accounts
	case "source.trustDomain":
		return w.Domains
	case "destination.port":
		return w.Ports
	case "request.auth.principal":
		return w.Subjects
	}
	return w.Texts
}
