package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// of are the objects of a kind, whatever their version.
func (w *paperWorld) of(gk schema.GroupKind) (list []paperObject) {
	for _, o := range w.objects {
		if o.GroupVersionKind().GroupKind() == gk {
			list = append(list, o)
		}
	}
	return list
}

func (w *paperWorld) has(group, kind, namespace, name string) bool {
	return slices.ContainsFunc(w.of(schema.GroupKind{Group: group, Kind: kind}), func(o paperObject) bool {
		return o.GetNamespace() == namespace && o.GetName() == name
	})
}

// imply adds what files as a rule leave to a cluster, and says what is assumed by that: namespaces that are named and not there, that routes are
// accepted which tell nothing, and a pod for each workload without one. Policies that are not there are told of, as nobody can see whether there are none.
func (w *paperWorld) imply(e *v1alpha1.AmbientEdge) {
	w.implyNamespaces(e)
	w.implyAccepted()
	w.implyPods()
	if len(w.of(schema.GroupKind{Group: "security.istio.io", Kind: "AuthorizationPolicy"})) == 0 {
		w.note("the files have no AuthorizationPolicy: policies were not looked at, and a cluster's may refuse what a plan lets through")
	}
}

func (w *paperWorld) implyNamespaces(e *v1alpha1.AmbientEdge) {
	names := map[string]bool{e.Namespace: true}
	for _, o := range w.objects { // others may be in the files that have nothing to do with it
		if slices.Contains([]string{"AmbientEdge", "Gateway", "HTTPRoute", "Service", "Deployment", "DaemonSet", "Pod", "Ingress"}, o.GetKind()) {
			names[o.GetNamespace()] = true
		}
	}
	var assumed []string
	for name := range names {
		if w.has("", "Namespace", "", name) {
			continue
		}
		assumed = append(assumed, name)
	}
	slices.Sort(assumed)
	for _, name := range assumed {
		w.assume("v1", "Namespace", "", name, map[string]any{})
	}
	if len(assumed) > 0 {
		w.note("these Namespaces are not in the files, and are assumed to be there, without labels and without consent: %s", strings.Join(assumed, ", "))
	}
}

// assume adds an object that no file has.
func (w *paperWorld) assume(apiVersion, kind, namespace, name string, fields map[string]any) {
	u := &unstructured.Unstructured{Object: fields}
	u.SetAPIVersion(apiVersion)
	u.SetKind(kind)
	u.SetNamespace(namespace)
	u.SetName(name)
	w.objects = append(w.objects, paperObject{Unstructured: u, where: "assumed", place: place{item: -1}})
}

// implyAccepted has the Gateways accept the routes of which nothing is said.
func (w *paperWorld) implyAccepted() {
	const group = "gateway.networking.k8s.io"
	controllers := map[string]string{}
	for _, o := range w.of(schema.GroupKind{Group: group, Kind: "GatewayClass"}) {
		controllers[o.GetName()], _, _ = unstructured.NestedString(o.Object, "spec", "controllerName")
	}
	of := map[string]string{}
	for _, o := range w.of(schema.GroupKind{Group: group, Kind: "Gateway"}) {
		class, _, _ := unstructured.NestedString(o.Object, "spec", "gatewayClassName")
		of[o.GetNamespace()+"/"+o.GetName()] = controllers[class]
	}
	var assumed []string
	for _, o := range w.of(schema.GroupKind{Group: group, Kind: "HTTPRoute"}) {
		if _, told := o.Object["status"]; told {
			continue
		}
		refs, _, _ := unstructured.NestedSlice(o.Object, "spec", "parentRefs")
		var parents []any
		for _, r := range refs {
			ref, is := r.(map[string]any)
			if !is {
				continue
			}
			name, _ := ref["name"].(string)
			ns, _ := ref["namespace"].(string)
			if ns == "" {
				ns = o.GetNamespace()
			}
			condition := func(kind string) any {
				return map[string]any{"type": kind, "status": "True", "reason": "Assumed", "message": "", "observedGeneration": o.GetGeneration(), "lastTransitionTime": "1970-01-01T00:00:00Z"}
			}
			parents = append(parents, map[string]any{"parentRef": ref, "controllerName": of[ns+"/"+name], "conditions": []any{condition("Accepted"), condition("ResolvedRefs")}})
		}
		o.Object["status"] = map[string]any{"parents": parents}
		assumed = append(assumed, o.GetNamespace()+"/"+o.GetName())
	}
	if len(assumed) > 0 {
		w.note("these HTTPRoutes have no status in the files; that their Gateways accept them is assumed: %s", strings.Join(assumed, ", "))
	}
}

