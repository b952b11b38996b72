package policy

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	securityapi "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/isthmus-mesh/isthmus/hbone/authz"
)

// l4Rules are the rules of a policy as istiod sends them to ztunnel. A rule of an ALLOW policy with a condition that only HTTP has is left
// out. In a DENY policy such conditions are left out, and what then is empty never matches.
func l4Rules(p *securityv1.AuthorizationPolicy) []rule {
	var rules []rule
	for i, r := range p.Spec.Rules {
		if r == nil || p.Spec.Action == securityapi.AuthorizationPolicy_ALLOW && OnlyHTTP(r) {
			continue
		}
		at := fmt.Sprintf("rules[%d].", i)
		compiled := rule{policy: refOf(kindAuthorizationPolicy, p), index: i}
		if len(r.To) > 0 {
			c := clause{}
			for j, to := range r.To {
				op := to.GetOperation()
				c = c.orL4(l4Fields{at: fmt.Sprintf("%sto[%d].operation.", at, j)}.
					add("ports", OnDestinationPort, authz.Match{DestinationPorts: ports(op.GetPorts())}, len(ports(op.GetPorts()))).
					add("notPorts", OnDestinationPort, authz.Match{NotPorts: ports(op.GetNotPorts())}, len(ports(op.GetNotPorts()))))
			}
			compiled.clauses = append(compiled.clauses, c)
		}
		if len(r.From) > 0 {
			c := clause{}
			for j, from := range r.From {
				c = c.orL4(l4Source(fmt.Sprintf("%sfrom[%d].source.", at, j), from.GetSource(), p.Namespace))
			}
			compiled.clauses = append(compiled.clauses, c)
		}
		for j, when := range r.When {
			compiled.clauses = append(compiled.clauses, clause{}.orL4(l4Condition(fmt.Sprintf("%swhen[%d].", at, j), when)))
		}
		rules = append(rules, compiled)
	}
	return rules
}

// OnlyHTTP says whether a rule has a condition that ztunnel does not know: it leaves such a rule out of an ALLOW policy.
func OnlyHTTP(r *securityapi.Rule) bool {
	for _, to := range r.To {
		op := to.GetOperation()
		if len(op.GetHosts())+len(op.GetNotHosts())+len(op.GetMethods())+len(op.GetNotMethods())+len(op.GetPaths())+len(op.GetNotPaths()) > 0 {
			return true
		}
	}
	for _, from := range r.From {
		s := from.GetSource()
		if len(s.GetRemoteIpBlocks())+len(s.GetNotRemoteIpBlocks())+len(s.GetRequestPrincipals())+len(s.GetNotRequestPrincipals()) > 0 {
			return true
		}
	}
	for _, when := range r.When {
		switch when.GetKey() {
		case keySourceIP, keyNamespace, keyPrincipal, keyDestIP, keyDestPort:
		default:
			return true
		}
	}
	return false
}

// The keys of conditions.
const (
	keySourceIP         = "source.ip"
	keyRemoteIP         = "remote.ip"
	keyNamespace        = "source.namespace"
	keyAccount          = "source.serviceAccount"
	keyDomain           = "source.trustDomain"
	keyPrincipal        = "source.principal"
	keyDestIP           = "destination.ip"
	keyDestPort         = "destination.port"
	keySNI              = "connection.sni"
	keyRequestPrincipal = "request.auth.principal"
	keyAudiences        = "request.auth.audiences"
	keyPresenter        = "request.auth.presenter"
	keyClaims           = "request.auth.claims"
	keyHeaders          = "request.headers"
	keyEnvoyFilter      = "experimental.envoy.filters."
)

// l4Fields are conditions, each one field of a match.
type l4Fields struct {
	at    string
	conds alternative
}

// add adds a field that has n values.
func (f l4Fields) add(name string, attr Attributes, m authz.Match, n int) l4Fields {
	if n > 0 {
		f.conds = append(f.conds, cond{kind: atZtunnel, attr: attr, field: f.at + name, l4: &m})
	}
	return f
}

// orL4 adds an alternative, if it is not empty: ztunnel never takes an empty one for a match.
func (c clause) orL4(f l4Fields) clause {
	if len(f.conds) == 0 {
		return c
	}
	return append(c, f.conds)
}

