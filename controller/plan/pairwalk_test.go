package plan_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	metaapi "istio.io/api/meta/v1alpha1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// dataPlane is what ztunnels and waypoints have of a world: they hear of each write of its own, in any order, some time after the API server has it.
type dataPlane struct {
	t        *testing.T
	rng      *rand.Rand
	s        *plan.Snapshot
	policies map[types.NamespacedName]*securityv1.AuthorizationPolicy
	led      bool // orders leads to its waypoint
	unheard  []func()
	sent     []func() // of those the policies for waypoints, in order
	check    func(after string)
	apart    string // a principal of whom another check tells; empty: none
	uid      int
}

var orders = types.NamespacedName{Namespace: "shop", Name: "orders"}

func newDataPlane(t *testing.T, rng *rand.Rand, s *plan.Snapshot) *dataPlane {
	d := &dataPlane{t: t, rng: rng, s: s, policies: map[types.NamespacedName]*securityv1.AuthorizationPolicy{}, check: func(string) {}}
	for _, p := range s.Policies {
		d.policies[nameOf(p)] = p
	}
	return d
}

func nameOf(o metav1.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
}

func (d *dataPlane) orders() *corev1.Service {
	i := slices.IndexFunc(d.s.Services, func(o corev1.Service) bool { return nameOf(&o) == orders })
	return &d.s.Services[i]
}

// write does to the world what the API server would.
func (d *dataPlane) write(w *plan.Write) {
	switch w.Kind {
	case "AuthorizationPolicy":
		d.writePolicy(w)
	case "Service":
		if w.Delete || w.UID == "" {
			d.writeWitness(w)
			return
		}
		i := slices.IndexFunc(d.s.Services, func(o corev1.Service) bool { return nameOf(&o) == w.Key })
		label(&d.s.Services[i], w, d.s.Edge.FieldOwner())
		if w.Key == orders {
			d.unheard = append(d.unheard, d.bind)
		}
	case "Namespace":
		i := slices.IndexFunc(d.s.Namespaces, func(o corev1.Namespace) bool { return o.Name == w.Key.Name })
		label(&d.s.Namespaces[i], w, d.s.Edge.FieldOwner())
		for j := range d.s.Pods {
			if o := &d.s.Pods[j]; o.Namespace == w.Key.Name && d.s.Namespaces[i].Labels[plan.LabelDataplaneMode] == "" {
				delete(o.Annotations, plan.AnnotationRedirection)
			}
		}
	default:
		d.t.Fatalf("it writes %s", w)
	}
}

// writeWitness makes or deletes the Service of a witness.
func (d *dataPlane) writeWitness(w *plan.Write) {
	at := func(o corev1.Service) bool { return nameOf(&o) == w.Key }
	if w.Delete {
		d.s.Services = slices.DeleteFunc(slices.Clone(d.s.Services), at)
		return
	}
	o := corev1.Service{}
	text, err := json.Marshal(w.Fields)
	if err == nil {
		err = json.Unmarshal(text, &o)
	}
	if err != nil || slices.ContainsFunc(d.s.Services, at) || len(o.Spec.Selector) > 0 {
		d.t.Fatalf("it makes %s: %v", w, err)
	}
	d.uid++
	o.Namespace, o.Name, o.UID, o.Spec.ClusterIP = w.Key.Namespace, w.Key.Name, types.UID(fmt.Sprint("made-", d.uid)), "10.96.0.7"
	o.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: d.s.Edge.FieldOwner(), Operation: metav1.ManagedFieldsOperationUpdate, FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(`{"f:spec":{}}`)}}
	d.s.Services = append(slices.Clone(d.s.Services), o)
}

// asked is what the controller finds out: the waypoint shows what it has heard of.
func (d *dataPlane) asked() {
	asked(d.s)
	for _, q := range plan.WitnessesToAsk(d.s) {
		p := d.policies[nameOf(q.Service)]
		if p == nil || p.Spec.Rules[0].To[0].Operation.NotPaths[0] != q.Path {
			d.s.Shown[q.Waypoint] = plan.WitnessFact{Path: q.Path}
		}
	}
}

