package check

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

func bypassChecks() []Check {
	all := []v1alpha1.Severity{v1alpha1.SeverityError, v1alpha1.SeverityWarning, v1alpha1.SeverityInfo}
	return []Check{
		{
			Code: "ISM110", Title: "a gateway sends to pods, past a waypoint", Severities: all, Pains: []string{"A1", "A2", "B7", "EP02", "EP05", "EP10"},
			Matter: "A gateway looks up the pods of a Service itself, and the Service leads to a waypoint, which is chosen by the Service's address alone.",
			Harm:   "What comes by the gateway is not seen by the waypoint. Error: policies there say something else of it than those at the pods. Info: none does.",
			Fix:    "Set the gateway's switch, so that it sends to the Service's address.",
			Find:   (*World).bypasses,
		},
		{
			Code: "ISM127", Title: "a gateway outside the mesh sends to Services' addresses", Severities: all, Pains: []string{"A1", "C1", "EP01"},
			Matter: "A gateway sends to the address of a Service that leads to a waypoint, and its pods are not in the mesh: nobody there knows of waypoints.",
			Harm:   "kube-proxy makes a pod of the address: requests go past the waypoint, in plaintext.",
			Fix:    "Bring the gateway's pods into the mesh.",
			Find:   (*World).uncaptured,
		},
	}
}

// bypasses finds gateways that send past waypoints.
func (w *World) bypasses(found func(Finding)) {
	for _, l := range w.index().leads {
		if l.service == nil {
			continue
		}
		for _, s := range w.index().senders[l.object.NamespacedName] {
			why := s.backend.Why
			if kinds := notReached(s.view, l.object.NamespacedName); s.backend.Sends == plan.ToService && len(kinds) > 0 {
				why = "what comes by " + some(kinds) + " is not reached by " + switchOf(s.view).Field()
			} else if s.backend.Sends != plan.ToPods {
				continue
			}
			if w.headless(l.service) {
				continue // which is another check
			}
			f := Finding{Object: l.object, Related: []Object{viewObject(s.view), gatewayObject(l.waypoint)}}
			f.Field, f.Fix, f.Patch = w.switchOn(s.view, &l)
			if s.backend.Sends == plan.ToService {
				f.Field, f.Fix, f.Patch = "", "do without these routes, or put a gateway before the Service that can send to its address for them", ""
			}
			e := w.pastWaypoint(s.view, &l, w.identified(s.view))
			f.Severity, f.Related = e.severity, append(f.Related, e.policies...)
			f.Message = fmt.Sprintf("%s sends to the pods of this Service, past waypoint %s (%s): %s", s.view, l.waypoint, why, e.what)
			if f.Severity != v1alpha1.SeverityInfo && s.backend.Sends == plan.ToPods && w.mayBeElsewhere(s.view, &l) {
				f.Severity = v1alpha1.SeverityWarning
				f.Message += "; unless the setting is in the cluster, and not in these files"
			}
			found(f)
		}
	}
}

// notReached are the kinds of routes by which a gateway sends to a Service, and for which its switch does nothing.
func notReached(v *plan.View, service types.NamespacedName) []string {
	s := switchOf(v)
	if s == nil {
		return nil
	}
	var kinds []string
	for i := range v.Routes {
		r := &v.Routes[i]
		if slices.Contains(s.NotFor, r.Kind) && slices.Contains(r.Services, service) && !slices.Contains(kinds, r.Kind+"s") {
			kinds = append(kinds, r.Kind+"s")
		}
	}
	return kinds
}

// detour is what it means that a gateway goes past a waypoint.
type detour struct {
	severity v1alpha1.Severity
	what     string
	policies []Object
}

// pastWaypoint compares what a waypoint would decide of a gateway with what is decided before the pods.
func (w *World) pastWaypoint(v *plan.View, l *lead, inside bool) detour {
	list := w.atWaypoint(l.waypoint, l.object)
	var names []Object
	var texts []string
	for _, p := range list {
		names, texts = append(names, p.Object), append(texts, p.String())
	}
	who, known := w.callers(v)
	source := policy.Absent[spiffeid.ID]()
	if inside {
		source = policy.Of(who...)
	}
	var allows policy.Decision
	for _, p := range w.PodsOf(l.service) {
		if !w.InMesh(p) {
			continue
		}
		switch d := w.pointBefore(p).Decide(&policy.Request{Source: source}); {
		case d.Verdict == policy.Deny:
			return detour{v1alpha1.SeverityWarning, fmt.Sprintf("it is refused there (%s)", d), names}
		case d.Verdict == policy.Allow && d.Reason == policy.Allowed:
			allows = d
		}
	}
	const lost = "what the waypoint has for it, as routes and telemetry, is not applied"
	switch severity := v1alpha1.SeverityError; {
	case len(list) == 0:
		return detour{v1alpha1.SeverityInfo, lost + "; no policy stands there", nil}
	case w.pointAt(list, l.waypoint, l.object).Decide(&policy.Request{Source: policy.Of(who...)}).Verdict == policy.Allow:
		return detour{v1alpha1.SeverityInfo, lost + "; no policy there would refuse it", nil}
	case allows.Verdict == policy.Allow:
		severity = v1alpha1.SeverityWarning
		if inside && w.named(allows, who) {
			severity = v1alpha1.SeverityInfo // somebody has thought of it
		}
		return detour{severity, fmt.Sprintf("%s lets it in there, and these are not enforced for it: %s", allows.Policy, some(texts)), names}
	default:
		if !known {
			severity = v1alpha1.SeverityWarning // they may let in whoever it is
		}
		return detour{severity, "these are not enforced for what it sends: " + some(texts), names}
	}
}

