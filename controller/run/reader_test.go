package run

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// reader reads a snapshot as a cache with our indexes would.
type reader struct {
	s       *plan.Snapshot
	indexes map[string]client.IndexerFunc // by type and field
}

func newReader(t *testing.T, s *plan.Snapshot) *reader {
	t.Helper()
	r := &reader{s: s, indexes: map[string]client.IndexerFunc{}}
	if err := index(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *reader) IndexField(_ context.Context, o client.Object, field string, f client.IndexerFunc) error {
	r.indexes[fmt.Sprintf("%T %s", o, field)] = f
	return nil
}

// objects are all of the snapshot; the edge is as Snapshot.Edge says.
func (r *reader) objects() []client.Object {
	all := []client.Object{r.s.Edge}
	for i := range r.s.Edges {
		if client.ObjectKeyFromObject(&r.s.Edges[i]) != client.ObjectKeyFromObject(r.s.Edge) {
			all = append(all, &r.s.Edges[i])
		}
	}
	all = appendAll(all, r.s.Namespaces)
	for i := range r.s.Pods {
		all = append(all, wholePod(&r.s.Pods[i]))
	}
	all = appendAll(all, r.s.Services)
	all = appendAll(all, r.s.Deployments)
	all = appendAll(all, r.s.DaemonSets)
	all = appendAll(all, r.s.Gateways)
	all = appendAll(all, r.s.Classes)
	all = appendAll(all, r.s.HTTPRoutes)
	all = appendAll(all, r.s.ReferenceGrants)
	all = appendAll(all, r.s.Ingresses)
	all = appendAll(all, r.s.IngressClasses)
	for _, p := range r.s.Policies {
		all = append(all, p)
	}
	for _, p := range r.s.Strictness {
		all = append(all, p)
	}
	for _, p := range r.s.RequestAuthentications {
		all = append(all, p)
	}
	for _, o := range untyped(r.s) {
		all = append(all, o)
	}
	return all
}

// untyped are the objects of families, but those that call Services.
func untyped(s *plan.Snapshot) []*unstructured.Unstructured {
	return slices.Concat(s.Objects, s.ServiceEntries, s.OtherRoutes, s.ListenerSets, s.Extensions, s.Rules)
}

func appendAll[T any, P interface {
	*T
	client.Object
}](all []client.Object, list []T) []client.Object {
	for i := range list {
		all = append(all, P(&list[i]))
	}
	return all
}

// wholePod is a pod as an API server has it.
func wholePod(p *plan.Pod) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: p.ObjectMeta,
		Spec: corev1.PodSpec{
			ServiceAccountName: p.Spec.ServiceAccountName, HostNetwork: p.Spec.HostNetwork, InitContainers: p.Spec.InitContainers, Containers: p.Spec.Containers,
		},
		Status: corev1.PodStatus{
			Phase: p.Status.Phase, PodIP: p.Status.PodIP, StartTime: p.Status.StartTime, Conditions: p.Status.Conditions,
			ContainerStatuses: p.Status.ContainerStatuses,
		},
	}
}

func (r *reader) Get(_ context.Context, key client.ObjectKey, to client.Object, _ ...client.GetOption) error {
	for _, o := range r.objects() {
		if reflect.TypeOf(o) == reflect.TypeOf(to) && client.ObjectKeyFromObject(o) == key {
			reflect.ValueOf(to).Elem().Set(reflect.ValueOf(o.DeepCopyObject()).Elem())
			return nil
		}
	}
	return apierrors.NewNotFound(schema.GroupResource{}, key.Name)
}

