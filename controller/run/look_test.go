package run

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// TestWhatIsLookedAtIsEnough plans from what an edge looks at, and from all that there is.
func TestWhatIsLookedAtIsEnough(t *testing.T) {
	for name, all := range cases(t) {
		t.Run(name, func(t *testing.T) {
			crowd(all)
			from := newReader(t, all)
			r := &reconciler{client: &cluster{server: &server{}, reader: from}}
			some, err := r.look(t.Context(), all.Edge)
			if err != nil {
				t.Fatal(err)
			}
			whole, err := Observe(t.Context(), from, all.Edge)
			if err != nil {
				t.Fatal(err)
			}
			for i := range some.Services {
				if some.Services[i].Namespace == "elsewhere" {
					t.Error("what is of no concern was read")
				}
			}
			for _, facts := range []func(*plan.Snapshot){func(*plan.Snapshot) {}, answer} {
				facts(some)
				facts(whole)
				if d := cmp.Diff(told(plan.Make(whole), all.Edge), told(plan.Make(some), all.Edge)); d != "" {
					t.Errorf("-of all +of what was looked at\n%s", d)
				}
			}
		})
	}
}

// crowd adds what concerns no edge.
func crowd(s *plan.Snapshot) {
	ns := corev1.Namespace{}
	ns.Name = "elsewhere"
	service := corev1.Service{}
	service.Namespace, service.Name = "elsewhere", "other"
	service.Labels = map[string]string{plan.LabelUseWaypoint: "waypoint"}
	service.Spec.Selector = map[string]string{"app": "orders"}
	pod := plan.Pod{}
	pod.Namespace, pod.Name, pod.Labels = "elsewhere", "other", service.Spec.Selector
	s.Namespaces, s.Services, s.Pods = append(s.Namespaces, ns), append(s.Services, service), append(s.Pods, pod)
}

// TestPlansNeedNoMoreThanCachesKeep plans from objects as a cache keeps them, and as the API server has them.
func TestPlansNeedNoMoreThanCachesKeep(t *testing.T) {
	for name, s := range cases(t) {
		t.Run(name, func(t *testing.T) {
			answer(s)
			want := told(plan.Make(s), s.Edge)
			var pods []plan.Pod
			for _, o := range newReader(t, s).objects() {
				if _, err := strip(o); err != nil {
					t.Fatal(err)
				}
				if p, is := o.(*corev1.Pod); is {
					pods = append(pods, plan.PodOf(p))
				}
			}
			s.Pods = pods
			if d := cmp.Diff(want, told(plan.Make(s), s.Edge)); d != "" {
				t.Errorf("-as it is +as it is kept\n%s", d)
			}
		})
	}
}

// TestObjectsConcernThoseWhoLookedAtThem takes each object of each case away: whoever's plan changes is asked for.
func TestObjectsConcernThoseWhoLookedAtThem(t *testing.T) {
	for name, all := range cases(t) {
		t.Run(name, func(t *testing.T) {
			from := newReader(t, all)
			edge := client.ObjectKeyFromObject(all.Edge)
			r := &reconciler{client: &cluster{server: &server{}, reader: from}}
			if _, err := r.look(t.Context(), all.Edge); err != nil {
				t.Fatal(err)
			}
			answer(all)
			before := told(plan.Make(all), all.Edge)
			for _, o := range from.objects()[1:] {
				without := *all
				remove(&without, o)
				answer(&without)
				concerned := set{}
				if r.concerns.whom(o, concerned); !concerned[edge] && !cmp.Equal(before, told(plan.Make(&without), all.Edge)) {
					t.Errorf("%T %s changes the plan, and does not concern the edge", o, client.ObjectKeyFromObject(o))
				}
			}
			crowd(all)
			for _, o := range from.objects() {
				concerned := set{}
				if r.concerns.whom(o, concerned); o.GetNamespace() == "elsewhere" && len(concerned) > 0 {
					t.Errorf("%T %s concerns the edge", o, client.ObjectKeyFromObject(o))
				}
			}
			r.forget(edge)
			for _, o := range from.objects()[1:] {
				concerned := set{}
				if r.concerns.whom(o, concerned); concerned[edge] {
					t.Errorf("%T %s concerns an edge that is forgotten", o, client.ObjectKeyFromObject(o))
				}
			}
		})
	}
}

// remove takes an object out of a snapshot, whose lists are made anew.
func remove(s *plan.Snapshot, o client.Object) {
	s.Edges = dropped(s.Edges, o)
	s.Namespaces = dropped(s.Namespaces, o)
	s.Pods = slices.DeleteFunc(slices.Clone(s.Pods), func(p plan.Pod) bool {
		_, is := o.(*corev1.Pod)
		return is && p.Namespace == o.GetNamespace() && p.Name == o.GetName()
	})
	s.Services = dropped(s.Services, o)
	s.Deployments = dropped(s.Deployments, o)
	s.DaemonSets = dropped(s.DaemonSets, o)
	s.Gateways = dropped(s.Gateways, o)
	s.Classes = dropped(s.Classes, o)
	s.HTTPRoutes = dropped(s.HTTPRoutes, o)
	s.ReferenceGrants = dropped(s.ReferenceGrants, o)
	s.Ingresses = dropped(s.Ingresses, o)
	s.IngressClasses = dropped(s.IngressClasses, o)
	for _, list := range []*[]*unstructured.Unstructured{&s.Objects, &s.ServiceEntries, &s.OtherRoutes, &s.ListenerSets, &s.Extensions, &s.Rules} {
		all := *list
		*list = nil
		for _, u := range all {
			if client.Object(u) != o {
				*list = append(*list, u)
			}
		}
	}
	strictness := s.Strictness
	s.Strictness = nil
	for _, p := range strictness {
		if client.Object(p) != o {
			s.Strictness = append(s.Strictness, p)
		}
	}
	requests := s.RequestAuthentications
	s.RequestAuthentications = nil
	for _, p := range requests {
		if client.Object(p) != o {
			s.RequestAuthentications = append(s.RequestAuthentications, p)
		}
	}
	policies := s.Policies
	s.Policies = nil
	for _, p := range policies {
		if client.Object(p) != o {
			s.Policies = append(s.Policies, p)
		}
	}
}

