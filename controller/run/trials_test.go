package run

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// server is an API server that takes every write but those of answers, and notes them all.
type server struct {
	client.Client
	answers map[string]error // by what write notes, without "try"

	mu  sync.Mutex // guards the field below
	log []string
}

func (s *server) note(dryRun []string, what string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.answers[what]
	if len(dryRun) > 0 {
		what = "try " + what
	}
	s.log = append(s.log, what)
	return err
}

func (s *server) Apply(_ context.Context, o runtime.ApplyConfiguration, opts ...client.ApplyOption) error {
	var all client.ApplyOptions
	all.ApplyOptions(opts)
	return s.note(all.DryRun, "apply "+o.(interface{ GetName() string }).GetName())
}

func (s *server) Create(_ context.Context, o client.Object, opts ...client.CreateOption) error {
	var all client.CreateOptions
	all.ApplyOptions(opts)
	return s.note(all.DryRun, "create "+o.GetName())
}

func (s *server) Delete(_ context.Context, o client.Object, opts ...client.DeleteOption) error {
	var all client.DeleteOptions
	all.ApplyOptions(opts)
	return s.note(all.DryRun, "delete "+o.GetName())
}

func (s *server) Patch(_ context.Context, o client.Object, _ client.Patch, opts ...client.PatchOption) error {
	var all client.PatchOptions
	all.ApplyOptions(opts)
	return s.note(all.DryRun, "patch "+o.GetName())
}

// did is what was noted since the last call. What is done to Services comes by name, as they do not wait for each other.
func (s *server) did() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	log := s.log
	s.log = nil
	together := func(a, b string) bool {
		a, first, _ := strings.Cut(a, "apply ")
		b, second, _ := strings.Cut(b, "apply ")
		names := []string{"orders", "stock", "more"}
		return a == b && slices.Contains(names, first) && slices.Contains(names, second)
	}
	for i := 0; i < len(log); {
		j := i + 1
		for j < len(log) && together(log[i], log[j]) {
			j++
		}
		slices.Sort(log[i:j])
		i = j
	}
	return log
}

// denied is how the API server tells of a webhook that gives no code.
var denied = &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: http.StatusBadRequest, Message: `admission webhook "platform" denied the request: no`}}

var conflict = apierrors.NewApplyConflict([]metav1.StatusCause{{Type: metav1.CauseTypeFieldManagerConflict, Field: ".metadata.labels", Message: `conflict with "helm"`}}, "Apply failed")

// fresh is an edge before all else, with two Services behind it: it labels its namespace, makes a waypoint, and leads the Services there.
func fresh() *plan.Snapshot {
	labels := map[string]string{"app": "gateway"}
	e := v1alpha1.AmbientEdge{ObjectMeta: metav1.ObjectMeta{Namespace: "edge", Name: "public", Generation: 1}}
	e.Spec.Mode = v1alpha1.ModeManage
	e.Spec.WorkloadRefs = []v1alpha1.WorkloadRef{{Kind: "Deployment", Name: "gateway"}}
	e.Spec.Backends = &v1alpha1.Backends{Services: []v1alpha1.ServiceRef{{Namespace: "shop", Name: "orders"}, {Namespace: "shop", Name: "stock"}}}
	e.Spec.Waypoint = &v1alpha1.Waypoint{Policy: v1alpha1.WaypointCreate, Name: "waypoint"}
	meta := func(namespace, name string, labels map[string]string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(name), Labels: labels}
	}
	shop := corev1.Namespace{ObjectMeta: meta("", "shop", map[string]string{plan.LabelDataplaneMode: "ambient"})}
	shop.Annotations = map[string]string{v1alpha1.AnnotationEdges: "edge/public"}
	s := &plan.Snapshot{
		Edge: &e, Edges: []v1alpha1.AmbientEdge{e}, Namespaces: []corev1.Namespace{{ObjectMeta: meta("", "edge", nil)}, shop},
		Deployments: []appsv1.Deployment{{ObjectMeta: meta("edge", "gateway", nil), Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}},
		}}},
		Classes: []gatewayv1.GatewayClass{{ObjectMeta: meta("", "istio-waypoint", nil), Spec: gatewayv1.GatewayClassSpec{ControllerName: "istio.io/mesh-controller"}}},
		Pods:    []plan.Pod{{ObjectMeta: meta("edge", "gateway-1", labels)}},
	}
	for _, name := range []string{"orders", "stock"} {
		app := map[string]string{"app": name}
		s.Services = append(s.Services, corev1.Service{ObjectMeta: meta("shop", name, nil), Spec: corev1.ServiceSpec{Selector: app}})
		pod := plan.Pod{ObjectMeta: meta("shop", name+"-1", app)}
		pod.Annotations = map[string]string{plan.AnnotationRedirection: "enabled"}
		s.Pods = append(s.Pods, pod)
	}
	return s
}

