package explain

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// Istio's labels and annotations of pods.
const (
	labelTunnel       = "networking.istio.io/tunnel"
	annotationSidecar = "sidecar.istio.io/status"
	modeAmbient       = "ambient"
)

// client is who sends.
type client struct {
	node  Node
	view  *plan.View // nil: no gateway
	pods  []*plan.Pod
	notes []string
	// assumed is who it is where it has no pods.
	assumed []spiffeid.ID
	// home is the namespace that tells whether pods will be in the mesh where there are none, and mode what is set beside.
	home, mode string
}

// find finds the source of a question.
func (x *Explainer) client(s Source) (*client, error) {
	switch {
	case !s.ID.IsZero():
		return x.identity(s.ID), nil
	case s.Kind == "Pod":
		for _, p := range x.w.PodsIn(s.Key.Namespace) {
			if p.Name == s.Key.Name {
				return &client{node: Node{Kind: NodeClient, Name: "Pod " + s.Key.String()}, pods: []*plan.Pod{p}}, nil
			}
		}
		return nil, notFound("pod "+s.Key.String(), s.Key, podNames(x.w, s.Key.Namespace))
	case s.Kind == "" || s.Kind == "Gateway":
		if v := x.view(s.Key, s.Kind); v != nil {
			c := x.gateway(v)
			if s.Kind == "" && x.hasAccount(s.Key) && !slices.Contains(v.Identities, x.idText(s.Key)) {
				c.notes = append(c.notes, fmt.Sprintf("%s is taken for %s; the service account of that name is sa/%[1]s", s.Key, v))
			}
			return c, nil
		}
		if s.Kind == "" && x.hasAccount(s.Key) {
			return x.account(s.Key)
		}
		if s.Kind == "Gateway" {
			return nil, notFound("gateway "+s.Key.String()+" at an edge", s.Key, x.gatewayNames())
		}
		return nil, notFound("gateway or service account "+s.Key.String(), s.Key, append(x.gatewayNames(), x.accountNames()...))
	case s.Kind == "ServiceAccount":
		return x.account(s.Key)
	}
	return x.workload(s)
}

// view is the gateway of a name: a Gateway before a workload.
func (x *Explainer) view(key types.NamespacedName, kind string) *plan.View {
	views := x.w.Views()
	var found *plan.View
	for i := range views {
		if v := &views[i]; v.Key == key && (kind == "" || v.Kind == kind) && (found == nil || v.Kind == "Gateway") {
			found = v
		}
	}
	return found
}

func (x *Explainer) gateway(v *plan.View) *client {
	node := Node{Kind: NodeGateway, Name: v.String(), Detail: v.Vendor.Name + ", " + counted(len(v.Pods), "pod")}
	c := &client{node: node, view: v, pods: v.Pods, home: v.Key.Namespace}
	if v.Object != nil && v.Object.Spec.Infrastructure != nil {
		c.mode = string(v.Object.Spec.Infrastructure.Labels[plan.LabelDataplaneMode])
	}
	if len(v.Pods) > 0 {
		return c
	}
	c.notes = append(c.notes, v.String()+" has no pods here, so that nobody can see who it is, and what carries its connections")
	if account := v.Vendor.Proxies.Account; account != "" && v.Object != nil && !v.Vendor.Proxies.Anywhere {
		name := edge.Of(map[string]string{"": account}, v.Key.Namespace, v.Key.Name, string(v.Object.Spec.GatewayClassName))[""]
		if id, err := x.id(v.Key.Namespace, name); err == nil {
			c.assumed = append(c.assumed, id)
			c.notes = append(c.notes, fmt.Sprintf("that it is service account %s/%s is what %s makes of its name, and is assumed", v.Key.Namespace, name, v.Vendor.Name))
		}
	}
	return c
}

// account is a service account: those of its pods that are seen.
func (x *Explainer) account(key types.NamespacedName) (*client, error) {
	id, err := x.id(key.Namespace, key.Name)
	if err != nil {
		return nil, notFound("service account "+key.String(), key, x.accountNames())
	}
	if !x.hasAccount(key) && x.w.Knows(schema.GroupKind{Kind: "ServiceAccount"}) {
		return nil, notFound("service account "+key.String(), key, x.accountNames())
	}
	return x.identity(id), nil
}

// identity is one of the mesh, whether anybody here has it or not.
func (x *Explainer) identity(id spiffeid.ID) *client {
	c := &client{node: Node{Kind: NodeClient, Name: id.String()}, assumed: []spiffeid.ID{id}}
	key, ok := x.accountOf(id)
	if ok {
		c.node.Name = "ServiceAccount " + key.String()
		for _, p := range x.w.PodsIn(key.Namespace) {
			if accountName(p) == key.Name {
				c.pods = append(c.pods, p)
			}
		}
	}
	if len(c.pods) == 0 {
		c.notes = append(c.notes, "no pod of "+c.node.Name+" is seen; that it is in the mesh, and sends as pods there do, is assumed")
		c.mode = modeAmbient
		return c
	}
	c.node.Detail = counted(len(c.pods), "pod")
	return c
}