func dropped[T any, P interface {
	*T
	client.Object
}](list []T, o client.Object) (rest []T) {
	for i := range list {
		if client.Object(P(&list[i])) != o {
			rest = append(rest, list[i])
		}
	}
	return rest
}

// TestChoicesAreBounded: a route that delegates to very many others makes an edge read all that can be delegated to, and remember none of the choices. What it
// plans is the same, and what changes it concerns it.
func TestChoicesAreBounded(t *testing.T) {
	worlds := cases(t)
	for _, name := range []string{"delegation-by-name", "delegation-by-label-and-all-of-a-namespace", "delegation-agentgateway-says-nothing"} {
		t.Run(name, func(t *testing.T) {
			all := worlds[name]
			crowd(all)
			route := gatewayv1.HTTPRoute{} // of another Gateway
			route.Namespace, route.Name, route.Spec.ParentRefs = "elsewhere", "other", []gatewayv1.ParentReference{{Name: "other"}}
			route.Spec.Rules = []gatewayv1.HTTPRouteRule{{BackendRefs: []gatewayv1.HTTPBackendRef{{BackendRef: gatewayv1.BackendRef{BackendObjectReference: gatewayv1.BackendObjectReference{Name: "other"}}}}}}
			all.HTTPRoutes = append(all.HTTPRoutes, route)
			i := slices.IndexFunc(all.HTTPRoutes, func(o gatewayv1.HTTPRoute) bool { return o.Name == "root" })
			rule := &all.HTTPRoutes[i].Spec.Rules[0]
			for n := range maxChoices + 1 {
				group, kind := gatewayv1.Group(gatewayv1.GroupName), gatewayv1.Kind("HTTPRoute")
				ref := gatewayv1.HTTPBackendRef{}
				ref.Group, ref.Kind, ref.Name = &group, &kind, gatewayv1.ObjectName(fmt.Sprintf("nobody-%d", n))
				rule.BackendRefs = append([]gatewayv1.HTTPBackendRef{ref}, rule.BackendRefs...)
			}
			from := newReader(t, all)
			r := &reconciler{client: &cluster{server: &server{}, reader: from}}
			some, err := r.look(t.Context(), all.Edge)
			if err != nil {
				t.Fatal(err)
			}
			if slices.ContainsFunc(some.Services, func(o corev1.Service) bool { return o.Namespace == "elsewhere" }) {
				t.Error("what is of no concern was read")
			}
			s := r.concerns.scopes[client.ObjectKeyFromObject(all.Edge)]
			if len(s.choices) > maxChoices || !s.delegated {
				t.Errorf("it remembers %d choices", len(s.choices))
			}
			whole, err := Observe(t.Context(), from, all.Edge)
			if err != nil {
				t.Fatal(err)
			}
			p := plan.Make(some)
			if d := cmp.Diff(told(plan.Make(whole), all.Edge), told(p, all.Edge)); d != "" || len(p.Backends) == 0 {
				t.Errorf("%d backends; -of all +of what was looked at\n%s", len(p.Backends), d)
			}
			for i := range all.HTTPRoutes {
				o := &all.HTTPRoutes[i]
				concerned := set{}
				if r.concerns.whom(o, concerned); (len(concerned) > 0) != (o.Name == "root" || delegable(o)) {
					t.Errorf("HTTPRoute %s concerns %v", o.Name, concerned)
				}
			}
		})
	}
}

func TestAnEdgeThatReachesFurtherIsReadAgain(t *testing.T) {
	var c concerns
	e := types.NamespacedName{Namespace: "edge", Name: "public"}
	small, large := newScope("edge.public", "edge"), newScope("edge.public", "edge")
	large.services[types.NamespacedName{Namespace: "shop", Name: "orders"}] = true
	large.namespaces["shop"] = true
	some, every := newScope("edge.public", "edge"), newScope("edge.public", "edge")
	some.choices[plan.Choice{Name: "orders"}] = true
	every.delegated, every.choices = true, nil
	for i, step := range []struct {
		scope *scope
		known bool
	}{{small, false}, {small, true}, {large, false}, {large, true}, {small, true}, {large, false}, {some, false}, {every, false}, {every, true}, {some, true}, {every, false}} {
		if got := c.note(e, step.scope); got != step.known {
			t.Errorf("step %d: known is %v", i, got)
		}
	}
}