// more adds a third Service.
func more(s *plan.Snapshot) {
	s.Services = append(s.Services, *s.Services[1].DeepCopy())
	s.Services[2].Name, s.Services[2].UID = "more", "more"
	s.Edge.Spec.Backends.Services = append(s.Edge.Spec.Backends.Services, v1alpha1.ServiceRef{Namespace: "shop", Name: "more"})
}

// tries are those of the whole plan of fresh.
var tries = []string{"try apply edge", "try create waypoint", "try delete waypoint", "try apply orders", "try apply stock"}

// round writes what the plan of a snapshot writes now, and returns what was asked of the API server.
func round(t *testing.T, r *reconciler, s *plan.Snapshot) ([]string, error) {
	t.Helper()
	got, f, err := attempt(t, r, s)
	if f.Code != "" {
		t.Errorf("the finding is %+v", f)
	}
	return got, err
}

// attempt is round, with what somebody has to do something about.
func attempt(t *testing.T, r *reconciler, s *plan.Snapshot) ([]string, v1alpha1.Finding, error) {
	t.Helper()
	p := plan.Make(s)
	if p.Wrong() {
		t.Fatalf("findings are %+v", p.Findings)
	}
	_, err := r.write(t.Context(), s.Edge, s, p)
	got := r.client.(*server).did()
	if !p.Wrong() {
		return got, v1alpha1.Finding{}, err
	}
	return got, p.Findings[0], err
}

func want(t *testing.T, got []string, want ...string) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("-want +got\n%s", d)
	}
}

func TestAllIsTriedBeforeTheFirstWrite(t *testing.T) {
	r := &reconciler{client: &server{}}
	s := fresh()
	got, err := round(t, r, s)
	if err != nil {
		t.Fatal(err)
	}
	want(t, got, append(slices.Clone(tries), "patch public", "apply edge", "create waypoint")...)

	more(s)
	if got, err = round(t, r, s); err != nil {
		t.Fatal(err)
	}
	want(t, got, "try apply more", "apply edge", "create waypoint") // what is new
}

// TestAStepThatWouldBeRefusedHoldsBackItsService: the other Service goes on. What nobody has refused stops all, as it may be the API server that is ill.
func TestAStepThatWouldBeRefusedHoldsBackItsService(t *testing.T) {
	for name, answer := range map[string]error{"denied": denied, "conflict": conflict, "the API server is ill": apierrors.NewInternalError(errors.New("no leader"))} {
		t.Run(name, func(t *testing.T) {
			api := &server{answers: map[string]error{"apply stock": answer}}
			r := &reconciler{client: api}
			s := fresh()
			// Of an edge that was there before its spec changed, and that has been reported about.
			controllerutil.AddFinalizer(s.Edge, v1alpha1.Finalizer)
			s.Edge.Status.ObservedGeneration = s.Edge.Generation
			rest := []string{"apply edge", "create waypoint"}
			ill := name == "the API server is ill"
			for i := range 3 {
				got, f, err := attempt(t, r, s)
				switch {
				case ill:
					want(t, got, tries...)
				case i == 0:
					want(t, got, slices.Concat(tries, rest)...)
				default:
					want(t, got, slices.Concat([]string{"try apply stock"}, rest)...)
				}
				if (err != nil) != ill || (f.Object == "Service shop/stock") == ill {
					t.Errorf("the error is %v, and the finding %+v", err, f)
				}
				if name == "denied" && !strings.Contains(f.Message, "the others go on") {
					t.Errorf("the message is %q", f.Message)
				}
			}
			api.answers = nil
			got, err := round(t, r, s)
			if err != nil {
				t.Fatal(err)
			}
			if ill {
				want(t, got, slices.Concat(tries, rest)...)
			} else {
				want(t, got, slices.Concat([]string{"try apply stock"}, rest)...)
			}
		})
	}
}

