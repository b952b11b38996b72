package check

import (
	"fmt"
	"slices"
	"strings"

	securityapi "istio.io/api/security/v1beta1"
	typev1beta1 "istio.io/api/type/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

const (
	groupSecurity             = "security.istio.io"
	groupGateways             = "gateway.networking.k8s.io"
	kindAuthorizationPolicy   = "AuthorizationPolicy"
	kindRequestAuthentication = "RequestAuthentication"
	kindPeerAuthentication    = "PeerAuthentication"

	actionAllow  = securityapi.AuthorizationPolicy_ALLOW
	actionDeny   = securityapi.AuthorizationPolicy_DENY
	actionCustom = securityapi.AuthorizationPolicy_CUSTOM
	actionAudit  = securityapi.AuthorizationPolicy_AUDIT
)

// securityObject names a policy object of Istio.
func securityObject(kind string, o metav1.Object) Object {
	return Object{groupSecurity, kind, types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}}
}

func accessObject(p *securityv1.AuthorizationPolicy) Object {
	return securityObject(kindAuthorizationPolicy, p)
}

func gatewayNamed(key types.NamespacedName) Object { return Object{groupGateways, "Gateway", key} }

func serviceNamed(key types.NamespacedName) Object { return Object{"", "Service", key} }

// both is the severities of a check that is less sure in files, where other objects may be in the cluster.
func both() []v1alpha1.Severity {
	return []v1alpha1.Severity{v1alpha1.SeverityError, v1alpha1.SeverityWarning}
}

func onlyError() []v1alpha1.Severity   { return []v1alpha1.Severity{v1alpha1.SeverityError} }
func onlyWarning() []v1alpha1.Severity { return []v1alpha1.Severity{v1alpha1.SeverityWarning} }
func onlyInfo() []v1alpha1.Severity    { return []v1alpha1.Severity{v1alpha1.SeverityInfo} }

// ifWhole is Error where the whole cluster is seen, and Warning in files.
func (w *World) ifWhole() v1alpha1.Severity {
	if w.Paper {
		return v1alpha1.SeverityWarning
	}
	return v1alpha1.SeverityError
}

// targeting is the spec of a policy that may have targetRefs.
type targeting interface {
	GetTargetRef() *typev1beta1.PolicyTargetReference
	GetTargetRefs() []*typev1beta1.PolicyTargetReference
}

// targetRefsOf are the targetRefs of a policy; the old field counts where there are none.
func targetRefsOf(spec targeting) []*typev1beta1.PolicyTargetReference {
	if one := spec.GetTargetRef(); len(spec.GetTargetRefs()) == 0 && one != nil {
		return []*typev1beta1.PolicyTargetReference{one}
	}
	return spec.GetTargetRefs()
}

// selectorText says what a policy without targetRefs is for.
func (w *World) selectorText(namespace string, selector *typev1beta1.WorkloadSelector) string {
	switch {
	case selector != nil:
		var parts []string
		for _, k := range sortedKeys(selector.GetMatchLabels()) {
			parts = append(parts, k+"="+selector.GetMatchLabels()[k])
		}
		text := "pods labelled " + strings.Join(parts, ",")
		if namespace == w.Root() {
			return text + " of every namespace"
		}
		return text
	case namespace == w.Root():
		return "all pods of the mesh"
	}
	return "all pods of namespace " + namespace
}

// waypointReads says whether a waypoint is what enforces a policy, by what its targetRefs name.
func (w *World) waypointReads(namespace string, spec targeting) bool {
	return slices.ContainsFunc(targetRefsOf(spec), func(r *typev1beta1.PolicyTargetReference) bool {
		switch r.GetKind() {
		case policy.KindService, policy.KindServiceEntry:
			return true
		case policy.KindGateway:
			g := w.gateways[types.NamespacedName{Namespace: namespace, Name: r.GetName()}]
			return g != nil && w.IsWaypoint(g)
		case "GatewayClass":
			return r.GetName() == policy.WaypointClass && namespace == w.Root()
		}
		return false
	})
}

// listed is a field of a rule that lists values.
type listed struct {
	rule   int
	name   string // as in the API: principals, notPaths; of a condition its key
	field  string // in the object
	values []string
	not    bool
}