func (r *reader) List(_ context.Context, list client.ObjectList, opts ...client.ListOption) error {
	var o client.ListOptions
	o.ApplyOptions(opts)
	if o.Continue != "" {
		return errors.New("a cache has no pages")
	}
	if o.Limit == 0 {
		list.SetContinue("a cache has no pages")
	}
	if u, ok := list.(*unstructured.UnstructuredList); ok {
		r.listObjects(u)
		return nil
	}
	items := reflect.ValueOf(list).Elem().FieldByName("Items")
	of := items.Type().Elem()
	pointers := of.Kind() == reflect.Pointer
	if !pointers {
		of = reflect.PointerTo(of)
	}
	found := reflect.MakeSlice(items.Type(), 0, 0)
	all := r.objects()
	slices.Reverse(all) // a cache has no order
	for _, x := range all {
		if reflect.TypeOf(x) != of || o.Namespace != "" && o.Namespace != x.GetNamespace() {
			continue
		}
		if o.FieldSelector != nil {
			want := o.FieldSelector.Requirements()[0]
			values := r.indexes[fmt.Sprintf("%T %s", x, want.Field)]
			if values == nil {
				return fmt.Errorf("there is no index %s of %T", want.Field, x)
			}
			if !slices.Contains(values(x), want.Value) {
				continue
			}
		}
		if o.LabelSelector != nil && !o.LabelSelector.Matches(labels.Set(x.GetLabels())) {
			continue
		}
		v := reflect.ValueOf(x.DeepCopyObject())
		if !pointers {
			v = v.Elem()
		}
		found = reflect.Append(found, v)
	}
	items.Set(found)
	return nil
}

// listObjects lists those of vendors' kinds, and what has the API server call Services.
func (r *reader) listObjects(list *unstructured.UnstructuredList) {
	kind := strings.TrimSuffix(list.GetKind(), "List")
	for _, o := range untyped(r.s) {
		if o.GetKind() == kind {
			list.Items = append(list.Items, *o.DeepCopy())
		}
	}
	if kind != "ValidatingWebhookConfiguration" {
		return
	}
	for _, c := range r.s.Callees {
		list.Items = append(list.Items, unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": map[string]any{"name": "calls-" + c.Service.Name},
			"webhooks": []any{map[string]any{"clientConfig": map[string]any{"service": map[string]any{"namespace": c.Service.Namespace, "name": c.Service.Name}}}},
		}})
	}
}

var (
	_ client.Reader       = (*reader)(nil)
	_ client.FieldIndexer = (*reader)(nil)
)

// cases are the snapshots of the golden plans, by name.
func cases(t *testing.T) map[string]*plan.Snapshot {
	t.Helper()
	files, err := filepath.Glob("../plan/testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	all := map[string]*plan.Snapshot{}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		all[name] = golden(t, name)
	}
	return all
}

// golden is the snapshot of a golden plan.
func golden(t *testing.T, name string) *plan.Snapshot {
	t.Helper()
	text, err := os.ReadFile("../plan/testdata/" + name + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	input, _, _ := strings.Cut(string(text), "---plan---\n")
	return parse(t, input)
}

// parse reads the objects of a case, the first AmbientEdge being the one to plan for.
func parse(t *testing.T, text string) *plan.Snapshot {
	t.Helper()
	scheme, err := Scheme()
	if err != nil {
		t.Fatal(err)
	}
	s := &plan.Snapshot{}
	for d := utilyaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 4096); ; {
		var raw runtime.RawExtension
		if err := d.Decode(&raw); errors.Is(err, io.EOF) {
			s.Edge = s.Edges[0].DeepCopy()
			return s
		} else if err != nil {
			t.Fatal(err)
		}
		var tm struct {
			Kind string `json:"kind"`
		}
		if err := yaml.Unmarshal(raw.Raw, &tm); err != nil {
			t.Fatal(err)
		}
		add(t, scheme, s, tm.Kind, raw.Raw)
	}
}