func (x *Explainer) workload(s Source) (*client, error) {
	c := &client{node: Node{Kind: NodeClient, Name: s.Kind + " " + s.Key.String()}, home: s.Key.Namespace}
	var selector *metav1.LabelSelector
	var template *corev1.PodTemplateSpec
	var known []string
	for i := range x.w.Deployments {
		o := &x.w.Deployments[i]
		if key := keyOf(o); s.Kind == "Deployment" && key == s.Key {
			selector, template = o.Spec.Selector, &o.Spec.Template
		} else if s.Kind == "Deployment" {
			known = append(known, key.String())
		}
	}
	for i := range x.w.DaemonSets {
		o := &x.w.DaemonSets[i]
		if key := keyOf(o); s.Kind == "DaemonSet" && key == s.Key {
			selector, template = o.Spec.Selector, &o.Spec.Template
		} else if s.Kind == "DaemonSet" {
			known = append(known, key.String())
		}
	}
	if template == nil {
		return nil, notFound(s.Kind+" "+s.Key.String(), s.Key, known)
	}
	if selector != nil {
		c.pods = x.w.Selected(s.Key.Namespace, selector.MatchLabels)
	}
	c.node.Detail = counted(len(c.pods), "pod")
	if len(c.pods) == 0 {
		c.mode = template.Labels[plan.LabelDataplaneMode]
		c.notes = append(c.notes, c.node.Name+" has no pods: how they would send is taken from its template")
		if id, err := x.id(s.Key.Namespace, cmp.Or(template.Spec.ServiceAccountName, "default")); err == nil {
			c.assumed = append(c.assumed, id)
		}
	}
	return c, nil
}

// sender is some of a client's pods, which send in the same way.
type sender struct {
	who    string // which ones; empty: all
	inside bool
	native bool
	to     plan.Destination // what those inside send to
	doubt  string
	why    []string
	ids    []spiffeid.ID // none: they are not known
	ips    []netip.Addr
}

// senders parts a client by how its pods send to a target.
func (x *Explainer) senders(c *client, t *target, to plan.Destination, why string) (list []sender) {
	groups := map[standing][]*plan.Pod{}
	for _, p := range c.pods {
		s := x.standing(p)
		groups[s] = append(groups[s], p)
	}
	if c.view != nil {
		groups = x.gatewayGroups(c, groups)
	} else {
		x.speaking(groups)
	}
	total := len(c.pods)
	if total == 0 {
		groups[x.home(c)] = nil
	}
	for _, s := range []standing{inMesh, native, late, outside, unclear, perhaps, sidecar} {
		pods, there := groups[s]
		if !there {
			continue
		}
		one := sender{inside: true, to: to, ids: c.assumed}
		if total > 0 {
			one.ids = x.ids(pods)
			one.ips = addresses(pods)
		}
		if len(pods) < total {
			one.who = fmt.Sprintf("%d of %d pods, %s: %s", len(pods), total, s, some(pods))
		}
		list = append(list, x.sendersOf(one, s, why, c)...)
	}
	return list
}

// sendersOf makes of those in one standing the ways in which they may send.
func (x *Explainer) sendersOf(s sender, is standing, why string, c *client) []sender {
	both := func(s sender) []sender {
		if s.to != plan.ToUnknown {
			return []sender{s}
		}
		a, b := s, s
		a.to, a.doubt = plan.ToService, cmp.Or(s.doubt, "whether it sends to the Service's address is not known: "+why)
		b.to, b.doubt = plan.ToPods, a.doubt
		return []sender{a, b}
	}
	s.why = []string{why}
	outsider := s
	outsider.inside, outsider.ids, outsider.to = false, nil, plan.ToPods
	outsider.why = []string{"nothing carries its connections: whatever address it sends to, its node leads it to a pod, in plaintext"}
	switch is {
	case inMesh:
		s.why = append([]string{"ztunnel carries its connections"}, s.why...)
		return both(s)
	case native:
		s.native, s.why = true, append([]string{"it speaks HBONE itself"}, s.why...)
		return both(s)
	case late:
		s.to, s.why = plan.ToPods, []string{"it was captured after it had connected to its controller, which still has it send to pods"}
		return []sender{s}
	case outside:
		return []sender{outsider}
	case sidecar:
		s.native, s.to, s.doubt = true, plan.ToUnknown, "it has a sidecar, and how that sends is not looked at"
		outsider.doubt = s.doubt
		return append(both(s), outsider)
	case perhaps:
		s.native, s.doubt = true, "it may speak HBONE itself, as pods do that are kept from capture, or whose AmbientEdge says so: nobody can see it"
		s.why = append([]string{"if it speaks HBONE itself"}, s.why...)
		outsider.doubt = s.doubt
		return append(both(s), outsider)
	case unclear:
	}
	doubt := "whether it is in the mesh is not in the files"
	if len(c.pods) == 0 && !x.w.Paper {
		doubt = "it has no pods, which would tell whether it is in the mesh"
	}
	s.doubt, outsider.doubt = doubt, doubt
	s.why = append([]string{"if ztunnel carries its connections"}, s.why...)
	return append(both(s), outsider)
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func keyOf(o metav1.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
}

func addresses(pods []*plan.Pod) (list []netip.Addr) {
	for _, p := range pods {
		a, err := netip.ParseAddr(p.Status.PodIP)
		if err != nil {
			return nil // one of them is not known
		}
		list = append(list, a)
	}
	slices.SortFunc(list, netip.Addr.Compare)
	return slices.Compact(list)
}