// lists are all fields of a policy that list values.
func lists(p *securityv1.AuthorizationPolicy) (all []listed) {
	for i, r := range p.Spec.Rules {
		add := func(at, name string, is, not []string) {
			if len(is) > 0 {
				all = append(all, listed{i, name, at + name, is, false})
			}
			if len(not) > 0 {
				n := "not" + strings.ToUpper(name[:1]) + name[1:]
				all = append(all, listed{i, n, at + n, not, true})
			}
		}
		for j, from := range r.GetFrom() {
			at, s := fmt.Sprintf("spec.rules[%d].from[%d].source.", i, j), from.GetSource()
			add(at, "principals", s.GetPrincipals(), s.GetNotPrincipals())
			add(at, "serviceAccounts", s.GetServiceAccounts(), s.GetNotServiceAccounts())
			add(at, "namespaces", s.GetNamespaces(), s.GetNotNamespaces())
			add(at, "trustDomains", s.GetTrustDomains(), s.GetNotTrustDomains())
			add(at, "ipBlocks", s.GetIpBlocks(), s.GetNotIpBlocks())
			add(at, "remoteIpBlocks", s.GetRemoteIpBlocks(), s.GetNotRemoteIpBlocks())
			add(at, "requestPrincipals", s.GetRequestPrincipals(), s.GetNotRequestPrincipals())
		}
		for j, to := range r.GetTo() {
			at, op := fmt.Sprintf("spec.rules[%d].to[%d].operation.", i, j), to.GetOperation()
			add(at, "hosts", op.GetHosts(), op.GetNotHosts())
			add(at, "ports", op.GetPorts(), op.GetNotPorts())
			add(at, "methods", op.GetMethods(), op.GetNotMethods())
			add(at, "paths", op.GetPaths(), op.GetNotPaths())
		}
		for j, c := range r.GetWhen() {
			at := fmt.Sprintf("spec.rules[%d].when[%d].", i, j)
			if len(c.GetValues()) > 0 {
				all = append(all, listed{i, c.GetKey(), at + "values", c.GetValues(), false})
			}
			if len(c.GetNotValues()) > 0 {
				all = append(all, listed{i, c.GetKey(), at + "notValues", c.GetNotValues(), true})
			}
		}
	}
	return all
}

// plainName is the name of a field without its "not", and that of the source's field for a condition on the source.
func (l *listed) plainName() string {
	switch l.name {
	case "source.principal":
		return "principals"
	case "source.namespace":
		return "namespaces"
	case "source.serviceAccount":
		return "serviceAccounts"
	case "source.trustDomain":
		return "trustDomains"
	case "source.ip":
		return "ipBlocks"
	case "remote.ip":
		return "remoteIpBlocks"
	case "destination.port":
		return "ports"
	case "request.auth.principal":
		return "requestPrincipals"
	}
	name, ok := strings.CutPrefix(l.name, "not")
	if !ok {
		return l.name
	}
	return strings.ToLower(name[:1]) + name[1:]
}

// ofToken says whether a field asks for a token.
func (l *listed) ofToken() bool {
	return l.plainName() == "requestPrincipals" || strings.HasPrefix(l.name, "request.auth.")
}

// effect says what comes of a field that never matches: in an ALLOW or another policy, as a positive or a negated list.
func effect(p *securityv1.AuthorizationPolicy, l *listed) string {
	switch {
	case p.Spec.Action == actionAllow && l.not:
		return "the exception admits everybody"
	case p.Spec.Action == actionAllow:
		return "it lets nobody in"
	case l.not:
		return "the exception is none, and the rule stops those too"
	case p.Spec.Action == actionDeny:
		return "it denies nothing"
	}
	return "it concerns nobody"
}

// quoted lists values for a message.
func quoted(values []string) string {
	var parts []string
	for _, v := range values {
		parts = append(parts, fmt.Sprintf("%q", v))
	}
	return inWords(parts)
}

// inWords joins with commas and an and, and names a few of many.
func inWords(list []string) string {
	const most = 5
	if len(list) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(list[:most-1], ", "), len(list)-most+1)
	}
	if len(list) < 2 {
		return strings.Join(list, "")
	}
	return strings.Join(list[:len(list)-1], ", ") + " and " + list[len(list)-1]
}

// verb is singular or plural, for a number of subjects.
func verb(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// fieldsText lists fields without what stands before them all, for a message.
func fieldsText(fields []string) string {
	var short []string
	for _, f := range fields {
		short = append(short, f[strings.LastIndex(f, ".")+1:])
	}
	slices.Sort(short)
	return inWords(slices.Compact(short))
}

func objectKey(namespace, name string) types.NamespacedName {
	return types.NamespacedName{Namespace: namespace, Name: name}
}
