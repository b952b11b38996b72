package policy

import (
	"fmt"
	"strings"

	securityapi "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/isthmus-mesh/isthmus/hbone/authz"
)

// l7 reads a rule as istiod writes it for a waypoint.
type l7 struct {
	set       *Set
	namespace string // of the policy
	tcp       bool
	allow     bool

	// failed says that the rule is left out.
	failed bool
}

// l7Rules are the rules of a policy at a waypoint. A rule of an ALLOW policy that cannot be had is left out; of other policies only what
// cannot be had is left out of the rule, which then matches more.
func (s *Set) l7Rules(p *securityv1.AuthorizationPolicy, tcp bool) []rule {
	var rules []rule
	for i, r := range p.Spec.Rules {
		if r == nil {
			continue
		}
		b := l7{set: s, namespace: p.Namespace, tcp: tcp, allow: p.Spec.Action == securityapi.AuthorizationPolicy_ALLOW}
		compiled := rule{policy: refOf(kindAuthorizationPolicy, p), index: i, clauses: b.clauses(fmt.Sprintf("rules[%d].", i), r)}
		if !b.failed {
			rules = append(rules, compiled)
		}
	}
	return rules
}

func (b *l7) clauses(at string, r *securityapi.Rule) []clause {
	var clauses []clause
	if len(r.From) > 0 {
		c := clause{}
		for i, from := range r.From {
			c = append(c, b.source(fmt.Sprintf("%sfrom[%d].source.", at, i), from.GetSource()))
		}
		clauses = append(clauses, c)
	}
	if len(r.To) > 0 {
		c := clause{}
		for i, to := range r.To {
			c = append(c, b.operation(fmt.Sprintf("%sto[%d].operation.", at, i), to.GetOperation()))
		}
		clauses = append(clauses, c)
	}
	for i, when := range r.When {
		clauses = append(clauses, clause{b.condition(fmt.Sprintf("%swhen[%d].", at, i), when)})
	}
	return clauses
}

// reader makes a condition of values; ok is false when no value can be read, and all when each can.
type reader func(values []string) (c cond, some, all bool)

// field adds a field's values and notValues.
func (b *l7) field(a alternative, at, name string, is, not []string, read reader) alternative {
	return b.one(b.one(a, at+name, is, false, read), at+"not"+strings.ToUpper(name[:1])+name[1:], not, true, read)
}

func (b *l7) one(a alternative, field string, values []string, not bool, read reader) alternative {
	if len(values) == 0 {
		return a
	}
	c, some, all := read(values)
	if !all && b.allow {
		b.failed = true
	}
	if !some {
		return a
	}
	c.field, c.not, c.result = field, not, c.result.flip(not)
	return append(a, c)
}

func (b *l7) source(at string, s *securityapi.Source) (a alternative) {
	a = b.field(a, at, "principals", s.GetPrincipals(), s.GetNotPrincipals(), b.principals)
	a = b.field(a, at, "serviceAccounts", s.GetServiceAccounts(), s.GetNotServiceAccounts(), texts(sourceText, OnSource, accountOf(b.namespace)))
	a = b.field(a, at, "namespaces", s.GetNamespaces(), s.GetNotNamespaces(), texts(sourceText, OnSource, namespaceOf))
	a = b.field(a, at, "trustDomains", s.GetTrustDomains(), s.GetNotTrustDomains(), b.domains)
	a = b.field(a, at, "ipBlocks", s.GetIpBlocks(), s.GetNotIpBlocks(), never(OnSourceIP))
	a = b.field(a, at, "remoteIpBlocks", s.GetRemoteIpBlocks(), s.GetNotRemoteIpBlocks(), b.clientAddresses)
	return b.field(a, at, "requestPrincipals", s.GetRequestPrincipals(), s.GetNotRequestPrincipals(), b.http(requestPrincipals))
}

