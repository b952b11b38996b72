package explain

import (
	"cmp"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/check"
	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// standing is how a pod stands to the mesh.
type standing int

const (
	outside standing = iota
	inMesh           // ztunnel carries it
	native           // it speaks HBONE itself
	late             // ztunnel carries it, and who programs it takes it for one outside
	sidecar          // which is not looked at
	unclear          // files do not tell
	perhaps          // nothing carries it, and it may speak HBONE itself
)

var standings = [...]string{
	"outside the mesh", "carried by ztunnel", "which speak HBONE themselves", "captured late", "with a sidecar", "of which the mesh is not known", "which may speak HBONE themselves",
}

// String is for people.
func (s standing) String() string { return standings[s] }

// standing is that of any pod.
func (x *Explainer) standing(p *plan.Pod) standing {
	switch {
	case p.Annotations[plan.AnnotationRedirection] == "enabled":
		return inMesh
	case p.Labels[labelTunnel] == "http" || x.isWaypoint(p):
		return native
	case p.Annotations[annotationSidecar] != "":
		return sidecar
	case !x.w.Paper || p.UID != "" || p.Spec.HostNetwork:
		return outside
	}
	if mode, set := p.Labels[plan.LabelDataplaneMode]; set {
		return byMode(mode)
	}
	return x.ofNamespace(p.Namespace)
}

// isWaypoint says whether a pod is a waypoint's, which speaks HBONE itself and calls nobody of its own accord.
func (x *Explainer) isWaypoint(p *plan.Pod) bool {
	name := p.Labels[edge.LabelGatewayName]
	if name == "" {
		return false
	}
	g := x.w.Gateway(types.NamespacedName{Namespace: p.Namespace, Name: name})
	return g != nil && x.w.IsWaypoint(g)
}

func byMode(mode string) standing {
	if mode == modeAmbient {
		return inMesh
	}
	return outside
}

// ofNamespace is what pods of a namespace are as a rule, by its label.
func (x *Explainer) ofNamespace(name string) standing {
	ns := x.w.Namespace(name)
	if ns == nil {
		return unclear
	}
	where := x.w.Where(check.Object{Kind: "Namespace", NamespacedName: types.NamespacedName{Name: name}})
	if x.w.Paper && where == "" && ns.Labels[plan.LabelDataplaneMode] == "" {
		return unclear // no file has it: a cluster may
	}
	return byMode(ns.Labels[plan.LabelDataplaneMode])
}

// home is how a client without pods will stand.
func (x *Explainer) home(c *client) standing {
	if v := c.view; v != nil {
		switch {
		case !x.w.Paper:
			return unclear
		case v.Vendor.Native == edge.NativeAlways, v.Vendor.Native == edge.NativeByMode && c.mode == "none":
			return native
		case v.Vendor.Never != "":
			return outside
		}
	}
	if c.mode == "none" && c.view == nil {
		return perhaps
	}
	if c.mode != "" {
		return byMode(c.mode)
	}
	return x.ofNamespace(c.home)
}

// gatewayGroups corrects how pods of a gateway stand by what its vendor does.
func (x *Explainer) gatewayGroups(c *client, by map[standing][]*plan.Pod) map[standing][]*plan.Pod {
	v := c.view
	annotated := len(by[inMesh])
	groups := map[standing][]*plan.Pod{}
	add := func(s standing, p *plan.Pod) { groups[s] = append(groups[s], p) }
	for s, pods := range by {
		for _, p := range pods {
			switch {
			case s == inMesh && plan.Late(v, p):
				add(late, p)
			case s != inMesh && v.Inside > annotated-v.Late:
				add(native, p) // those that the mesh does not carry speak for themselves
			case s == outside && v.Edge != nil && v.Edge.Spec.Capture == v1alpha1.CaptureNative:
				add(perhaps, p) // nothing but its AmbientEdge says that it speaks HBONE
			default:
				add(s, p)
			}
		}
	}
	for _, pods := range groups {
		slices.SortFunc(pods, func(a, b *plan.Pod) int {
			return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
		})
	}
	return groups
}

// speaking finds among pods of a client that is no gateway those that may speak HBONE themselves: they are kept from capture, or pods of a gateway whose
// AmbientEdge says so.
func (x *Explainer) speaking(groups map[standing][]*plan.Pod) {
	var silent []*plan.Pod
	for _, p := range groups[outside] {
		if p.Labels[plan.LabelDataplaneMode] == "none" || x.saidToSpeak(p) {
			groups[perhaps] = append(groups[perhaps], p)
		} else {
			silent = append(silent, p)
		}
	}
	if groups[outside] = silent; len(silent) == 0 {
		delete(groups, outside)
	}
}

// saidToSpeak says whether a pod is of a gateway whose AmbientEdge has capture Native.
func (x *Explainer) saidToSpeak(p *plan.Pod) bool {
	for i := range x.w.Edges {
		e := &x.w.Edges[i]
		if e.Spec.Capture != v1alpha1.CaptureNative || e.Namespace != p.Namespace {
			continue
		}
		if slices.ContainsFunc(e.Spec.TargetRefs, func(r v1alpha1.TargetRef) bool { return r.Name == p.Labels[edge.LabelGatewayName] }) ||
			slices.ContainsFunc(e.Spec.WorkloadRefs, func(r v1alpha1.WorkloadRef) bool { return x.runs(r, p) }) {
			return true
		}
	}
	return false
}

// runs says whether a pod is of a workload in its namespace.
func (x *Explainer) runs(r v1alpha1.WorkloadRef, p *plan.Pod) bool {
	takes := func(key types.NamespacedName, s *metav1.LabelSelector) bool {
		selector, err := metav1.LabelSelectorAsSelector(s)
		return key.Namespace == p.Namespace && key.Name == r.Name && err == nil && selector.Matches(labels.Set(p.Labels))
	}
	if r.Kind == "DaemonSet" {
		return slices.ContainsFunc(x.w.DaemonSets, func(o appsv1.DaemonSet) bool { return takes(keyOf(&o), o.Spec.Selector) })
	}
	return slices.ContainsFunc(x.w.Deployments, func(o appsv1.Deployment) bool { return takes(keyOf(&o), o.Spec.Selector) })
}

func accountName(p *plan.Pod) string { return cmp.Or(p.Spec.ServiceAccountName, "default") }

func (x *Explainer) id(namespace, account string) (spiffeid.ID, error) {
	return spiffeid.FromString("spiffe://" + cmp.Or(x.w.Mesh.TrustDomain, "cluster.local") + "/ns/" + namespace + "/sa/" + account)
}

// idText is a service account's, as plan.View has it; empty where it cannot be one.
func (x *Explainer) idText(key types.NamespacedName) string {
	id, err := x.id(key.Namespace, key.Name)
	if err != nil {
		return ""
	}
	return id.String()
}

// ids are the identities of pods, each once.
func (x *Explainer) ids(pods []*plan.Pod) (list []spiffeid.ID) {
	for _, p := range pods {
		if id, err := x.id(p.Namespace, accountName(p)); err == nil && !slices.Contains(list, id) {
			list = append(list, id)
		}
	}
	slices.SortFunc(list, func(a, b spiffeid.ID) int { return cmp.Compare(a.String(), b.String()) })
	return list
}

// accountOf reads the service account out of an identity of this mesh.
func (x *Explainer) accountOf(id spiffeid.ID) (types.NamespacedName, bool) {
	rest, ok := strings.CutPrefix(id.Path(), "/ns/")
	ns, name, both := strings.Cut(rest, "/sa/")
	own := id.TrustDomain().Name() == cmp.Or(x.w.Mesh.TrustDomain, "cluster.local") || slices.Contains(x.w.Mesh.TrustDomainAliases, id.TrustDomain().Name())
	return types.NamespacedName{Namespace: ns, Name: name}, ok && both && own
}

func (x *Explainer) hasAccount(key types.NamespacedName) bool {
	return x.w.ServiceAccounts[key] || slices.ContainsFunc(x.w.PodsIn(key.Namespace), func(p *plan.Pod) bool { return accountName(p) == key.Name })
}

func (x *Explainer) gatewayNames() (names []string) {
	views := x.w.Views()
	for i := range views {
		names = append(names, views[i].Key.String())
	}
	return names
}

// accounts are the service accounts of pods that call others: of all but waypoints, and gateways where not wanted.
func (x *Explainer) accounts(gateways bool) []types.NamespacedName {
	seen := map[types.NamespacedName]bool{}
	for i := range x.w.Pods {
		if p := &x.w.Pods[i]; !x.isWaypoint(p) {
			seen[types.NamespacedName{Namespace: p.Namespace, Name: accountName(p)}] = true
		}
	}
	if views := x.w.Views(); !gateways {
		for i := range views {
			for _, p := range views[i].Pods {
				delete(seen, types.NamespacedName{Namespace: p.Namespace, Name: accountName(p)})
			}
		}
	}
	list := make([]types.NamespacedName, 0, len(seen))
	for key := range seen {
		list = append(list, key)
	}
	slices.SortFunc(list, func(a, b types.NamespacedName) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return list
}

func (x *Explainer) accountNames() (names []string) {
	for _, key := range x.accounts(true) {
		names = append(names, key.String())
	}
	for key := range x.w.ServiceAccounts {
		names = append(names, key.String())
	}
	return names
}

func podNames(w *check.World, namespace string) (names []string) {
	for _, p := range w.PodsIn(namespace) {
		names = append(names, keyOf(p).String())
	}
	return names
}
