package explain

import (
	"cmp"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/check"
)

// What names a second waypoint for a share of the connections to a Service, on it or on its namespace.
const (
	labelCanary          = "istio.io/use-waypoint-canary"
	labelCanaryNamespace = "istio.io/use-waypoint-canary-namespace"
	annotationCanary     = "istio.io/use-waypoint-canary-weight"
)

// leads says whether ztunnel leads what is sent to a Service through a waypoint, or through one of two, by their weights.
func (x *Explainer) leads(s *corev1.Service) (list []lead) {
	first, by, _ := x.w.WaypointOf(s)
	for _, l := range x.firstLeads(s) {
		if !l.via {
			list = append(list, l)
			continue
		}
		canary, weight, why := x.canary(s, first, by)
		if why != "" {
			l.why += "; " + why
		}
		if weight < 100 {
			l.share = 100 - weight
			list = append(list, l)
		}
		if weight > 0 {
			c := x.through(canary, fmt.Sprintf("%s, and %s %s/%s for %d %% of the connections", l.why, labelCanary, canary.Namespace, canary.Name, weight))
			c.doubt, c.share = l.doubt, weight
			if x.w.Gateway(canary) == nil {
				c.doubt = join("; ", c.doubt, fmt.Sprintf("waypoint %s is not in the files", canary))
			}
			list = append(list, c)
		}
	}
	for i := range list {
		if list[i].share == 100 {
			list[i].share = 0 // all
		}
	}
	return list
}

// canary is the second waypoint of a Service, and its share in per cent; 0, where it does not take part, which why tells where one is named. As istiod
// does, it looks where the first waypoint is named, and on the Service before its namespace.
func (x *Explainer) canary(s *corev1.Service, first types.NamespacedName, by check.Object) (key types.NamespacedName, weight int, why string) {
	labels := s.Labels
	text, weighs := s.Annotations[annotationCanary]
	if by.Kind == "Namespace" {
		if ns := x.w.Namespace(s.Namespace); ns != nil {
			if _, names := labels[labelCanary]; !names {
				labels = ns.Labels
			}
			if !weighs {
				text, weighs = ns.Annotations[annotationCanary]
			}
		}
	}
	if !weighs {
		text = "0"
	}
	name := labels[labelCanary]
	if name == "" || name == "none" {
		return key, 0, ""
	}
	key = types.NamespacedName{Namespace: cmp.Or(labels[labelCanaryNamespace], s.Namespace), Name: name}
	n, err := strconv.Atoi(text)
	switch no := x.unfit(key, s.Namespace, true); {
	case key == first:
		why = "it is the first one"
	case err != nil || n < 0 || n > 100:
		why = fmt.Sprintf("%s is %q, and no number from 0 to 100", annotationCanary, text)
	case no != "":
		why = no
	case n == 0:
		why = "its weight is 0"
	default:
		return key, n, ""
	}
	return key, 0, fmt.Sprintf("its canary %s gets nothing: %s", key, why)
}

// byShare says whether ways differ by waypoints that have a share each.
func byShare(ways []Way) bool {
	for i := range ways {
		if ways[i].Share > 0 {
			return true
		}
	}
	return false
}