func (b *l7) operation(at string, op *securityapi.Operation) (a alternative) {
	a = b.field(a, at, "ports", op.GetPorts(), op.GetNotPorts(), destPorts)
	a = b.field(a, at, "methods", op.GetMethods(), op.GetNotMethods(), b.http(texts(method, OnMethod, plain)))
	a = b.field(a, at, "hosts", op.GetHosts(), op.GetNotHosts(), b.http(texts(host, OnHost, folded)))
	return b.field(a, at, "paths", op.GetPaths(), op.GetNotPaths(), b.http(paths))
}

func (b *l7) condition(at string, c *securityapi.Condition) alternative {
	var read reader
	switch k := c.GetKey(); {
	case k == keySourceIP:
		read = never(OnSourceIP)
	case k == keyRemoteIP:
		read = b.clientAddresses
	case k == keyNamespace:
		read = texts(sourceText, OnSource, namespaceOf)
	case k == keyAccount:
		read = texts(sourceText, OnSource, accountOf(b.namespace))
	case k == keyDomain:
		read = b.domains
	case k == keyPrincipal:
		read = b.principals
	case k == keyDestIP:
		read = blocks(destAddress, OnDestinationIP)
	case k == keyDestPort:
		read = destPorts
	case k == keySNI:
		read = noSNI
	case k == keyRequestPrincipal:
		read = b.http(requestPrincipals)
	case k == keyAudiences:
		read = b.http(claims("aud"))
	case k == keyPresenter:
		read = b.http(claims("azp"))
	case strings.HasPrefix(k, keyClaims):
		read = b.http(nested(strings.TrimPrefix(k, keyClaims)))
	case strings.HasPrefix(k, keyHeaders):
		read = b.http(headers(strings.TrimPrefix(k, keyHeaders)))
	case strings.HasPrefix(k, keyEnvoyFilter):
		read = unreadable
	default:
		b.failed = true // istiod leaves out the whole rule
		return nil
	}
	return b.field(nil, at, "values", c.GetValues(), c.GetNotValues(), read)
}

// http reads what a waypoint cannot have on a port of another protocol.
func (b *l7) http(read reader) reader {
	if !b.tcp {
		return read
	}
	return func([]string) (cond, bool, bool) { return cond{}, false, false }
}

func texts(k kind, attr Attributes, one func(string) pattern) reader {
	return func(values []string) (cond, bool, bool) {
		return cond{kind: k, attr: attr, texts: patterns(values, one)}, true, true
	}
}

// never reads addresses that a waypoint does not see: it compares them with one of its own listeners, which has none.
func never(attr Attributes) reader {
	return func(values []string) (cond, bool, bool) {
		n := len(prefixes(values))
		return cond{kind: constant, attr: attr, result: no}, n > 0, n == len(values)
	}
}

func blocks(k kind, attr Attributes) reader {
	return func(values []string) (cond, bool, bool) {
		nets := prefixes(values)
		return cond{kind: k, attr: attr, nets: nets}, len(nets) > 0, len(nets) == len(values)
	}
}

func (b *l7) clientAddresses(values []string) (cond, bool, bool) {
	c, some, all := blocks(clientAddress, OnRemoteIP)(values)
	if b.tcp {
		c.kind, c.result = constant, maybe // there is no X-Forwarded-For
	}
	return c, some, all
}

func destPorts(values []string) (cond, bool, bool) {
	list := ports(values)
	return cond{kind: destPort, attr: OnDestinationPort, ports: list}, len(list) > 0, len(list) == len(values)
}

// noSNI reads server names: a waypoint sees none.
func noSNI(values []string) (cond, bool, bool) {
	return cond{kind: constant, result: anyHolds(patterns(values, plain), "")}, true, true
}

func unreadable([]string) (cond, bool, bool) {
	return cond{kind: constant, attr: OnUnreadable, result: maybe}, true, true
}

func paths(values []string) (cond, bool, bool) {
	c := cond{kind: path, attr: OnPath}
	for _, v := range values {
		if isTemplate(v) {
			c.templates = append(c.templates, newTemplate(v))
		} else {
			c.texts = append(c.texts, plain(v))
		}
	}
	return c, true, true
}

