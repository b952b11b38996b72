package check

import (
	"fmt"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	securityapi "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// peerChecks are about PeerAuthentications.
func peerChecks() []Check {
	return []Check{
		{
			Code: "ISM238", Title: "a port that is STRICT lets plaintext in", Severities: onlyError(), Pains: []string{"B12"},
			Matter: "A PeerAuthentication has a port STRICT, and what istiod makes of it leaves the port open: as where the mesh is STRICT and the workload itself " +
				"is not.",
			Harm: "Who calls that port in plaintext gets in, from outside the mesh too.",
			Fix:  "Have the workload STRICT, and make exceptions of the ports that are not.",
			Find: findOpenPorts,
		},
		{
			Code: "ISM239", Title: "a port that is not STRICT refuses plaintext", Severities: onlyWarning(), Pains: []string{"B10", "B12"},
			Matter: "A PeerAuthentication has a port PERMISSIVE or DISABLE, and what istiod makes of it refuses plaintext there: as with DISABLE where the workload " +
				"inherits STRICT.",
			Harm: "Who calls that port from outside the mesh is refused.",
			Fix:  "Write PERMISSIVE.",
			Find: findShutPorts,
		},
		{
			Code: "ISM240", Title: "portLevelMtls without a selector", Severities: onlyError(), Pains: []string{"B12"},
			Matter: "A PeerAuthentication for a namespace or the mesh has portLevelMtls. It counts with a selector only.",
			Harm:   "The ports have the mode of all others.",
			Fix:    "Add a selector, or take the ports away.",
			Find:   findPortsWithoutSelector,
		},
		{
			Code: "ISM241", Title: "a PeerAuthentication with a selector in the root namespace", Severities: both(), Pains: []string{"B12"},
			Matter: "A PeerAuthentication of the root namespace has a selector. ztunnel enforces it before no pod, of that namespace or of others.",
			Harm:   "What is to be STRICT takes plaintext; what is to be an exception is none.",
			Fix:    "Have it in the namespace of the pods.",
			Find:   findRootSelectors,
		},
		{
			Code: "ISM242", Title: "DISABLE is PERMISSIVE in ambient", Severities: onlyInfo(), Pains: []string{"B12"},
			Matter: "A PeerAuthentication says DISABLE for pods before which ztunnel stands.",
			Harm:   "mTLS is used all the same, between those who have it; plaintext is taken too.",
			Fix:    "Write PERMISSIVE, which is what holds. To keep pods out, label them istio.io/dataplane-mode=none.",
			Find:   findDisabled,
		},
	}
}

func peerObject(p *securityv1.PeerAuthentication) Object {
	return securityObject(kindPeerAuthentication, p)
}

// plaintextAt says what becomes of plaintext at a port of the pods that a PeerAuthentication selects, by PeerAuthentications alone; ok is false, where
// there are no such pods.
func (w *World) plaintextAt(p *securityv1.PeerAuthentication) (at func(port uint32) policy.Decision, ok bool) {
	pods := w.carriedPods(p.Namespace, p.Spec.Selector)
	if len(pods) == 0 {
		return nil, false
	}
	m := w.meshOf()
	for _, ns := range slices.Compact([]string{p.Namespace, w.Root()}) {
		m.PeerAuthentications = append(m.PeerAuthentications, w.guard().peers[ns]...)
	}
	point := policy.New(m).Ztunnel(policy.Workload{Namespace: p.Namespace, Labels: pods[0].Labels})
	return func(port uint32) policy.Decision {
		return point.Decide(&policy.Request{Source: policy.Absent[spiffeid.ID](), WorkloadPort: policy.Of(uint16(port))})
	}, true
}

// eachPort calls f for each port of the PeerAuthentications that have a selector.
func (w *World) eachPort(f func(p *securityv1.PeerAuthentication, port uint32, mode securityapi.PeerAuthentication_MutualTLS_Mode, d policy.Decision)) {
	for _, p := range w.Strictness {
		if len(p.Spec.PortLevelMtls) == 0 || len(p.Spec.GetSelector().GetMatchLabels()) == 0 || p.Namespace == w.Root() {
			continue
		}
		at, ok := w.plaintextAt(p)
		if !ok {
			continue
		}
		for _, port := range sortedKeys(p.Spec.PortLevelMtls) {
			f(p, port, p.Spec.PortLevelMtls[port].GetMode(), at(port))
		}
	}
}

func findOpenPorts(w *World, found func(Finding)) {
	w.eachPort(func(p *securityv1.PeerAuthentication, port uint32, mode securityapi.PeerAuthentication_MutualTLS_Mode, d policy.Decision) {
		if mode != securityapi.PeerAuthentication_MutualTLS_STRICT || d.Verdict != policy.Allow {
			return
		}
		found(Finding{
			Object: peerObject(p), Field: fmt.Sprintf("spec.portLevelMtls[%d]", port),
			Message: fmt.Sprintf("port %d of %s is STRICT here and takes plaintext all the same: of this, with what the mesh and the namespace have, istiod makes "+
				"nothing that ztunnel enforces", port, w.selectorText(p.Namespace, p.Spec.Selector)),
			Fix: "set mtls: {mode: STRICT} here, and PERMISSIVE at the ports that are to take plaintext",
		})
	})
}

func findShutPorts(w *World, found func(Finding)) {
	w.eachPort(func(p *securityv1.PeerAuthentication, port uint32, mode securityapi.PeerAuthentication_MutualTLS_Mode, d policy.Decision) {
		open := mode == securityapi.PeerAuthentication_MutualTLS_DISABLE || mode == securityapi.PeerAuthentication_MutualTLS_PERMISSIVE
		if !open || d.Verdict != policy.Deny {
			return
		}
		found(Finding{
			Object: peerObject(p), Field: fmt.Sprintf("spec.portLevelMtls[%d]", port),
			Message: fmt.Sprintf("port %d of %s is %s here and refuses plaintext all the same, by %s", port, w.selectorText(p.Namespace, p.Spec.Selector), mode,
				d.Policy),
			Fix: "write PERMISSIVE for the port, in a PeerAuthentication that decides for these pods",
		})
	})
}

func findPortsWithoutSelector(w *World, found func(Finding)) {
	for _, p := range w.Strictness {
		if len(p.Spec.PortLevelMtls) == 0 || len(p.Spec.GetSelector().GetMatchLabels()) > 0 {
			continue
		}
		found(Finding{
			Object: peerObject(p), Field: "spec.portLevelMtls",
			Message: "ports count in a PeerAuthentication with a selector only: these have the mode of all others", Fix: "add a selector, or take the ports away",
		})
	}
}

func findRootSelectors(w *World, found func(Finding)) {
	for _, p := range w.Strictness {
		labels := p.Spec.GetSelector().GetMatchLabels()
		if p.Namespace != w.Root() || len(labels) == 0 {
			continue
		}
		if len(w.Selected(p.Namespace, labels)) > len(w.carriedPods(p.Namespace, p.Spec.Selector)) {
			continue // a proxy of theirs may enforce it
		}
		found(Finding{
			Object: peerObject(p), Field: "spec.selector", Severity: w.ifWhole(),
			Message: fmt.Sprintf("%s is the root namespace, where a PeerAuthentication with a selector is enforced before no pod of any namespace", w.Root()),
			Fix:     "have it in the namespace of the pods",
		})
	}
}

func findDisabled(w *World, found func(Finding)) {
	for _, p := range w.Strictness {
		field := ""
		if p.Spec.GetMtls().GetMode() == securityapi.PeerAuthentication_MutualTLS_DISABLE {
			field = "spec.mtls.mode"
		}
		for _, port := range sortedKeys(p.Spec.PortLevelMtls) {
			if field == "" && p.Spec.PortLevelMtls[port].GetMode() == securityapi.PeerAuthentication_MutualTLS_DISABLE {
				field = fmt.Sprintf("spec.portLevelMtls[%d]", port)
			}
		}
		selector := p.Spec.Selector
		if len(selector.GetMatchLabels()) == 0 {
			selector = nil
		}
		if field == "" || w.podUnder(p.Namespace, selector) == nil {
			continue
		}
		found(Finding{
			Object: peerObject(p), Field: field, Severity: v1alpha1.SeverityInfo,
			Message: fmt.Sprintf("DISABLE is PERMISSIVE for %s: the mesh uses mTLS all the same, and plaintext is taken too", w.selectorText(p.Namespace, selector)),
			Fix:     "write PERMISSIVE; or label pods that are to stay outside istio.io/dataplane-mode=none",
		})
	}
}
