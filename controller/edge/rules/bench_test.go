package rules_test

import (
	"fmt"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/isthmus-mesh/isthmus/controller/edge/rules"
)

// indexed are Objects as a reader of a cluster has them.
type indexed struct {
	byName      map[string]*unstructured.Unstructured
	byNamespace map[string][]*unstructured.Unstructured
}

func (x *indexed) add(o *unstructured.Unstructured) {
	kind := o.GroupVersionKind().GroupKind().String()
	x.byName[kind+" "+o.GetNamespace()+"/"+o.GetName()] = o
	for _, ns := range []string{o.GetNamespace(), ""} {
		x.byNamespace[kind+" "+ns] = append(x.byNamespace[kind+" "+ns], o)
	}
}

func (x *indexed) Get(kind schema.GroupKind, namespace, name string) *unstructured.Unstructured {
	return x.byName[kind.String()+" "+namespace+"/"+name]
}

func (x *indexed) List(kind schema.GroupKind, namespace string) []*unstructured.Unstructured {
	return x.byNamespace[kind.String()+" "+namespace]
}

// BenchmarkOf reads one gateway with 5,000 routes in 500 namespaces, a policy for each, and asks what is in force at each.
func BenchmarkOf(b *testing.B) {
	x := &indexed{map[string]*unstructured.Unstructured{}, map[string][]*unstructured.Unstructured{}}
	object := func(apiVersion, kind, namespace, name string, spec map[string]any) *unstructured.Unstructured {
		o := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": apiVersion, "kind": kind, "metadata": map[string]any{"namespace": namespace, "name": name}, "spec": spec,
		}}
		x.add(o)
		return o
	}
	object("gateway.networking.k8s.io/v1", "Gateway", "gw", "http", map[string]any{})
	var routes []rules.Route
	for i := range 5000 {
		ns, name := fmt.Sprint("ns", i%500), fmt.Sprint("r", i)
		route := object("gateway.networking.k8s.io/v1", "HTTPRoute", ns, name, map[string]any{
			"rules": []any{map[string]any{"backendRefs": []any{map[string]any{"name": name, "port": int64(80)}}}},
		})
		object("gateway.kgateway.dev/v1alpha1", "TrafficPolicy", ns, name, map[string]any{
			"targetRefs": []any{map[string]any{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": name}},
			"timeouts":   map[string]any{"request": "1s"}, "rbac": map[string]any{"policy": map[string]any{"matchExpressions": []any{"true"}}},
		})
		routes = append(routes, rules.Route{Ref: refOf(route), Object: route.Object})
	}
	gateway := rules.Gateway{Ref: rules.Ref{Group: "gateway.networking.k8s.io", Kind: "Gateway", Namespace: "gw", Name: "http"}}
	b.ReportAllocs()
	for b.Loop() {
		set := rules.Of("kgateway", gateway, routes, x)
		for _, r := range routes {
			if n := len(set.At(gateway.Ref, rules.Place{Route: r.Ref, Section: "rules[0]"})); n != 3 {
				b.Fatalf("%d rules at %s", n, r.Ref)
			}
		}
	}
}
