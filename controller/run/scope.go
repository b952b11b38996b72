package run

import (
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// scope is where an edge was looked for: what its plan depends on, there or not. It is not changed once it is known to concerns.
type scope struct {
	owner      string          // of what was written for the edge
	home       string          // its namespace
	workloads  bool            // it names workloads, which obey Ingresses
	vendors    map[string]bool // of its gateways
	classes    map[string]bool // of those vendors
	anywhere   bool            // the pods of its gateways may be anywhere
	namespaces map[string]bool
	services   map[types.NamespacedName]bool
	gateways   map[types.NamespacedName]bool // its own, and waypoints
	made       map[types.NamespacedName]bool // waypoints that were made for it
	rules      bool                          // what its gateways do to requests matters
	pairs      bool                          // what leads to its waypoints matters, whoever made them
	locks      map[string]bool               // namespaces whose Services all matter, as it locks pods there
	selectors  map[string][]map[string]string
	parents    map[string]bool      // its own Gateways and their ListenerSets, by parentName
	near       map[string]bool      // namespaces of routes
	choices    map[plan.Choice]bool // routes that are delegated to, at most maxChoices
	delegated  bool                 // there are more of them: all that can be delegated to
}

func newScope(owner, home string) *scope {
	return &scope{
		owner: owner, home: home, vendors: map[string]bool{}, classes: map[string]bool{}, namespaces: map[string]bool{home: true}, services: map[types.NamespacedName]bool{},
		gateways: map[types.NamespacedName]bool{}, made: map[types.NamespacedName]bool{}, locks: map[string]bool{}, selectors: map[string][]map[string]string{},
		parents: map[string]bool{}, near: map[string]bool{}, choices: map[plan.Choice]bool{},
	}
}

// wants says whether a pod of one of its namespaces matters: at home all do, elsewhere those of waypoints and of backends.
func (s *scope) wants(p *corev1.Pod) bool {
	if p.Namespace == s.home || s.anywhere && proxy(p) {
		return true
	}
	if name := p.Labels[edge.LabelGatewayName]; name != "" && s.gateways[types.NamespacedName{Namespace: p.Namespace, Name: name}] {
		return true
	}
	for _, selector := range s.selectors[p.Namespace] {
		if selects(selector, p.Labels) {
			return true
		}
	}
	return false
}

// delegatesTo says whether a route of its gateways may delegate to an HTTPRoute.
func (s *scope) delegatesTo(o metav1.Object) bool {
	if s.delegated {
		return delegable(o)
	}
	for c := range s.choices {
		if c.Has(o) {
			return true
		}
	}
	return false
}

// vendorOf is the vendor whose proxies, or whose controller, a pod template is of; "" if none is known.
func vendorOf(t *corev1.PodTemplateSpec) string {
	var images []string
	for i := range t.Spec.Containers {
		images = append(images, t.Spec.Containers[i].Image)
	}
	if v := edge.ByWorkload(t.Labels, images); v.Name != edge.Custom().Name {
		return v.Name
	}
	if v, known := edge.ByControllerWorkload(t.Labels, images); known {
		return v.Name
	}
	return ""
}

// proxy says whether a pod is of a vendor that puts the pods of Gateways anywhere.
func proxy(p *corev1.Pod) bool {
	return slices.ContainsFunc(anywhere(), func(labels map[string]string) bool { return hasKeys(p.Labels, labels) })
}

// anywhere are the labels of those vendors' pods. Every pod of the cluster is compared with them.
var anywhere = sync.OnceValue(func() (list []map[string]string) {
	for _, v := range edge.Vendors() {
		if v.Proxies.Anywhere {
			list = append(list, v.Proxies.Labels)
			if labels := v.Proxies.Merge.Labels; len(labels) > 0 {
				list = append(list, labels)
			}
		}
	}
	return list
})

// hasKeys: all keys are among the labels.
func hasKeys(labels, keys map[string]string) bool {
	for k := range keys {
		if _, ok := labels[k]; !ok {
			return false
		}
	}
	return true
}

// selects: an empty selector selects nothing, as a Service without one has no pods.
func selects(selector, labels map[string]string) bool {
	for k, v := range selector {
		if labels[k] != v {
			return false
		}
	}
	return len(selector) > 0
}

// within says whether all of s is in other too, so that whoever was told of other missed nothing.
func (s *scope) within(other *scope) bool {
	for ns, list := range s.selectors {
		if len(list) > len(other.selectors[ns]) {
			return false
		}
		for i := range list {
			if !equalLabels(list[i], other.selectors[ns][i]) {
				return false
			}
		}
	}
	return (!s.workloads || other.workloads) && (!s.rules || other.rules) && (!s.pairs || other.pairs) && (!s.anywhere || other.anywhere) && (!s.delegated || other.delegated) && inside(s.vendors, other.vendors) && inside(s.classes, other.classes) && inside(s.namespaces, other.namespaces) && inside(s.services, other.services) &&
		inside(s.gateways, other.gateways) && inside(s.made, other.made) && inside(s.locks, other.locks) &&
		inside(s.parents, other.parents) && inside(s.near, other.near) && (other.delegated || inside(s.choices, other.choices))
}

func inside[K comparable](a, b map[K]bool) bool {
	for k := range a {
		if !b[k] {
			return false
		}
	}
	return true
}

func equalLabels(a, b map[string]string) bool {
	return len(a) == len(b) && (len(a) == 0 || selects(a, b))
}