func headers(key string) reader {
	name, ok := bracketed(key)
	return func(values []string) (cond, bool, bool) {
		c := cond{kind: header, attr: OnHeader, name: strings.ToLower(name), texts: patterns(values, plain)}
		for _, v := range values {
			c.present = c.present || v == "*"
		}
		return c, ok, ok
	}
}

// bracketed reads [name].
func bracketed(s string) (string, bool) {
	s, open := strings.CutPrefix(s, "[")
	s, closed := strings.CutSuffix(s, "]")
	return s, open && closed
}

func claims(at ...string) reader {
	return func(values []string) (cond, bool, bool) {
		return cond{kind: claim, attr: OnToken, claims: at, texts: patterns(values, plain)}, true, true
	}
}

// nested reads [claim][claim in it].
func nested(key string) reader {
	inner, ok := bracketed(key)
	if !ok {
		return func([]string) (cond, bool, bool) { return cond{}, false, false }
	}
	return claims(strings.Split(inner, "][")...)
}

// requestPrincipals reads issuer/subject. Where there is no slash, or a *, it is not clear which is which; this is what istiod makes of it.
func requestPrincipals(values []string) (cond, bool, bool) {
	c := cond{kind: requestPrincipal, attr: OnToken}
	exact := func(v string) pattern { return pattern{StringMatch: authz.StringMatch{Value: v}} }
	for _, v := range values {
		iss, sub := v, ""
		at := strings.LastIndex(v, "/")
		if at >= 0 {
			iss, sub = v[:at], v[at+1:]
		}
		var i, s pattern
		switch {
		case v == "*":
			i, s = plain("*"), plain("*")
		case strings.HasPrefix(v, "*") && at >= 0:
			i, s = plain(iss), exact(sub)
		case strings.HasPrefix(v, "*"):
			i, s = plain("*"), plain(v)
		case strings.HasSuffix(v, "*") && at >= 0:
			i, s = exact(iss), plain("*")
			if sub != "*" {
				s = pattern{StringMatch: authz.StringMatch{Kind: authz.Prefix, Value: sub[:len(sub)-1]}}
			}
		case strings.HasSuffix(v, "*"):
			i, s = plain(v), plain("*")
		default:
			i, s = exact(iss), exact(sub)
		}
		c.issuers, c.subjects = append(c.issuers, i), append(c.subjects, s)
	}
	return c, true, true
}

// principals reads principals, and makes of one in the mesh's trust domain one in each of its names.
func (b *l7) principals(values []string) (cond, bool, bool) {
	var all []string
	for _, v := range values {
		all = append(all, b.set.aliases(v)...)
	}
	return texts(sourceText, OnSource, principal)(all)
}

// aliases are the names of a principal. cluster.local stands for the mesh's own trust domain.
func (s *Set) aliases(v string) []string {
	domains := append([]string{s.m.TrustDomain}, s.m.TrustDomainAliases...)
	domain, rest, _ := strings.Cut(v, "/")
	if strings.Count(v, "/") != 4 || domain == "*" {
		return []string{v}
	}
	m := match(domain)
	ours := domain == "cluster.local"
	for _, d := range domains {
		ours = ours || m.Holds(d)
	}
	if !ours {
		return []string{v}
	}
	var list []string
	for _, d := range domains {
		if m.Kind == authz.Suffix && m.Holds(d) {
			list = append(list, v)
			continue
		}
		list = append(list, d+"/"+rest)
	}
	return list
}

// domains reads trust domains, and makes of one of the mesh each of its names.
func (b *l7) domains(values []string) (cond, bool, bool) {
	ours := append([]string{b.set.m.TrustDomain}, b.set.m.TrustDomainAliases...)
	var all []string
	for _, v := range values {
		all = append(all, v)
		for _, d := range ours {
			if d == v {
				all = append(all, ours...)
			}
		}
	}
	return texts(sourceText, OnSource, domainOf)(all)
}