// hears has the data planes hear of a write once. Of a witness's policy they hear when they have heard of all policies for waypoints before it.
func (d *dataPlane) hears(p *securityv1.AuthorizationPolicy, key types.NamespacedName, hear func()) {
	once := sync.OnceFunc(hear)
	atWaypoint := p != nil && len(p.Spec.GetTargetRefs()) > 0
	if strings.HasPrefix(key.Name, "isthmus-witness-") {
		before := slices.Clone(d.sent)
		once = sync.OnceFunc(func() {
			for _, earlier := range before {
				earlier()
			}
			hear()
		})
	}
	if atWaypoint {
		d.sent = append(d.sent, once)
	}
	d.unheard = append(d.unheard, once)
}

// bind is istiod's turn when a label has come or gone.
func (d *dataPlane) bind() {
	o := d.orders()
	is := metav1.ConditionFalse
	if d.led = o.Labels[plan.LabelUseWaypoint] != ""; d.led {
		is = metav1.ConditionTrue
	}
	meta.SetStatusCondition(&o.Status.Conditions, metav1.Condition{Type: plan.ConditionWaypointBound, Status: is, Reason: "Seen"})
	for _, p := range d.s.Policies {
		d.accept(p)
	}
}

// accept is istiod's word about a policy of ours that data planes have.
func (d *dataPlane) accept(p *securityv1.AuthorizationPolicy) {
	if d.policies[nameOf(p)] != p || p.Labels[v1alpha1.LabelOwner] == "" {
		return
	}
	c := &metaapi.IstioCondition{Type: "ZtunnelAccepted", Status: "True", ObservedGeneration: p.Generation}
	if len(p.Spec.GetTargetRefs()) > 0 {
		if c.Type = "WaypointAccepted"; !d.led {
			c.Status, c.Reason = "False", "AncestorNotBound"
		}
	}
	p.Status.Conditions = []*metaapi.IstioCondition{c}
}

func (d *dataPlane) writePolicy(w *plan.Write) {
	i := slices.IndexFunc(d.s.Policies, func(p *securityv1.AuthorizationPolicy) bool { return nameOf(p) == w.Key })
	if w.Delete {
		if i < 0 || d.s.Policies[i].UID != w.UID {
			d.t.Fatalf("it deletes %s, which is not there", w)
		}
		d.s.Policies = slices.Delete(slices.Clone(d.s.Policies), i, i+1)
		d.unheard = append(d.unheard, func() { delete(d.policies, w.Key) })
		return
	}
	text, err := json.Marshal(w.Fields)
	p := &securityv1.AuthorizationPolicy{}
	if err == nil {
		err = json.Unmarshal(text, p)
	}
	if err != nil {
		d.t.Fatal(err)
	}
	d.uid++
	p.Namespace, p.Name, p.UID, p.Generation = w.Key.Namespace, w.Key.Name, types.UID(fmt.Sprint("made-", d.uid)), int64(d.uid)
	p.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: d.s.Edge.FieldOwner(), Operation: metav1.ManagedFieldsOperationUpdate, FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(`{"f:spec":{}}`)}}
	if d.s.Policies = slices.Clone(d.s.Policies); i < 0 {
		d.s.Policies = append(d.s.Policies, p)
	} else {
		p.UID = d.s.Policies[i].UID
		d.s.Policies[i] = p
	}
	d.hears(p, w.Key, func() { d.policies[w.Key] = p; d.accept(p) })
}

// label gives an object the labels of a write, and takes away those that were written before and are not in it.
func label(o metav1.Object, w *plan.Write, manager string) {
	labels := map[string]string{}
	for k, v := range o.GetLabels() {
		labels[k] = v
	}
	o.SetManagedFields(slices.DeleteFunc(slices.Clone(o.GetManagedFields()), func(f metav1.ManagedFieldsEntry) bool {
		if f.Manager != manager {
			return false
		}
		for k := range labels {
			if strings.Contains(f.FieldsV1.GetRawString(), `"f:`+k+`"`) {
				delete(labels, k)
			}
		}
		return true
	}))
	var held []string
	metadata, _ := w.Fields["metadata"].(map[string]any)
	more, _ := metadata["labels"].(map[string]any)
	for k, v := range more {
		labels[k] = fmt.Sprint(v)
		held = append(held, fmt.Sprintf("%q:{}", "f:"+k))
	}
	if o.SetLabels(labels); len(held) > 0 {
		now := metav1.NewTime(time.Unix(0, 0))
		o.SetManagedFields(append(o.GetManagedFields(), metav1.ManagedFieldsEntry{
			Manager: manager, Operation: metav1.ManagedFieldsOperationApply, FieldsType: "FieldsV1", Time: &now,
			FieldsV1: metav1.NewFieldsV1(`{"f:metadata":{"f:labels":{` + strings.Join(held, ",") + `}}}`),
		}))
	}
}

