package controllertest

import (
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// plans are the golden plans, whose objects are a vendor's world.
const plans = "../../controller/plan/testdata"

// TestEveryVendorIsManagedAndUndone makes the world of each vendor's first golden plan, lets the controller bring its edge about, and undoes it.
func TestEveryVendorIsManagedAndUndone(t *testing.T) {
	for _, v := range edge.Vendors() {
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			manageVendor(t, &v)
		})
	}
}

func manageVendor(t *testing.T, v *edge.Vendor) {
	s, w := vendorSite(t, v, v.Name)
	before := s.state(false)
	text, err := yaml.Marshal(w.edge.Object)
	if err != nil {
		t.Fatal(err)
	}
	s.apply(string(text))
	e, took := s.ready("public", v1alpha1.ReasonDone)
	t.Logf("ready after %v", took)
	if g := e.Status.Gateways; len(g) != 1 || g[0].Vendor != v.Name || g[0].Pods == 0 {
		t.Errorf("gateways are %+v", g)
	}
	switched := false
	for _, step := range e.Status.Plan.Steps {
		t.Logf("%s %s: %s", step.State, step.ID, step.Reason)
		switched = switched || step.Verb == plan.VerbSwitch
	}
	if want := slices.ContainsFunc(v.Switches, func(s edge.Switch) bool { return s.Writable() }); switched != want {
		t.Errorf("a switch was set: %v, want %v", switched, want)
	}
	during := s.state(false)
	changed := 0
	for _, name := range slices.Sorted(maps.Keys(during)) {
		if during[name] != before[name] {
			changed++
			t.Logf("changed: %s", name)
		}
	}
	if native := v.Native != edge.NativeNever; changed == 0 && !native && v.Never == "" {
		t.Error("nothing was changed")
	}
	s.delete(e)
	t.Logf("undone after %v", s.gone(e))
	s.same(before, false)
	s.leaveAlone()
}

// vendorSite makes the world of a vendor's first golden plan, and waits until it is at rest.
func vendorSite(t *testing.T, v *edge.Vendor, name string) (*site, *worldOf) {
	t.Helper()
	s := newSite(t, name)
	w := newWorldOf(t, filepath.Join(plans, v.Name+"-fresh.yaml"), s)
	s.apply(w.text())
	for _, r := range w.routes {
		s.accept(s.edge, r)
	}
	s.settled("orders-1")
	s.wait("the gateway has its pods", func() string {
		if w.workload == "" {
			return ""
		}
		return s.hasPods(w.workload)
	})
	s.wait("the waypoint is programmed", func() string {
		g := &gatewayv1.Gateway{}
		if err := s.c.Get(t.Context(), types.NamespacedName{Namespace: s.shop, Name: "waypoint"}, g); err != nil {
			return err.Error()
		}
		if !plan.Programmed(g) {
			return "it is not"
		}
		return ""
	})
	return s, w
}

