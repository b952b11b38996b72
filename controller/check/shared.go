package check

import (
	"fmt"
	"slices"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"
)

func findSharedIdentities(w *World, found func(Finding)) {
	type foreign struct{ routes, gateways []string }
	by := map[string]map[string]*foreign{} // routes of others, by identity and the namespace that they send to
	views := w.Views()
	for i := range views {
		v := &views[i]
		for j := range v.Routes {
			r := &v.Routes[j]
			for _, s := range r.Services {
				if r.Why != "" || s.Namespace == r.Key.Namespace {
					continue
				}
				for _, id := range idsOf(v.Identities) {
					text := principalText(id)
					if by[text] == nil {
						by[text] = map[string]*foreign{}
					}
					if by[text][s.Namespace] == nil {
						by[text][s.Namespace] = &foreign{}
					}
					f := by[text][s.Namespace]
					f.routes, f.gateways = append(f.routes, r.Kind+" "+r.Key.String()), append(f.gateways, v.String())
				}
			}
		}
	}
	for _, p := range w.Policies {
		if p.Spec.Action != actionAllow {
			continue
		}
		for _, l := range lists(p) {
			if l.not || hasHosts(p, l.rule) {
				continue
			}
			for _, id := range w.exactIDs(&l, p.Namespace) {
				f := by[principalText(id)][p.Namespace]
				if f == nil {
					continue
				}
				slices.Sort(f.routes)
				slices.Sort(f.gateways)
				f.routes, f.gateways = slices.Compact(f.routes), slices.Compact(f.gateways)
				found(Finding{
					Object: accessObject(p), Field: l.field,
					Message: fmt.Sprintf("%s is %s, by which %s of another namespace %s to Services of %s: who may write routes there decides what is open to the outside",
						principalText(id), inWords(f.gateways), inWords(f.routes), verb(len(f.routes), "sends", "send"), p.Namespace),
					Fix: "narrow the rule by hosts and paths at the waypoint; or take the ReferenceGrant back",
				})
			}
		}
	}
}

// hasHosts says whether a rule is for some hosts or paths only.
func hasHosts(p *securityv1.AuthorizationPolicy, rule int) bool {
	return slices.ContainsFunc(lists(p), func(l listed) bool { return l.rule == rule && (l.name == "hosts" || l.name == "paths") })
}
