package check

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// identityChecks are about who may call whom: ISM2xx.
func identityChecks() []Check {
	return slices.Concat(admissionChecks(), voidedChecks(), podPolicyChecks(), targetChecks(), nameChecks(), requestChecks(), addressChecks(), tokenChecks(),
		peerChecks(), nobodyChecks())
}

func nobodyChecks() []Check {
	return []Check{{
		Code: "ISM221", Title: "an ALLOW without rules, and nothing that admits anybody", Severities: []v1alpha1.Severity{v1alpha1.SeverityWarning,
			v1alpha1.SeverityInfo}, Pains: []string{"B5", "B14"},
		Matter: "An ALLOW policy has no rules, which denies what no other policy allows, and no other policy allows anything at the same place.",
		Harm:   "Nobody can call the Services behind it.",
		Fix:    "Add a policy that says who may call, or take this one away.",
		Find:   findClosed,
	}}
}

func findClosed(w *World, found func(Finding)) {
	closed := map[Object][]string{}
	note := func(point *policy.Point, s *corev1.Service) bool {
		if d := point.Decide(&policy.Request{}); d.Verdict != policy.Deny || d.Reason != policy.NotAllowed {
			return false
		}
		for _, ref := range point.Policies() {
			if p := w.guard().byRef[ref]; p != nil && p.Spec.Action == actionAllow && len(p.Spec.Rules) == 0 {
				closed[accessObject(p)] = append(closed[accessObject(p)], s.Namespace+"/"+s.Name)
				return true
			}
		}
		return false
	}
	g := w.guard()
	for i := range w.Services {
		s := &w.Services[i]
		if waypoint, ok := w.leadsTo(s); ok && note(w.behind(waypoint, objectKey(s.Namespace, s.Name)), s) {
			continue
		}
		if len(g.atPods[s.Namespace])+len(g.atPods[w.Root()]) == 0 {
			continue
		}
		points, all := w.pointsOf(s)
		if all && !slices.ContainsFunc(points, func(p *policy.Point) bool { return p.Decide(&policy.Request{}).Verdict != policy.Deny }) {
			note(points[0], s)
		}
	}
	for _, p := range w.Policies {
		names := closed[accessObject(p)]
		if len(names) == 0 {
			continue
		}
		slices.Sort(names)
		f := Finding{
			Severity: v1alpha1.SeverityWarning, Object: accessObject(p), Field: "spec.rules",
			Message: fmt.Sprintf("this has no rules, and no other policy admits anybody: nobody can call %s", inWords(names)),
			Fix:     "add a policy that says who may call, or take this one away",
		}
		if w.Paper {
			f.Severity = v1alpha1.SeverityInfo
		}
		found(f)
	}
}