// TestARefusalOfTheEdgeItselfStopsAll: the gateway's own namespace is not to be labelled.
func TestARefusalOfTheEdgeItselfStopsAll(t *testing.T) {
	for name, answer := range map[string]error{"denied": denied, "conflict": conflict} {
		t.Run(name, func(t *testing.T) {
			r := &reconciler{client: &server{answers: map[string]error{"apply edge": answer}}}
			for range 2 {
				got, f, err := attempt(t, r, fresh())
				want(t, got, "try apply edge")
				if err != nil || f.Object != "Namespace edge" {
					t.Errorf("the error is %v, and the finding %+v", err, f)
				}
			}
		})
	}
}

func TestAfterARefusedWriteAllIsTriedAgain(t *testing.T) {
	api := &server{}
	r := &reconciler{client: api}
	s := fresh()
	if _, err := round(t, r, s); err != nil {
		t.Fatal(err)
	}
	api.answers = map[string]error{"create waypoint": denied}
	controllerutil.AddFinalizer(s.Edge, v1alpha1.Finalizer)
	got, f, _ := attempt(t, r, s) // they have been let through
	want(t, got, "apply edge", "create waypoint")
	if strings.Contains(f.Fix, v1alpha1.AnnotationBegin) || !strings.Contains(f.Message, "what was written before stays") {
		t.Errorf("the finding is %+v", f)
	}
	got, _, _ = attempt(t, r, s)
	want(t, got, "try apply edge", "try create waypoint", "apply edge") // the Services wait for it
}

func TestWhatWasRefusedOnTrialIsTriedAgain(t *testing.T) {
	api := &server{}
	r := &reconciler{client: api}
	s := fresh()
	if _, err := round(t, r, s); err != nil {
		t.Fatal(err)
	}
	more(s)
	api.answers = map[string]error{"apply more": denied}
	for range 2 {
		got, f, err := attempt(t, r, s)
		want(t, got, "try apply more", "apply edge", "create waypoint")
		if f.Object != "Service shop/more" || err != nil {
			t.Errorf("the finding is %+v, and the error %v", f, err)
		}
	}
}

func TestWhatIsBlockedIsTriedAnew(t *testing.T) {
	r := &reconciler{client: &server{}}
	s := fresh()
	if _, err := round(t, r, s); err != nil {
		t.Fatal(err)
	}
	consent, finalizers := s.Namespaces[1].Annotations, s.Edge.Finalizers
	s.Namespaces[1].Annotations, s.Edge.Finalizers = nil, nil
	if _, err := r.write(t.Context(), s.Edge, s, plan.Make(s)); err != nil {
		t.Fatal(err)
	}
	want(t, r.client.(*server).did())
	s.Namespaces[1].Annotations, s.Edge.Finalizers = consent, finalizers
	got, _ := round(t, r, s)
	want(t, got, append(slices.Clone(tries), "apply edge", "create waypoint")...)
}

func TestALaterRefusalNeedNotStopAPlan(t *testing.T) {
	api := &server{answers: map[string]error{"apply stock": denied}}
	r := &reconciler{client: api}
	s := fresh()
	_, f, _ := attempt(t, r, s)
	const annotate = "kubectl annotate ambientedge -n edge public isthmus.dev/begin=confirmed"
	if !strings.Contains(f.Message, "tried ahead") || !strings.Contains(f.Fix, annotate) {
		t.Errorf("the finding is %+v", f)
	}
	r, s = &reconciler{client: api}, fresh()
	s.Edge.Annotations = map[string]string{v1alpha1.AnnotationBegin: v1alpha1.BeginConfirmed}
	got, err := round(t, r, s)
	if err != nil {
		t.Fatal(err)
	}
	want(t, got, "try apply edge", "try create waypoint", "try delete waypoint", "patch public", "apply edge", "create waypoint")

	api.answers = map[string]error{"create waypoint": denied}
	r.trials.forget(client.ObjectKeyFromObject(s.Edge))
	if got, f, err = attempt(t, r, s); f.Object != "Gateway shop/waypoint" || err != nil {
		t.Errorf("the write that comes next was refused, and the finding is %+v, the error %v", f, err)
	}
	want(t, got, "try apply edge", "try create waypoint", "apply edge")
}

func TestMissingRightsAreNoMatterOfOrder(t *testing.T) {
	missing := apierrors.NewForbidden(schema.GroupResource{Resource: "services"}, "stock", errors.New(`User "x" cannot patch resource "services" in API group "" in the namespace "shop"`))
	r := &reconciler{client: &server{answers: map[string]error{"apply stock": missing}}}
	s := fresh()
	if _, f, _ := attempt(t, r, s); !strings.Contains(f.Fix, "isthmus-manage") || strings.Contains(f.Fix, v1alpha1.AnnotationBegin) {
		t.Errorf("the finding is %+v", f)
	}
}