// identified says whether pods see who a gateway is: the mesh carries it, or it speaks HBONE itself.
func (w *World) identified(v *plan.View) bool {
	return v.Inside > 0 || v.Vendor.Native == edge.NativeAlways || w.Paper && asked(w, v)
}

// named says whether the rule that decides at pods names a caller by its service account.
func (w *World) named(d policy.Decision, callers []spiffeid.ID) bool {
	for _, p := range w.guard().atPods[d.Policy.Namespace] {
		if p.Name != d.Policy.Name || d.Rule < 0 || d.Rule >= len(p.Spec.Rules) {
			continue
		}
		for _, from := range p.Spec.Rules[d.Rule].GetFrom() {
			names := slices.Clone(from.GetSource().GetPrincipals())
			for _, account := range from.GetSource().GetServiceAccounts() {
				if !strings.Contains(account, "/") {
					account = p.Namespace + "/" + account
				}
				ns, name, _ := strings.Cut(account, "/")
				names = append(names, "cluster.local/ns/"+ns+"/sa/"+name)
			}
			for _, name := range names {
				_, path, _ := strings.Cut(name, "/")
				if id, err := spiffeid.FromString("spiffe://" + cmp.Or(w.Mesh.TrustDomain, "cluster.local") + "/" + path); err == nil && slices.Contains(callers, id) {
					return true
				}
			}
		}
	}
	return false
}

// callers are who a gateway is. Where nothing tells it is somebody whom no policy names.
func (w *World) callers(v *plan.View) (who []spiffeid.ID, known bool) {
	if is := identities(v); len(is) > 0 {
		return is, true
	}
	name, known := stranger, v.Object != nil && v.Vendor.Proxies.Account != "" && !strings.Contains(v.Vendor.Proxies.Account, "HASH")
	if known {
		account := edge.Of(map[string]string{"": v.Vendor.Proxies.Account}, v.Key.Namespace, v.Key.Name, string(v.Object.Spec.GatewayClassName))[""]
		name = "/ns/" + v.Key.Namespace + "/sa/" + account
	}
	id, err := spiffeid.FromString("spiffe://" + cmp.Or(w.Mesh.TrustDomain, "cluster.local") + name)
	if err != nil {
		return nil, false
	}
	return []spiffeid.ID{id}, known
}

// mayBeElsewhere says whether a switch may be set in an object that files do not have.
func (w *World) mayBeElsewhere(v *plan.View, l *lead) bool {
	s := switchOf(v)
	if !w.Paper || s == nil {
		return false
	}
	_, own := l.service.Labels[s.Path[len(s.Path)-1]]
	label := s.On == edge.OnService && s.Path[1] == "labels"
	return s.On != edge.OnService && s.On != edge.OnIngress || label && w.supposed[l.object.Namespace] && !own
}

func routesOf(v *plan.View, service types.NamespacedName) []string {
	var names []string
	for i := range v.Routes {
		if r := &v.Routes[i]; slices.Contains(r.Services, service) {
			names = append(names, r.Kind+" "+r.Key.String())
		}
	}
	return names
}

// uncaptured finds gateways that send to Services' addresses from outside the mesh.
func (w *World) uncaptured(found func(Finding)) {
	views := w.Views()
	for i := range views {
		v := &views[i]
		out := w.outside(v)
		if len(out) == 0 {
			continue
		}
		worst := detour{}
		var services []string
		for j := range v.Backends {
			b := &v.Backends[j]
			l, leads := w.leadsOf(b.Key)
			if !leads || b.Sends != plan.ToService {
				continue
			}
			services = append(services, b.Key.String())
			if e := w.pastWaypoint(v, &l, false); worst.severity == "" || weight(e.severity) < weight(worst.severity) {
				worst = e
			}
		}
		if len(services) == 0 {
			continue
		}
		field, fix, patch := w.enrolment(v)
		found(Finding{
			Object: viewObject(v), Severity: worst.severity, Field: field, Fix: fix, Patch: patch, Related: worst.policies,
			Message: fmt.Sprintf("%d of %d pods are outside the mesh (%s): to them the address of a Service is one of its pods, and its waypoint is gone past. "+
				"Services: %s. So %s",
				len(out), len(v.Pods), some(out), some(services), worst.what),
		})
	}
}

// outside are the pods of a gateway that the mesh does not carry, as far as it is known.
func (w *World) outside(v *plan.View) []string {
	if v.Vendor.Native == edge.NativeAlways {
		return nil
	}
	var names []string
	for _, p := range v.Pods {
		if speaksHBONE(v, p) || w.InMesh(p) {
			continue
		}
		if asked, known := w.askedIn(p); w.Paper && (asked && !p.Spec.HostNetwork || !known || w.byInfrastructure(v)) {
			continue
		}
		names = append(names, podName(p))
	}
	return names
}

// byInfrastructure says whether a Gateway asks for its pods to be captured.
func (w *World) byInfrastructure(v *plan.View) bool {
	return v.Object != nil && v.Object.Spec.Infrastructure != nil && v.Object.Spec.Infrastructure.Labels[plan.LabelDataplaneMode] == modeAmbient
}

// speaksHBONE says whether a gateway's pod speaks HBONE itself, as its vendor says.
func speaksHBONE(v *plan.View, p *plan.Pod) bool {
	return v.Vendor.Native == edge.NativeAlways || v.Vendor.Native == edge.NativeByMode && p.Labels[plan.LabelDataplaneMode] == modeNone
}

// headless says whether a Service has no address by which a waypoint could be chosen.
func (w *World) headless(s *corev1.Service) bool {
	return s.Spec.ClusterIP == corev1.ClusterIPNone || s.Spec.Type == corev1.ServiceTypeExternalName
}
