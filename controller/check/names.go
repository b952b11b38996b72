package check

import (
	"fmt"
	"slices"
	"strings"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// nameChecks are about whom policies name.
func nameChecks() []Check {
	return []Check{
		{
			Code: "ISM216", Title: "a source is written as no caller is", Severities: onlyError(), Pains: []string{"B13"},
			Matter: "A principal has spiffe:// before it, no trust domain, or a * in the middle; a service account has a *; a namespace has a * in the middle where " +
				"ztunnel reads it, or a slash.",
			Harm: "It never matches: an ALLOW lets nobody in, a DENY stops nobody.",
			Fix:  "Write principals as cluster.local/ns/<namespace>/sa/<service account>, with a * at the beginning or the end only.",
			Find: findMisspelt,
		},
		{
			Code: "ISM217", Title: "a principal is of another trust domain", Severities: onlyWarning(), Pains: []string{"B13"},
			Matter: "A principal names a service account that is in this cluster, in a trust domain that the mesh does not have; or cluster.local, where ztunnel " +
				"compares and the mesh has another name.",
			Harm: "It never matches callers of this mesh.",
			Fix:  "Name the mesh's trust domain.",
			Find: findOtherDomains,
		},
		{
			Code: "ISM218", Title: "a policy names who does not exist", Severities: []v1alpha1.Severity{v1alpha1.SeverityWarning, v1alpha1.SeverityInfo},
			Pains:  []string{"B13", "B14", "EI05"},
			Matter: "A policy names a service account or a namespace that is not in the cluster: as after a gateway was renamed, or its class.",
			Harm:   "The value never matches, until somebody makes one of that name, who then is let in.",
			Fix:    "Name who calls, or take the value away.",
			Find:   findMissingAccounts,
		},
		{
			Code: "ISM220", Title: "an allowed gateway has routes of others to the same Services", Severities: onlyInfo(), Pains: []string{"EI07"},
			Matter: "A policy allows the principal of a gateway, and routes of other namespaces send to Services of the policy's namespace through it.",
			Harm:   "Whoever may write these routes decides what of those Services is open to the outside, and in which way.",
			Fix:    "Narrow the rule by hosts and paths at the waypoint, take back the ReferenceGrant, or give each team a gateway.",
			Find:   findSharedIdentities,
		},
	}
}

func findMisspelt(w *World, found func(Finding)) {
	for _, p := range w.Policies {
		atPods := len(targetRefsOf(&p.Spec)) == 0
		for _, l := range lists(p) {
			for _, v := range l.values {
				why, better := "", ""
				switch l.plainName() {
				case "principals":
					why, better = oddPrincipal(v)
				case "serviceAccounts":
					switch {
					case strings.Contains(v, "*"):
						why = "a * is taken literally in service accounts"
					case strings.Count(v, "/") > 1:
						why = "a service account is <namespace>/<name>"
					}
				case "namespaces":
					switch {
					case strings.Contains(v, "/"):
						why = "no namespace has a slash"
					case atPods && strings.Contains(strings.Trim(v, "*"), "*"), atPods && len(v) > 1 && strings.HasPrefix(v, "*") && strings.HasSuffix(v, "*"):
						why = "ztunnel takes a * literally that is neither at the beginning nor at the end alone"
					}
				}
				if why == "" {
					continue
				}
				fix := "correct it"
				if better != "" {
					fix = "write " + better
				}
				found(Finding{
					Object: accessObject(p), Field: l.field, Fix: fix,
					Message: fmt.Sprintf("%q never matches: %s; with that value alone %s", v, why, effect(p, &l)),
				})
			}
		}
	}
}

// oddPrincipal says why a principal is none that a caller can have, and what may be meant.
func oddPrincipal(v string) (why, better string) {
	inner := strings.TrimSuffix(v, "*")
	if strings.HasPrefix(v, "*") {
		inner = v[1:]
	}
	switch {
	case strings.HasPrefix(v, "spiffe://"):
		return "principals are written without spiffe://", strings.TrimPrefix(v, "spiffe://")
	case strings.Contains(inner, "*"):
		return "a * counts at the beginning or at the end, and not at both or in the middle", ""
	case strings.HasPrefix(v, "ns/"), strings.HasPrefix(v, "/ns/"):
		return "the trust domain is missing", "cluster.local/" + strings.TrimPrefix(v, "/")
	case v != "" && !strings.Contains(v, "/") && !strings.Contains(v, "*"):
		return "it is not <trust domain>/ns/<namespace>/sa/<service account>", ""
	}
	return "", ""
}

// account is a service account that a policy names as a whole.
type account struct{ value, domain, namespace, name string }

// accounts are those of a field.
func (w *World) accounts(l *listed, own string) []account {
	var list []account
	for _, v := range l.values {
		if strings.Contains(v, "*") || strings.HasPrefix(v, "spiffe://") {
			continue
		}
		switch l.plainName() {
		case "principals":
			if parts := strings.Split(v, "/"); len(parts) == 5 && parts[1] == "ns" && parts[3] == "sa" {
				list = append(list, account{v, parts[0], parts[2], parts[4]})
			}
		case "serviceAccounts":
			ns, name, ok := strings.Cut(v, "/")
			if !ok {
				ns, name = own, v
			}
			list = append(list, account{v, w.trustDomain(), ns, name})
		}
	}
	return list
}

// ours says whether a trust domain stands for the mesh's.
func (w *World) ours(domain string) bool {
	return domain == "cluster.local" || domain == w.trustDomain() || slices.Contains(w.Mesh.TrustDomainAliases, domain)
}

func findOtherDomains(w *World, found func(Finding)) {
	if !w.Mesh.Known {
		return
	}
	for _, p := range w.Policies {
		atPods := len(targetRefsOf(&p.Spec)) == 0 && w.podUnder(p.Namespace, p.Spec.Selector) != nil
		for _, l := range lists(p) {
			for _, a := range w.accounts(&l, p.Namespace) {
				var why string
				switch {
				case !w.ours(a.domain) && w.accountThere(a):
					why = fmt.Sprintf("the mesh's trust domain is %s, and service account %s/%s is here", w.trustDomain(), a.namespace, a.name)
				case atPods && a.domain == "cluster.local" && w.trustDomain() != a.domain && !slices.Contains(w.Mesh.TrustDomainAliases, a.domain):
					why = fmt.Sprintf("ztunnel compares it as it is, and the mesh's trust domain is %s", w.trustDomain())
				default:
					continue
				}
				found(Finding{
					Object: accessObject(p), Field: l.field, Message: fmt.Sprintf("%q matches no caller of this mesh: %s", a.value, why),
					Fix: fmt.Sprintf("write %s/ns/%s/sa/%s", w.trustDomain(), a.namespace, a.name),
				})
			}
		}
	}
}

// accountThere says whether a service account is seen: as an object, or in use by a pod.
func (w *World) accountThere(a account) bool {
	key := objectKey(a.namespace, a.name)
	return w.ServiceAccounts[key] || w.guard().users[key]
}

func findMissingAccounts(w *World, found func(Finding)) {
	knowsAccounts, knowsNamespaces := w.Knows(schema.GroupKind{Kind: "ServiceAccount"}), w.Knows(schema.GroupKind{Kind: "Namespace"})
	between := w.manyClusters()
	there := map[string]bool{} // namespaces of files that show their service accounts and who uses them
	if w.Paper {
		for k := range w.ServiceAccounts {
			there[k.Namespace] = there[k.Namespace] || len(w.pods[k.Namespace]) > 0
		}
	}
	for _, p := range w.Policies {
		for _, l := range lists(p) {
			for _, a := range w.accounts(&l, p.Namespace) {
				f := Finding{Object: accessObject(p), Field: l.field, Severity: missingSeverity(p, &l, between)}
				switch {
				case !w.ours(a.domain):
					continue
				case knowsNamespaces && w.namespaces[a.namespace] == nil:
					f.Message = fmt.Sprintf("%q matches nobody of this cluster: there is no namespace %s", a.value, a.namespace)
				case a.name == "default" || w.accountThere(a) || !knowsAccounts && !there[a.namespace]:
					continue
				case w.Paper:
					f.Severity, f.Message = v1alpha1.SeverityInfo, fmt.Sprintf("%q matches nobody in the files: they have no service account %s in namespace %s", a.value,
						a.name, a.namespace)
				default:
					f.Message = fmt.Sprintf("%q matches nobody of this cluster: namespace %s has no service account %s; with that value alone %s", a.value, a.namespace,
						a.name, effect(p, &l))
				}
				f.Fix = w.whoElse(a.namespace)
				found(f)
			}
			if l.plainName() == "namespaces" && knowsNamespaces {
				w.missingNamespaces(p, &l, between, found)
			}
		}
	}
}

func (w *World) missingNamespaces(p *securityv1.AuthorizationPolicy, l *listed, between bool, found func(Finding)) {
	for _, v := range l.values {
		if !strings.Contains(v, "*") && w.namespaces[v] == nil {
			found(Finding{
				Object: accessObject(p), Field: l.field, Severity: missingSeverity(p, l, between),
				Message: fmt.Sprintf("%q matches nobody of this cluster: there is no such namespace; with that value alone %s", v, effect(p, l)),
				Fix:     "correct the name, or take it away",
			})
		}
	}
}

// missingSeverity is how much it matters that a field names nobody: where somebody is to be let in, and no other cluster may have them.
func missingSeverity(p *securityv1.AuthorizationPolicy, l *listed, between bool) v1alpha1.Severity {
	if p.Spec.Action != actionAllow || l.not || between {
		return v1alpha1.SeverityInfo
	}
	return v1alpha1.SeverityWarning
}

// manyClusters says whether a gateway leads to other clusters of the mesh.
func (w *World) manyClusters() bool {
	for i := range w.Gateways {
		name := w.Gateways[i].Spec.GatewayClassName
		if c := w.classes[string(name)]; name == "istio-east-west" || c != nil && c.Spec.ControllerName == "istio.io/eastwest-controller" {
			return true
		}
	}
	return false
}

// gatewayPrincipals are the principals of gateways, by namespace.
func (w *World) gatewayPrincipals() map[string][]string {
	by := map[string][]string{}
	views := w.Views()
	for i := range views {
		for _, id := range idsOf(views[i].Identities) {
			ns, _, _ := strings.Cut(strings.TrimPrefix(id.Path(), "/ns/"), "/sa/")
			by[ns] = append(by[ns], principalText(id))
		}
	}
	for ns, ids := range by {
		slices.Sort(ids)
		by[ns] = slices.Compact(ids)
	}
	return by
}

// whoElse names the gateways that a namespace has, one of which may be meant.
func (w *World) whoElse(namespace string) string {
	ids := w.guard().gateways.of(w.gatewayPrincipals)[namespace]
	if len(ids) == 0 {
		return "name who calls, or take the value away"
	}
	return fmt.Sprintf("name who calls, or take the value away; the gateways there are %s", inWords(ids))
}