// implyPods has each workload run a pod of its template, where the files have no pod of it.
func (w *paperWorld) implyPods() {
	pods := w.of(schema.GroupKind{Kind: "Pod"})
	var assumed []string
	for _, kind := range []string{"Deployment", "DaemonSet"} {
		for _, o := range w.of(schema.GroupKind{Group: "apps", Kind: kind}) {
			if n, set, _ := unstructured.NestedInt64(o.Object, "spec", "replicas"); set && n == 0 {
				continue
			}
			selector, _, _ := unstructured.NestedStringMap(o.Object, "spec", "selector", "matchLabels")
			if len(selector) == 0 || slices.ContainsFunc(pods, func(p paperObject) bool {
				return p.GetNamespace() == o.GetNamespace() && labels.SelectorFromSet(selector).Matches(labels.Set(p.GetLabels()))
			}) {
				continue
			}
			template, _, _ := unstructured.NestedMap(o.Object, "spec", "template")
			if template == nil {
				continue
			}
			name := o.GetName() + "-assumed"
			w.assume("v1", "Pod", o.GetNamespace(), name, template)
			assumed = append(assumed, fmt.Sprintf("%s %s/%s", kind, o.GetNamespace(), o.GetName()))
		}
	}
	if len(assumed) > 0 {
		w.note("the files have no pods of these; one of each template is assumed, and whether it is captured is not known: %s", strings.Join(assumed, ", "))
	}
}

// paperReader reads a paperWorld as if it were a cluster.
type paperReader struct {
	world  *paperWorld
	scheme *runtime.Scheme
}

// Get reads an object.
func (r *paperReader) Get(_ context.Context, key client.ObjectKey, to client.Object, _ ...client.GetOption) error {
	gvk, err := apiutil.GVKForObject(to, r.scheme)
	if err != nil {
		return err
	}
	for _, o := range r.world.of(gvk.GroupKind()) {
		if o.GetNamespace() == key.Namespace && o.GetName() == key.Name {
			return o.into(to)
		}
	}
	return apierrors.NewNotFound(schema.GroupResource{Group: gvk.Group, Resource: strings.ToLower(gvk.Kind)}, key.Name)
}

// List reads the objects of a kind.
func (r *paperReader) List(_ context.Context, to client.ObjectList, opts ...client.ListOption) error {
	gvk, err := apiutil.GVKForObject(to, r.scheme)
	if err != nil {
		return err
	}
	gvk.Kind = strings.TrimSuffix(gvk.Kind, "List")
	o := client.ListOptions{}
	o.ApplyOptions(opts)
	var list []runtime.Object
	for _, x := range r.world.of(gvk.GroupKind()) {
		if o.Namespace != "" && o.Namespace != x.GetNamespace() || o.LabelSelector != nil && !o.LabelSelector.Matches(labels.Set(x.GetLabels())) {
			continue
		}
		if _, plain := to.(*unstructured.UnstructuredList); plain {
			if x.GroupVersionKind().Version == gvk.Version {
				list = append(list, x.Unstructured)
			}
			continue
		}
		item, err := r.scheme.New(gvk)
		if err != nil {
			return err
		}
		if err := x.into(item); err != nil {
			return err
		}
		list = append(list, item)
	}
	return meta.SetList(to, list)
}

// into is the object in a type of its own.
func (o paperObject) into(to any) error {
	text, err := json.Marshal(o.Object)
	if err == nil {
		err = json.Unmarshal(text, to)
	}
	if err != nil {
		return &failure{what: fmt.Sprintf("%s %s/%s is malformed", o.GetKind(), o.GetNamespace(), o.GetName()), where: o.where, err: err, next: "correct the field"}
	}
	return nil
}

var _ client.Reader = (*paperReader)(nil)