func l4Source(at string, s *securityapi.Source, namespace string) l4Fields {
	return l4Fields{at: at}.
		add("principals", OnSource, authz.Match{Principals: matches(s.GetPrincipals())}, len(s.GetPrincipals())).
		add("notPrincipals", OnSource, authz.Match{NotPrincipals: matches(s.GetNotPrincipals())}, len(s.GetNotPrincipals())).
		add("serviceAccounts", OnSource, authz.Match{ServiceAccounts: accounts(s.GetServiceAccounts(), namespace)}, len(s.GetServiceAccounts())).
		add("notServiceAccounts", OnSource, authz.Match{NotServiceAccounts: accounts(s.GetNotServiceAccounts(), namespace)}, len(s.GetNotServiceAccounts())).
		add("namespaces", OnSource, authz.Match{Namespaces: matches(s.GetNamespaces())}, len(s.GetNamespaces())).
		add("notNamespaces", OnSource, authz.Match{NotNamespaces: matches(s.GetNotNamespaces())}, len(s.GetNotNamespaces())).
		add("ipBlocks", OnSourceIP, authz.Match{SourceIPs: prefixes(s.GetIpBlocks())}, len(prefixes(s.GetIpBlocks()))).
		add("notIpBlocks", OnSourceIP, authz.Match{NotSourceIPs: prefixes(s.GetNotIpBlocks())}, len(prefixes(s.GetNotIpBlocks())))
}

func l4Condition(at string, c *securityapi.Condition) l4Fields {
	f := l4Fields{at: at}
	is, not := c.GetValues(), c.GetNotValues()
	switch c.GetKey() {
	case keySourceIP:
		f = f.add("values", OnSourceIP, authz.Match{SourceIPs: prefixes(is)}, len(prefixes(is))).
			add("notValues", OnSourceIP, authz.Match{NotSourceIPs: prefixes(not)}, len(prefixes(not)))
	case keyDestIP:
		f = f.add("values", OnDestinationIP, authz.Match{DestinationIPs: prefixes(is)}, len(prefixes(is))).
			add("notValues", OnDestinationIP, authz.Match{NotDestinationIPs: prefixes(not)}, len(prefixes(not)))
	case keyDestPort:
		f = f.add("values", OnDestinationPort, authz.Match{DestinationPorts: ports(is)}, len(ports(is))).
			add("notValues", OnDestinationPort, authz.Match{NotPorts: ports(not)}, len(ports(not)))
	case keyNamespace:
		f = f.add("values", OnSource, authz.Match{Namespaces: matches(is)}, len(is)).
			add("notValues", OnSource, authz.Match{NotNamespaces: matches(not)}, len(not))
	case keyPrincipal:
		f = f.add("values", OnSource, authz.Match{Principals: matches(is)}, len(is)).
			add("notValues", OnSource, authz.Match{NotPrincipals: matches(not)}, len(not))
	}
	return f
}

// ports reads ports, and leaves out what is none.
func ports(values []string) []uint16 {
	var list []uint16
	for _, v := range values {
		if p, err := strconv.ParseUint(v, 10, 16); err == nil {
			list = append(list, uint16(p))
		}
	}
	return list
}

// prefixes reads addresses and blocks of them, and leaves out what is neither.
func prefixes(values []string) []netip.Prefix {
	var list []netip.Prefix
	for _, v := range values {
		if p, ok := prefix(v); ok {
			list = append(list, p)
		}
	}
	return list
}

func prefix(v string) (netip.Prefix, bool) {
	if strings.Contains(v, "/") {
		p, err := netip.ParsePrefix(v)
		return p.Masked(), err == nil
	}
	a, err := netip.ParseAddr(v)
	if err != nil {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a.WithZone(""), a.BitLen()), true
}

// accounts reads service accounts: ns/name, or name in the policy's namespace.
func accounts(values []string, namespace string) []authz.ServiceAccount {
	var list []authz.ServiceAccount
	for _, v := range values {
		ns, name, ok := strings.Cut(v, "/")
		if !ok {
			ns, name = namespace, v
		}
		list = append(list, authz.ServiceAccount{Namespace: ns, Name: name})
	}
	return list
}