// walk carries out plans until nothing is left that they write. Data planes hear of a write when they do, and of all that goes before the next plan: for
// that the controller waits.
func (d *dataPlane) walk() *plan.Plan {
	p, ends := d.walkFor(100)
	if !ends {
		d.t.Fatalf("it does not come to an end: %v", plan.Make(d.s).Steps)
	}
	return p
}

// walkFor carries out as many plans at most, and says whether nothing is left then that they write.
func (d *dataPlane) walkFor(plans int) (*plan.Plan, bool) {
	for range plans {
		d.asked()
		p := plan.Make(d.s)
		writes := p.Writes()
		if len(writes) == 0 && len(d.unheard) == 0 {
			return p, true
		}
		goes := false
		for _, w := range writes {
			d.write(w)
			goes = goes || w.Delete || len(w.Fields) == 0
		}
		d.rng.Shuffle(len(d.unheard), func(i, j int) { d.unheard[i], d.unheard[j] = d.unheard[j], d.unheard[i] })
		for len(d.unheard) > 0 && (goes || len(writes) == 0 || d.rng.IntN(3) > 0) {
			hear := d.unheard[0]
			d.unheard = d.unheard[1:]
			hear()
			d.check(fmt.Sprint(ids(p)))
		}
	}
	return nil, false
}

// ids are the steps of a plan that write, for people.
func ids(p *plan.Plan) (list []string) {
	for _, s := range p.Steps {
		if s.Write != nil {
			list = append(list, s.ID)
		}
	}
	return list
}

// call is a request to one port of a Service, on its way to one of its pods.
type call struct {
	id            spiffeid.ID
	service, port uint16
	pod           int
}

// enforced are the points on the ways to the pods of Services of the shop.
type enforced struct {
	set  *policy.Set
	pods [2]*policy.Point
}

// now is what data planes enforce.
func (d *dataPlane) now() *enforced {
	var list []*securityv1.AuthorizationPolicy
	for _, p := range d.policies {
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b *securityv1.AuthorizationPolicy) int { return strings.Compare(a.Name, b.Name) })
	return enforcing(list, d.s)
}

func enforcing(list []*securityv1.AuthorizationPolicy, s *plan.Snapshot) *enforced {
	e := &enforced{set: policy.New(policy.Mesh{AuthorizationPolicies: list})}
	for i := range e.pods {
		e.pods[i] = e.set.Ztunnel(policy.Workload{Namespace: "shop", Labels: s.Pods[i].Labels})
	}
	return e
}

// behind is the waypoint for a Service; nil where that does not lead there.
func (e *enforced) behind(service types.NamespacedName, led bool) *policy.Point {
	if !led {
		return nil
	}
	return e.set.Waypoint(policy.Target{Kind: policy.KindGateway, Namespace: "shop", Name: "waypoint"}, policy.Target{Kind: policy.KindService, Namespace: service.Namespace, Name: service.Name})
}

// way is what a caller gets by a waypoint, and from a pod itself without one.
func (e *enforced) way(c call, waypoint *policy.Point) policy.Verdict {
	r := &policy.Request{Source: policy.Of(c.id), ServicePort: policy.Of(c.service), WorkloadPort: policy.Of(c.port)}
	path := policy.Path{Waypoint: waypoint, Workload: e.pods[c.pod], WaypointSource: policy.Of(spiffeid.RequireFromString("spiffe://cluster.local/ns/shop/sa/waypoint"))}
	return path.Decide(r).Verdict
}
