package controllertest

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	diff "github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/run"
	"github.com/isthmus-mesh/isthmus/e2e/mesh"
)

// site is a pair of namespaces of one test: EDGE and SHOP in the texts of objects.
type site struct {
	t          *testing.T
	mesh       *mesh.Mesh
	c          client.Client
	edge, shop string
	patience   time.Duration // how long to wait for anything; zero means 20 s, before the controller looks again by itself
	own        bool          // its AmbientEdges are for controllers of its own
	eager      bool          // what is waited for passes soon
}

func newSite(t *testing.T, name string) *site {
	t.Helper()
	return newSiteOf(t, api.Get(t), name)
}

func newSiteOf(t *testing.T, m *mesh.Mesh, name string) *site {
	t.Helper()
	c, err := clientOf(m)
	if err != nil {
		t.Fatal(err)
	}
	return &site{t: t, mesh: m, c: c, edge: name + "-edge", shop: name + "-shop"}
}

// clients are those of meshes: a new one asks the API server for all its kinds.
var clients sync.Map

// clientOf knows AmbientEdges too.
func clientOf(m *mesh.Mesh) (client.Client, error) {
	if c, ok := clients.Load(m); ok {
		return c.(client.Client), nil
	}
	scheme, err := run.Scheme()
	if err != nil {
		return nil, err
	}
	c, err := client.New(m.Config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, err
	}
	clients.Store(m, c)
	return c, nil
}

func (s *site) text(objects string) string {
	names := []string{"EDGE", s.edge, "SHOP", s.shop}
	if s.own {
		names = append([]string{"{name: public, namespace: EDGE}", "{name: public, namespace: " + s.edge + ", labels: {" + labelOwn + `: "yes"}}`}, names...)
	}
	return strings.NewReplacer(names...).Replace(objects)
}

func (s *site) apply(objects string) {
	s.t.Helper()
	text := s.text(objects)
	if s.own && strings.Contains(text, "kind: AmbientEdge") && !strings.Contains(text, labelOwn) {
		s.t.Fatalf("the controller of all would see this AmbientEdge too, as it has no label %s: %s", labelOwn, text)
	}
	if err := s.mesh.Apply(s.t.Context(), text); err != nil {
		s.t.Fatal(err)
	}
}

// accept says for a vendor that a route is accepted.
func (s *site) accept(namespace, name string) {
	s.t.Helper()
	s.acceptAt(namespace, name, 1)
}

// acceptAt says so of a generation of the route, as the controller of its Gateway's class.
func (s *site) acceptAt(namespace, name string, generation int) {
	s.t.Helper()
	g, class := &gatewayv1.Gateway{}, &gatewayv1.GatewayClass{}
	if err := s.c.Get(s.t.Context(), types.NamespacedName{Namespace: s.edge, Name: "http"}, g); err != nil {
		s.t.Fatal(err)
	}
	if err := s.c.Get(s.t.Context(), types.NamespacedName{Name: string(g.Spec.GatewayClassName)}, class); err != nil {
		s.t.Fatal(err)
	}
	patch := `{"status":{"parents":[{"parentRef":{"name":"http","namespace":"EDGE"},"controllerName":"CONTROLLER","conditions":[` +
		`{"type":"Accepted","status":"True","reason":"Accepted","message":"","observedGeneration":N,"lastTransitionTime":"2026-01-01T00:00:00Z"},` +
		`{"type":"ResolvedRefs","status":"True","reason":"ResolvedRefs","message":"","observedGeneration":N,"lastTransitionTime":"2026-01-01T00:00:00Z"}]}]}}`
	patch = strings.NewReplacer("N,", strconv.Itoa(generation)+",", "CONTROLLER", string(class.Spec.ControllerName)).Replace(patch)
	u := object("gateway.networking.k8s.io/v1", "HTTPRoute", namespace, name)
	if err := s.c.Status().Patch(s.t.Context(), u, client.RawPatch(types.MergePatchType, []byte(s.text(patch)))); err != nil {
		s.t.Fatal(err)
	}
}

func object(apiVersion, kind, namespace, name string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{}
	u.SetAPIVersion(apiVersion)
	u.SetKind(kind)
	u.SetNamespace(namespace)
	u.SetName(name)
	return u
}

func (s *site) get(name string) *v1alpha1.AmbientEdge {
	s.t.Helper()
	e := &v1alpha1.AmbientEdge{}
	if err := s.c.Get(s.t.Context(), types.NamespacedName{Namespace: s.edge, Name: name}, e); err != nil {
		s.t.Fatal(err)
	}
	return e
}

// Pauses between two looks at what is waited for: from the first to the last. A look is work for the API server, of which all tests want some.
const (
	firstPause = 20 * time.Millisecond
	lastPause  = 100 * time.Millisecond
)

// wait looks until nothing is missing.
func (s *site) wait(what string, missing func() string) time.Duration {
	s.t.Helper()
	begin := time.Now()
	ctx, cancel := context.WithTimeout(s.t.Context(), cmp.Or(s.patience, 20*time.Second))
	defer cancel()
	for pause := firstPause; ; pause = min(pause*5/4, lastPause) {
		why := missing()
		if why == "" {
			return time.Since(begin)
		}
		if s.eager {
			pause = firstPause
		}
		select {
		case <-ctx.Done():
			s.t.Fatalf("%s: after %v %s", what, time.Since(begin).Round(time.Millisecond), why)
		case <-time.After(pause):
		}
	}
}

