package check

import (
	"fmt"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	securityapi "istio.io/api/security/v1beta1"
	typev1beta1 "istio.io/api/type/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// podPolicyChecks are about policies that are attached to pods, before which ztunnel stands.
func podPolicyChecks() []Check {
	return []Check{
		{
			Code: "ISM211", Title: "an ALLOW of requests is attached to pods", Severities: onlyError(), Pains: []string{"B2", "B4", "EI03"},
			Matter: "A rule of an ALLOW policy that is attached by selector or namespace asks for hosts, methods, paths, headers or tokens. ztunnel reads no " +
				"requests, and leaves the whole rule out.",
			Harm: "What the rule is to allow is refused, unless another rule allows it.",
			Fix:  "Attach the policy to the Service by targetRefs, so that its waypoint enforces it, and admit the waypoint at the pods.",
			Find: podPolicies(actionAllow, allowOfRequests),
		},
		{
			Code: "ISM212", Title: "a DENY of requests is attached to pods, and denies nothing", Severities: onlyError(), Pains: []string{"B3", "B4"},
			Matter: "A rule of a DENY policy that is attached by selector or namespace asks for hosts, methods, paths, headers or tokens alone in one of its parts. " +
				"ztunnel does not know them, and takes what is left for no match.",
			Harm: "The rule denies nothing, though the status of the policy may say that it is more restrictive.",
			Fix:  "Attach the policy to the Service by targetRefs, so that its waypoint enforces it.",
			Find: podPolicies(actionDeny, denyOfNothing),
		},
		{
			Code: "ISM213", Title: "a policy at pods is wider than it is written", Severities: both(), Pains: []string{"B3", "B13"},
			Matter: "ztunnel leaves fields that it does not know out of a source or an operation, and keeps those that stand beside them: a port beside a path, a " +
				"namespace beside a trust domain.",
			Harm: "A DENY denies the whole port or caller, an ALLOW lets in callers of every trust domain.",
			Fix:  "Attach the policy by targetRefs, or take the fields apart into rules of their own.",
			Find: findWidened,
		},
		{
			Code: "ISM214", Title: "CUSTOM or AUDIT is attached to pods, and nobody enforces it", Severities: both(), Pains: []string{"B2", "B8"},
			Matter: "A policy with action CUSTOM or AUDIT is attached by selector or namespace to pods before which ztunnel stands. istiod does not send it there.",
			Harm:   "No external authorizer is asked, and all is let through; nothing is audited.",
			Fix:    "Attach it to the Service by targetRefs, so that its waypoint enforces it.",
			Find:   findUnsent,
		},
		{
			Code: "ISM222", Title: "an ALLOW by exceptions lets in who has no identity", Severities: onlyWarning(), Pains: []string{"B12"},
			Matter: "An ALLOW policy at pods says only who is not let in, by principals, namespaces or service accounts, and nothing asks for mTLS. Who calls in " +
				"plaintext has no identity, and so is none of those.",
			Harm: "Every pod outside the mesh gets in.",
			Fix:  "Say who is let in; or set PeerAuthentication STRICT.",
			Find: findPlaintextAdmitted,
		},
		{
			Code: "ISM224", Title: "a selector without labels selects no pod", Severities: onlyError(), Pains: []string{"B14"},
			Matter: "An AuthorizationPolicy has an empty selector. ztunnel enforces it at no pod; to be for all pods of a namespace, it must have none.",
			Harm:   "A DENY denies nothing, an ALLOW restricts nobody.",
			Fix:    "Take the selector away, or give it labels.",
			Find:   findEmptySelectors,
		},
	}
}

// podPolicies looks at each rule of the policies with an action before which ztunnel stands.
func podPolicies(action securityapi.AuthorizationPolicy_Action, one func(*World, *securityv1.AuthorizationPolicy, *plan.Pod, policy.Reading) (Finding,
	bool)) func(*World, func(Finding)) {
	return func(w *World, found func(Finding)) {
		for _, p := range w.Policies {
			if p.Spec.Action != action || len(targetRefsOf(&p.Spec)) > 0 {
				continue
			}
			var pod *plan.Pod
			for _, r := range policy.AtZtunnel(p) {
				if len(r.Lost) == 0 {
					continue
				}
				if pod == nil {
					if pod = w.podUnder(p.Namespace, p.Spec.Selector); pod == nil {
						break
					}
				}
				if f, ok := one(w, p, pod, r); ok {
					f.Object, f.Field = accessObject(p), fmt.Sprintf("spec.rules[%d]", r.Rule)
					found(f)
				}
			}
		}
	}
}

func onlyDomains(fields []string) bool {
	for _, f := range fields {
		if !strings.HasSuffix(strings.ToLower(f), "trustdomains") {
			return false
		}
	}
	return true
}

func allowOfRequests(w *World, p *securityv1.AuthorizationPolicy, _ *plan.Pod, r policy.Reading) (Finding, bool) {
	if !r.Void {
		return Finding{}, false
	}
	rest := "what it is to allow is refused, unless another rule allows it"
	if whole(p) {
		rest = "it allows nothing, and refuses all"
	}
	f := Finding{Fix: w.attachInstead(p.Namespace, p.Spec.Selector)}
	f.Message = fmt.Sprintf("ztunnel enforces this before %s, knows nothing of %s, and leaves the rule out: %s", w.selectorText(p.Namespace, p.Spec.Selector),
		fieldsText(r.Lost), rest)
	if onlyDomains(r.Lost) {
		f.Message = fmt.Sprintf("ztunnel enforces this before %s and does not look at trustDomains, without which the rule is empty: %s",
			w.selectorText(p.Namespace, p.Spec.Selector), rest)
		f.Fix = "name principals of that trust domain, as in other.example/*, in place of trustDomains"
	}
	return f, true
}

// whole says whether all rules of a policy are void before pods.
func whole(p *securityv1.AuthorizationPolicy) bool {
	for _, r := range policy.AtZtunnel(p) {
		if !r.Void {
			return false
		}
	}
	return true
}

func denyOfNothing(w *World, p *securityv1.AuthorizationPolicy, _ *plan.Pod, r policy.Reading) (Finding, bool) {
	f := Finding{Fix: w.attachInstead(p.Namespace, p.Spec.Selector)}
	what := "knows nothing of " + fieldsText(r.Lost)
	if onlyDomains(r.Lost) {
		what = "does not look at trustDomains"
	}
	switch {
	case r.Void:
		f.Message = fmt.Sprintf("ztunnel enforces this before %s and %s, so that the rule matches nothing: it denies nobody", w.selectorText(p.Namespace,
			p.Spec.Selector), what)
	case !r.Wider:
		f.Message = fmt.Sprintf("ztunnel enforces this before %s and %s: that part of the rule denies nobody", w.selectorText(p.Namespace, p.Spec.Selector), what)
	default:
		return f, false
	}
	return f, true
}

func findWidened(w *World, found func(Finding)) {
	wider := func(w *World, p *securityv1.AuthorizationPolicy, _ *plan.Pod, r policy.Reading) (Finding, bool) {
		f := Finding{Fix: w.attachInstead(p.Namespace, p.Spec.Selector)}
		f.Message = fmt.Sprintf("ztunnel enforces this before %s, leaves out %s and keeps what stands beside: ", w.selectorText(p.Namespace, p.Spec.Selector),
			fieldsText(r.Lost))
		if p.Spec.Action == actionDeny {
			f.Message += "the rule denies more than is written"
		} else {
			f.Message += "the rule lets in callers of other trust domains too"
			f.Fix = "name principals in place of trust domains"
		}
		if onlyDomains(r.Lost) {
			f.Severity = v1alpha1.SeverityWarning
		}
		return f, r.Wider
	}
	podPolicies(actionDeny, wider)(w, found)
	podPolicies(actionAllow, wider)(w, found)
}

// attachInstead is how a policy comes to be enforced at a waypoint.
func (w *World) attachInstead(namespace string, selector *typev1beta1.WorkloadSelector) string {
	pods := w.carriedPods(namespace, selector)
	if selector == nil || len(pods) == 0 {
		return "have waypoints enforce it: by targetRefs to the Services, in place of a policy for all pods"
	}
	services := w.servicesFor(pods[0])
	if len(services) == 0 {
		return "have a waypoint enforce it: by targetRefs to the Service, in place of the selector"
	}
	s := services[0]
	fix := fmt.Sprintf("have a waypoint enforce it: in place of the selector targetRefs: [{group: \"\", kind: Service, name: %s}]", s.Name)
	if _, ok := w.leadsTo(s); !ok {
		fix += ", and label that Service istio.io/use-waypoint"
	}
	return fix
}

func findUnsent(w *World, found func(Finding)) {
	for _, p := range w.Policies {
		if p.Spec.Action != actionCustom && p.Spec.Action != actionAudit || len(targetRefsOf(&p.Spec)) > 0 || w.podUnder(p.Namespace, p.Spec.Selector) == nil {
			continue
		}
		f := Finding{
			Object: accessObject(p), Field: "spec.action", Severity: v1alpha1.SeverityError, Fix: w.attachInstead(p.Namespace, p.Spec.Selector),
			Message: fmt.Sprintf("ztunnel stands before %s, and istiod does not send it CUSTOM policies: provider %s is not asked, and all is let through",
				w.selectorText(p.Namespace, p.Spec.Selector), p.Spec.GetProvider().GetName()),
		}
		if p.Spec.Action == actionAudit {
			f.Severity = v1alpha1.SeverityWarning
			f.Message = fmt.Sprintf("ztunnel stands before %s, and istiod does not send it AUDIT policies: nothing is audited", w.selectorText(p.Namespace,
				p.Spec.Selector))
		}
		found(f)
	}
}

func findPlaintextAdmitted(w *World, found func(Finding)) {
	for _, p := range w.Policies {
		if p.Spec.Action != actionAllow || len(targetRefsOf(&p.Spec)) > 0 {
			continue
		}
		field := onlyExceptions(p)
		if field == "" {
			continue
		}
		pod := w.podUnder(p.Namespace, p.Spec.Selector)
		if pod == nil {
			continue
		}
		d := w.before(pod.Namespace, pod.Labels).Decide(&policy.Request{Source: policy.Absent[spiffeid.ID]()})
		if d.Verdict != policy.Allow || d.Policy.Namespace != p.Namespace || d.Policy.Name != p.Name {
			continue
		}
		found(Finding{
			Object: accessObject(p), Field: field,
			Message: fmt.Sprintf("this says only who is not let in, and who calls %s in plaintext has no identity: every pod outside the mesh gets in",
				w.selectorText(p.Namespace, p.Spec.Selector)),
			Fix: fmt.Sprintf("say who is let in; or set a PeerAuthentication with mtls: {mode: STRICT} in namespace %s", pod.Namespace),
		})
	}
}

// onlyExceptions is the field of a source that says only who does not count, or "".
func onlyExceptions(p *securityv1.AuthorizationPolicy) string {
	for i, r := range p.Spec.Rules {
		for j, from := range r.GetFrom() {
			s := from.GetSource()
			if len(s.GetPrincipals())+len(s.GetNamespaces())+len(s.GetServiceAccounts())+len(s.GetIpBlocks()) == 0 &&
				len(s.GetNotPrincipals())+len(s.GetNotNamespaces())+len(s.GetNotServiceAccounts()) > 0 {
				return fmt.Sprintf("spec.rules[%d].from[%d].source", i, j)
			}
		}
	}
	return ""
}

func findEmptySelectors(w *World, found func(Finding)) {
	for _, p := range w.Policies {
		if p.Spec.Selector == nil || len(p.Spec.Selector.MatchLabels) > 0 || len(targetRefsOf(&p.Spec)) > 0 || w.podUnder(p.Namespace, nil) == nil {
			continue
		}
		f := Finding{
			Object: accessObject(p), Field: "spec.selector",
			Message: "this selector has no labels: ztunnel enforces the policy before no pod",
			Fix:     "take the selector away, to have the policy for all pods of the namespace; or give it labels",
		}
		if p.Namespace == w.Root() {
			f.Fix = "take the selector away, to have the policy for all pods of the mesh; or give it labels"
		} else if p.Spec.Action == actionDeny { // an ALLOW for all pods refuses all else that they are asked
			f.Patch = fmt.Sprintf(`kubectl patch authorizationpolicies.security.istio.io -n %s %s --type=json -p '[{"op":"remove","path":"/spec/selector"}]'`,
				p.Namespace, p.Name)
		}
		found(f)
	}
}