func TestUndoTakesBackWhatItCan(t *testing.T) {
	ours := func(path string) []metav1.ManagedFieldsEntry {
		return []metav1.ManagedFieldsEntry{{
			Manager: "isthmus.dev/edge.public", Operation: metav1.ManagedFieldsOperationApply, FieldsType: "FieldsV1",
			FieldsV1: metav1.NewFieldsV1(`{"f:metadata":{"f:labels":{"f:` + path + `":{}}}}`),
		}}
	}
	s := fresh()
	now := metav1.Now()
	s.Edge.DeletionTimestamp = &now
	s.Namespaces[0].Labels, s.Namespaces[0].ManagedFields = map[string]string{plan.LabelDataplaneMode: "ambient"}, ours(plan.LabelDataplaneMode)
	s.Services[0].Labels, s.Services[0].ManagedFields = map[string]string{plan.LabelUseWaypoint: "waypoint"}, ours(plan.LabelUseWaypoint)
	r := &reconciler{client: &server{answers: map[string]error{"apply edge": denied}}}
	got, err := round(t, r, s)
	if err != nil {
		t.Fatal(err)
	}
	want(t, got, "apply orders")

	// One that is refused keeps no other from being taken back.
	s.Services[1].Labels, s.Services[1].ManagedFields = s.Services[0].Labels, s.Services[0].ManagedFields
	r.client.(*server).answers["apply orders"] = denied
	got, f, err := attempt(t, r, s)
	if f.Object != "Service shop/orders" || err != nil {
		t.Errorf("the finding is %+v, the error %v", f, err)
	}
	want(t, got, "apply orders", "apply stock")
	s.Services[1].Labels, s.Services[1].ManagedFields = nil, nil
	delete(r.client.(*server).answers, "apply orders")

	s.Services[0].Labels, s.Services[0].ManagedFields = nil, nil
	got, f, err = attempt(t, r, s)
	if f.Object != "Namespace edge" || err != nil {
		t.Errorf("the finding is %+v, the error %v", f, err)
	}
	want(t, got, "apply edge")
}

func TestAWebhookThatIsDownIsToldWithItsName(t *testing.T) {
	down := &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Reason: metav1.StatusReasonInternalError,
		Message: `Internal error occurred: failed calling webhook "validate.example": failed to call webhook: Post "https://10.0.0.1:443/": connection refused`,
	}}
	r := &reconciler{client: &server{answers: map[string]error{"apply stock": down}}}
	s := fresh()
	got, f, _ := attempt(t, r, s)
	want(t, got, append(slices.Clone(tries), "patch public", "apply edge", "create waypoint")...)
	if f.Code != v1alpha1.FindingRefused || f.Object != "Service shop/stock" || !strings.Contains(f.Message, "connection refused") {
		t.Errorf("the finding is %+v", f)
	}
	if !strings.Contains(f.Fix, "webhook validate.example") || strings.Contains(f.Fix, v1alpha1.AnnotationBegin) || !strings.Contains(f.Fix, "Observe") {
		t.Errorf("the fix is %q", f.Fix)
	}
}

func TestAWriteIsTriedWithALaterOneThatHasAllOfIt(t *testing.T) {
	labels := func(keys ...string) map[string]any {
		l := map[string]any{}
		for _, k := range keys {
			l[k] = "true"
		}
		return map[string]any{"metadata": map[string]any{"labels": l}}
	}
	write := func(name string, fields map[string]any) *plan.Write {
		return &plan.Write{Kind: "Service", Key: types.NamespacedName{Namespace: "shop", Name: name}, UID: types.UID(name), Fields: fields}
	}
	small := write("orders", labels("a"))
	other := write("orders", labels("a", "b"))
	other.Fields["metadata"].(map[string]any)["labels"].(map[string]any)["a"] = "false"
	for name, c := range map[string]struct {
		later *plan.Write
		want  bool
	}{
		"more fields":        {write("orders", labels("a", "b")), true},
		"other fields":       {write("orders", labels("b")), false},
		"another value":      {other, false},
		"another object":     {write("stock", labels("a", "b")), false},
		"nothing is written": {write("orders", nil), false},
	} {
		if got := covered(small, []*plan.Write{c.later}); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if gone := write("orders", nil); covered(gone, []*plan.Write{small}) {
		t.Error("taking all away is covered by giving some")
	}
}