// ready waits until the edge's condition Ready has a reason, for its present generation.
func (s *site) ready(name, reason string) (*v1alpha1.AmbientEdge, time.Duration) {
	s.t.Helper()
	var e *v1alpha1.AmbientEdge
	took := s.wait("Ready for the reason "+reason, func() string {
		e = s.get(name)
		c := meta.FindStatusCondition(e.Status.Conditions, v1alpha1.ConditionReady)
		if c != nil && c.Reason == reason && c.ObservedGeneration == e.Generation && (c.Status == metav1.ConditionTrue) == (reason == v1alpha1.ReasonDone) {
			return ""
		}
		text, _ := json.MarshalIndent(e.Status, "", " ")
		return string(text)
	})
	return e, took
}

// available waits until a Deployment is.
func (s *site) available(key types.NamespacedName) {
	s.t.Helper()
	s.wait("Deployment "+key.String()+" is available", func() string {
		d := &appsv1.Deployment{}
		if err := s.c.Get(s.t.Context(), key, d); err != nil {
			return err.Error()
		}
		if d.Status.AvailableReplicas == 0 || d.Status.ObservedGeneration != d.Generation {
			return fmt.Sprintf("it is not: %+v", d.Status)
		}
		return ""
	})
}

// delete asks for an object's deletion and does not wait for it.
func (s *site) delete(o client.Object) {
	s.t.Helper()
	if err := client.IgnoreNotFound(s.c.Delete(s.t.Context(), o)); err != nil {
		s.t.Fatal(err)
	}
}

// remove is delete for a cleanup, when the test's context has ended.
func (s *site) remove(o client.Object) {
	s.t.Helper()
	if err := client.IgnoreNotFound(s.c.Delete(context.WithoutCancel(s.t.Context()), o)); err != nil {
		s.t.Error(err)
	}
}

func (s *site) theEdge(name string) *v1alpha1.AmbientEdge {
	return &v1alpha1.AmbientEdge{ObjectMeta: metav1.ObjectMeta{Namespace: s.edge, Name: name}}
}

// confirm says that undo may go on where policies depend on what goes.
func (s *site) confirm(name string) {
	s.t.Helper()
	e := s.get(name)
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, v1alpha1.AnnotationUndo, e.UndoConfirmation())
	if err := s.c.Patch(s.t.Context(), e, client.RawPatch(types.MergePatchType, patch)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) gone(o client.Object) time.Duration {
	s.t.Helper()
	return s.wait(fmt.Sprintf("%T %s is deleted", o, o.GetName()), func() string {
		err := s.c.Get(s.t.Context(), client.ObjectKeyFromObject(o), o)
		if apierrors.IsNotFound(err) {
			return ""
		}
		text, _ := json.MarshalIndent(o, "", " ")
		return string(text)
	})
}

// finding is the first finding of a code.
func finding(e *v1alpha1.AmbientEdge, code string) *v1alpha1.Finding {
	if i := slices.IndexFunc(e.Status.Findings, func(f v1alpha1.Finding) bool { return f.Code == code }); i >= 0 {
		return &e.Status.Findings[i]
	}
	return nil
}

// state is all that an edge could write to, as text by object. Versions too, when the question is whether anything was written.
func (s *site) state(versions bool) map[string]string {
	s.t.Helper()
	all := map[string]string{}
	kinds := []schema.GroupVersionKind{
		{Version: "v1", Kind: "Namespace"}, {Version: "v1", Kind: "Service"}, {Version: "v1", Kind: "ServiceAccount"}, {Version: "v1", Kind: "ConfigMap"},
		{Group: "apps", Version: "v1", Kind: "Deployment"}, {Group: "apps", Version: "v1", Kind: "DaemonSet"},
		{Group: "gateway.networking.k8s.io", Version: "v1", Kind: "Gateway"}, {Group: "gateway.networking.k8s.io", Version: "v1", Kind: "HTTPRoute"},
		{Group: "gateway.networking.k8s.io", Version: "v1beta1", Kind: "ReferenceGrant"}, {Group: "security.istio.io", Version: "v1", Kind: "AuthorizationPolicy"},
		{Group: "networking.k8s.io", Version: "v1", Kind: "Ingress"},
	}
	for _, u := range edge.Uses() {
		kinds = append(kinds, schema.GroupVersionKind{Group: u.Group, Version: u.Version, Kind: u.Kind.Kind})
	}
	for _, gvk := range kinds {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(gvk)
		if err := s.c.List(s.t.Context(), list); meta.IsNoMatchError(err) {
			continue // that vendor's CRDs are not there
		} else if err != nil {
			s.t.Fatal(err)
		}
		for i := range list.Items {
			o := &list.Items[i]
			if ns := o.GetNamespace() + o.GetName(); !strings.HasPrefix(ns, s.edge) && !strings.HasPrefix(ns, s.shop) {
				continue
			}
			managers := []string{}
			for _, m := range o.GetManagedFields() {
				if m.Subresource == "" {
					managers = append(managers, m.Manager+" "+string(m.Operation))
				}
			}
			for _, field := range []string{"managedFields", "resourceVersion", "generation"} {
				unstructured.RemoveNestedField(o.Object, "metadata", field)
			}
			// The Deployment controller counts rollouts, ours and that of their undoing.
			unstructured.RemoveNestedField(o.Object, "metadata", "annotations", "deployment.kubernetes.io/revision")
			delete(o.Object, "status")
			text, err := json.MarshalIndent(o.Object, "", " ")
			if err != nil {
				s.t.Fatal(err)
			}
			key := gvk.Kind + " " + o.GetNamespace() + "/" + o.GetName()
			if all[key] = string(text); versions {
				slices.Sort(managers)
				all[key] += strings.Join(managers, ", ")
			}
		}
	}
	return all
}

func (s *site) same(before map[string]string, versions bool) {
	s.t.Helper()
	if d := diff.Diff(before, s.state(versions)); d != "" {
		s.t.Errorf("objects differ (-before +after):\n%s", d)
	}
}