// add puts an object into the list of a snapshot that has its type.
func add(t *testing.T, scheme *runtime.Scheme, s *plan.Snapshot, kind string, raw []byte) {
	t.Helper()
	var o *unstructured.Unstructured
	var err error
	switch kind {
	case "AuthorizationPolicy":
		s.Policies = append(s.Policies, &securityv1.AuthorizationPolicy{})
		err = yaml.Unmarshal(raw, s.Policies[len(s.Policies)-1])
	case "PeerAuthentication":
		s.Strictness = append(s.Strictness, &securityv1.PeerAuthentication{})
		err = yaml.Unmarshal(raw, s.Strictness[len(s.Strictness)-1])
	case "RequestAuthentication":
		s.RequestAuthentications = append(s.RequestAuthentications, &securityv1.RequestAuthentication{})
		err = yaml.Unmarshal(raw, s.RequestAuthentications[len(s.RequestAuthentications)-1])
	case "ListenerSet", "XListenerSet":
		o = parsed(t, raw)
		s.ListenerSets = append(s.ListenerSets, o)
	case "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute":
		o = parsed(t, raw)
		s.OtherRoutes = append(s.OtherRoutes, o)
	case "WasmPlugin", "TrafficExtension", "EnvoyFilter":
		o = parsed(t, raw)
		s.Extensions = append(s.Extensions, o)
	case "ServiceEntry":
		o = parsed(t, raw)
		s.ServiceEntries = append(s.ServiceEntries, o)
	case "ValidatingWebhookConfiguration", "MutatingWebhookConfiguration", "APIService":
		o = parsed(t, raw)
		s.Callees = append(s.Callees, plan.CalleesOf(o)...)
	default:
		if slices.ContainsFunc(edge.Uses(), func(u edge.Use) bool { return u.Kind.Kind == kind }) {
			o = parsed(t, raw)
			s.Objects = append(s.Objects, o)
		} else if u := parsed(t, raw); isRule(u.GroupVersionKind().GroupKind()) {
			o = u
			s.Rules = append(s.Rules, o)
		} else {
			addTyped(t, scheme, s, kind, raw)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// parsed is an object without a Go type, whose numbers are as an API server's answer has them.
func parsed(t *testing.T, raw []byte) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{}
	text, err := yaml.YAMLToJSON(raw)
	if err == nil {
		err = o.UnmarshalJSON(text)
	}
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func addTyped(t *testing.T, scheme *runtime.Scheme, s *plan.Snapshot, kind string, raw []byte) {
	t.Helper()
	if kind == "Pod" {
		var pod corev1.Pod
		if err := yaml.UnmarshalStrict(raw, &pod); err != nil {
			t.Fatal(err)
		}
		s.Pods = append(s.Pods, plan.PodOf(&pod))
		return
	}
	lists := reflect.ValueOf(s).Elem()
	for i := range lists.NumField() {
		f := lists.Field(i)
		if f.Kind() != reflect.Slice || f.Type().Elem().Name() != kind {
			continue
		}
		o := reflect.New(f.Type().Elem())
		if err := yaml.UnmarshalStrict(raw, o.Interface()); err != nil {
			t.Fatal(err)
		}
		if _, _, err := scheme.ObjectKinds(o.Interface().(runtime.Object)); err != nil {
			t.Fatal(err)
		}
		f.Set(reflect.Append(f, o.Elem()))
		return
	}
	t.Fatalf("no list of a snapshot is of kind %q", kind)
}

// answer makes all waypoints answer, and serve all Services.
func answer(s *plan.Snapshot) {
	s.Waypoints, s.Served = map[types.NamespacedName]plan.WaypointFact{}, map[types.NamespacedName]plan.WaypointFact{}
	for i := range s.Gateways {
		s.Waypoints[client.ObjectKeyFromObject(&s.Gateways[i])] = plan.WaypointFact{Answers: true}
	}
	for _, q := range plan.ServicesToAsk(s) {
		s.Served[client.ObjectKeyFromObject(q.Service)] = plan.WaypointFact{Answers: true}
	}
}

// told is all that a plan comes to.
func told(p *plan.Plan, e *v1alpha1.AmbientEdge) any {
	return struct {
		Status v1alpha1.AmbientEdgeStatus
		Now    []*plan.Write
		Ahead  []*plan.Write
	}{p.Status(e), p.Writes(), p.Ahead()}
}

func TestReaderReadsAsACacheDoes(t *testing.T) {
	r := newReader(t, fresh())
	var services corev1.ServiceList
	if err := r.List(t.Context(), &services, client.InNamespace("shop")); err != nil || meta.LenList(&services) != 2 {
		t.Errorf("%d Services, %v", len(services.Items), err)
	}
	if err := r.List(t.Context(), &services, client.MatchingFields{indexOwner: "edge.public"}); err != nil || meta.LenList(&services) != 0 {
		t.Errorf("%d Services are held, %v", len(services.Items), err)
	}
}

func edgeKey(s *plan.Snapshot) types.NamespacedName { return client.ObjectKeyFromObject(s.Edge) }