// leaveAlone tells the player that a test has done with its namespaces.
func (s *site) leaveAlone() {
	s.t.Helper()
	for _, name := range []string{s.edge, s.shop} {
		patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"annotations":{"`+annotationIdle+`":"done"}}}`))
		if err := s.c.Patch(s.t.Context(), object("v1", "Namespace", "", name), patch); err != nil {
			s.t.Fatal(err)
		}
	}
}

// hasPods says what a workload of the edge's namespace lacks.
func (s *site) hasPods(name string) string {
	s.t.Helper()
	u := object("apps/v1", "Deployment", s.edge, name)
	if err := s.c.Get(s.t.Context(), client.ObjectKeyFromObject(u), u); err != nil {
		return err.Error()
	}
	if n, _, _ := unstructured.NestedInt64(u.Object, "status", "availableReplicas"); n == 0 {
		return "Deployment " + name + " has none"
	}
	return ""
}

// worldOf is the world of a golden plan, for one site.
type worldOf struct {
	edge     *unstructured.Unstructured
	objects  []*unstructured.Unstructured
	routes   []string
	workload string // a Deployment in the edge's namespace
}

// newWorldOf reads a golden plan: namespaces get the site's names, cluster-wide names become its own, and what an API server wants besides is added.
func newWorldOf(t *testing.T, file string, s *site) *worldOf {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	input, _, _ := strings.Cut(string(text), "---plan---\n")
	w := &worldOf{}
	d := utilyaml.NewYAMLToJSONDecoder(strings.NewReader(input))
	for {
		o := &unstructured.Unstructured{}
		if err := d.Decode(&o.Object); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		o.Object = renamed(o.Object, s).(map[string]any)
		w.add(t, o, s)
	}
	if w.edge == nil || len(w.objects) < 5 {
		t.Fatalf("%s has %d objects", file, len(w.objects))
	}
	w.objects = slices.DeleteFunc(w.objects, func(o *unstructured.Unstructured) bool {
		return o.GetKind() == "Pod" && w.runs(o) // the Deployment makes them
	})
	return w
}

// renamed gives namespaces the site's names, wherever they stand.
func renamed(v any, s *site) any {
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			v[k] = renamed(x, s)
		}
	case []any:
		for i, x := range v {
			v[i] = renamed(x, s)
		}
	case string:
		switch v {
		case "edge":
			return s.edge
		case "shop":
			return s.shop
		case "edge/public":
			return s.edge + "/public"
		case "envoy-gateway-system", "kube-system":
			return s.edge + "-" + v
		}
	}
	return v
}

func (w *worldOf) add(t *testing.T, o *unstructured.Unstructured, s *site) {
	t.Helper()
	for _, field := range []string{"uid", "managedFields", "generation"} {
		unstructured.RemoveNestedField(o.Object, "metadata", field)
	}
	delete(o.Object, "status")
	set := func(v any, path ...string) {
		t.Helper()
		if err := unstructured.SetNestedField(o.Object, v, path...); err != nil {
			t.Fatal(err)
		}
	}
	container := map[string]any{"name": "c", "image": "nothing"}
	switch o.GetKind() {
	case "AmbientEdge":
		w.edge = o
		return
	case "GatewayClass", "IngressClass":
		o.SetName(s.edge + "-" + o.GetName())
	case "Gateway":
		class, _, _ := unstructured.NestedString(o.Object, "spec", "gatewayClassName")
		listener := map[string]any{"name": "http", "port": int64(80), "protocol": "HTTP"}
		if class == plan.WaypointClass {
			listener = map[string]any{"name": "mesh", "port": int64(15008), "protocol": "HBONE"}
		} else {
			set(s.edge+"-"+class, "spec", "gatewayClassName")
		}
		set([]any{listener}, "spec", "listeners")
	case "Ingress":
		class, _, _ := unstructured.NestedString(o.Object, "spec", "ingressClassName")
		set(s.edge+"-"+class, "spec", "ingressClassName")
	case "HTTPRoute":
		w.routes = append(w.routes, o.GetName())
	case "Service":
		set([]any{map[string]any{"name": "http", "port": int64(80)}}, "spec", "ports")
		unstructured.RemoveNestedField(o.Object, "spec", "clusterIP")
	case "Pod":
		set([]any{container}, "spec", "containers")
		a := o.GetAnnotations()
		delete(a, plan.AnnotationRedirection) // that is the player's to say
		o.SetAnnotations(a)
	case "Deployment", "DaemonSet":
		set(int64(0), "spec", "template", "spec", "terminationGracePeriodSeconds")
		if o.GetNamespace() == s.edge {
			w.workload = o.GetName()
		}
	}
	w.objects = append(w.objects, o)
}

// runs says whether a Deployment of the world makes pods like this one.
func (w *worldOf) runs(pod *unstructured.Unstructured) bool {
	return slices.ContainsFunc(w.objects, func(o *unstructured.Unstructured) bool {
		if o.GetKind() != "Deployment" || o.GetNamespace() != pod.GetNamespace() {
			return false
		}
		labels, _, _ := unstructured.NestedStringMap(o.Object, "spec", "selector", "matchLabels")
		for k, v := range labels {
			if pod.GetLabels()[k] != v {
				return false
			}
		}
		return true
	})
}

// text is the world as documents, with the namespaces of all objects first.
func (w *worldOf) text() string {
	there := map[string]bool{}
	for _, o := range w.objects {
		if o.GetKind() == "Namespace" {
			there[o.GetName()] = true
		}
	}
	var parts []string
	for _, o := range w.objects {
		if ns := o.GetNamespace(); ns != "" && !there[ns] {
			there[ns] = true
			parts = append(parts, "{apiVersion: v1, kind: Namespace, metadata: {name: "+ns+"}}\n")
		}
	}
	for _, o := range w.objects {
		text, err := yaml.Marshal(o.Object)
		if err != nil {
			return err.Error()
		}
		parts = append(parts, string(text))
	}
	return strings.Join(parts, "---\n")
}
