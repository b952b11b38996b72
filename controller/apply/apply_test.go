package apply_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/apply"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// answering is a client of an API server that answers each request in order with one Status, and 200 with the object where it is nil.
func answering(t *testing.T, answers ...*metav1.Status) client.Client {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(answers) == 0 {
			t.Errorf("%s %s is one request too many", r.Method, r.URL)
			return
		}
		status := answers[0]
		answers = answers[1:]
		w.Header().Set("Content-Type", "application/json")
		if status == nil {
			_, _ = w.Write([]byte(`{"apiVersion":"v1","kind":"Service","metadata":{"namespace":"shop","name":"orders"}}`))
			return
		}
		status.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
		w.WriteHeader(int(status.Code))
		if err := json.NewEncoder(w).Encode(status); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(func() {
		server.Close()
		if len(answers) > 0 {
			t.Errorf("%d requests were not made", len(answers))
		}
	})
	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(schema.GroupVersionKind{Version: "v1", Kind: "Service"}, meta.RESTScopeNamespace)
	c, err := client.New(&rest.Config{Host: server.URL}, client.Options{Scheme: runtime.NewScheme(), Mapper: mapper})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// do is apply.Do without the version.
func do(ctx context.Context, c client.Client, e *v1alpha1.AmbientEdge, w *plan.Write) error {
	_, err := apply.Do(ctx, c, e, w)
	return err
}

func write(uid types.UID) *plan.Write {
	return &plan.Write{
		APIVersion: "v1", Kind: "Service", Key: types.NamespacedName{Namespace: "shop", Name: "orders"}, UID: uid,
		Fields: map[string]any{"metadata": map[string]any{"labels": map[string]any{"a": "b"}}},
	}
}

var edge = &v1alpha1.AmbientEdge{ObjectMeta: metav1.ObjectMeta{Namespace: "edge", Name: "public"}}

var services = schema.GroupResource{Resource: "services"}

func status(err *apierrors.StatusError) *metav1.Status { return &err.ErrStatus }

// webhook is how the API server tells of a denial in which the webhook gave code and reason.
func webhook(code int32, reason metav1.StatusReason) *metav1.Status {
	return &metav1.Status{Status: metav1.StatusFailure, Code: code, Reason: reason, Message: `admission webhook "validate.example" denied the request: does not support dry run of labels`}
}

func TestRefusals(t *testing.T) {
	policy := status(apierrors.NewForbidden(services, "orders", errors.New(`ValidatingAdmissionPolicy 'p' with binding 'p' denied request: no`)))
	unauthorized := policy.DeepCopy()
	unauthorized.Code, unauthorized.Reason = http.StatusUnauthorized, metav1.StatusReasonUnauthorized
	for _, c := range []struct {
		name   string
		answer *metav1.Status
		rights bool
	}{
		{"a webhook without a code", webhook(http.StatusBadRequest, ""), false},
		{"a webhook that calls it a bad request", webhook(http.StatusBadRequest, metav1.StatusReasonBadRequest), false},
		{"a webhook that forbids", webhook(http.StatusForbidden, metav1.StatusReasonForbidden), false},
		{"a webhook with a code of its own", webhook(http.StatusTeapot, "Teapot"), false},
		{"a policy", policy, false},
		{"a policy that says unauthorized", unauthorized, false},
		{"the authorizer", status(apierrors.NewForbidden(services, "orders", errors.New(`User "system:serviceaccount:a:b" cannot patch resource "services" in API group "" in the namespace "shop"`))), true},
		{"the authorizer, of one with a strange name", status(apierrors.NewForbidden(services, "orders", errors.New(`User "a \" b" cannot patch resource "services" in API group "" in the namespace "shop": RBAC: clusterrole "x" not found`))), true},
		{"a quota", status(apierrors.NewForbidden(services, "orders", errors.New(`exceeded quota: none, requested: count/services=1, used: count/services=0, limited: count/services=0`))), false},
		{"admission that quotes the authorizer", status(apierrors.NewForbidden(services, "orders", errors.New(`cannot set blockOwnerDeletion: User "x" cannot set finalizers on`))), false},
		{"what is invalid", status(apierrors.NewInvalid(schema.GroupKind{Kind: "Service"}, "orders", nil)), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			for name, do := range map[string]func(client.Client) error{
				"do":  func(cl client.Client) error { return do(t.Context(), cl, edge, write("u")) },
				"try": func(cl client.Client) error { return apply.Try(t.Context(), cl, edge, write("u")) },
			} {
				err := do(answering(t, c.answer))
				refused, ok := errors.AsType[*apply.RefusedError](err)
				if !ok {
					t.Fatalf("%s: the error is %v, no refusal", name, err)
				}
				if refused.Rights() != c.rights {
					t.Errorf("%s: rights are missing: %t, in %v", name, refused.Rights(), err)
				}
			}
		})
	}
}

func TestAWebhookThatDoesNotAnswerIsARefusal(t *testing.T) {
	down := func(code int32, reason metav1.StatusReason, message string) *metav1.Status {
		return &metav1.Status{Status: metav1.StatusFailure, Code: code, Reason: reason, Message: message}
	}
	const why = `failed calling webhook "validate.example": failed to call webhook: Post "https://10.0.0.1:443/?timeout=10s": dial tcp 10.0.0.1:443: connect: connection refused`
	for _, c := range []struct {
		name   string
		answer *metav1.Status
		want   string
	}{
		{"nobody listens", down(http.StatusInternalServerError, metav1.StatusReasonInternalError, "Internal error occurred: "+why), "validate.example"},
		{"its answer makes no sense", down(http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, why), "validate.example"},
		{"it denies, and quotes", webhook(http.StatusBadRequest, ""), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.want == "" {
				c.answer.Message += why
			}
			refused, ok := errors.AsType[*apply.RefusedError](do(t.Context(), answering(t, c.answer), edge, write("u")))
			if !ok || refused.Webhook() != c.want {
				t.Errorf("the refusal is %+v", refused)
			}
		})
	}
	internal := down(http.StatusInternalServerError, metav1.StatusReasonInternalError, "Internal error occurred: failed calling webhook by hand")
	if _, ok := errors.AsType[*apply.RefusedError](do(t.Context(), answering(t, internal), edge, write("u"))); ok {
		t.Error("an internal error was taken for a webhook's")
	}
}

func TestTryAsksToTakeBack(t *testing.T) {
	forbidden := status(apierrors.NewForbidden(services, "orders", errors.New(`User "x" cannot delete resource "services" in API group "" in the namespace "shop"`)))
	if err := apply.Try(t.Context(), answering(t, nil, status(apierrors.NewNotFound(services, "orders"))), edge, write("")); err != nil {
		t.Error(err)
	}
	refused, ok := errors.AsType[*apply.RefusedError](apply.Try(t.Context(), answering(t, nil, forbidden), edge, write("")))
	if !ok || refused.Verb != "delete" || !refused.Rights() {
		t.Errorf("the refusal is %v", refused)
	}
}

func TestAWebhookThatKnowsNoDryRunSaysNothing(t *testing.T) {
	answer := status(apierrors.NewBadRequest(`admission webhook "mutate.example" does not support dry run`))
	if err := apply.Try(t.Context(), answering(t, answer), edge, write("u")); err != nil {
		t.Error(err)
	}
	if apply.Try(t.Context(), answering(t, status(apierrors.NewBadRequest("the body cannot be read"))), edge, write("u")) == nil {
		t.Error("another bad request was taken for that")
	}
}

func TestWhatANewPlanMayMendIsNoRefusal(t *testing.T) {
	immutable := status(apierrors.NewInvalid(schema.GroupKind{Kind: "Service"}, "orders", nil))
	immutable.Details.Causes = []metav1.StatusCause{{Type: metav1.CauseTypeFieldValueInvalid, Field: "metadata.uid", Message: "field is immutable"}}
	remove := write("u")
	remove.Delete, remove.Fields = true, nil
	for _, c := range []struct {
		name   string
		write  *plan.Write
		answer *metav1.Status
	}{
		{"it was replaced", write("u"), immutable},
		{"it is gone", write("u"), status(apierrors.NewConflict(services, "orders", errors.New("uid mismatch")))},
		{"what is to go was replaced", remove, status(apierrors.NewConflict(services, "orders", errors.New("the UID in the precondition is not that of the record")))},
		{"the API server is ill", write("u"), status(apierrors.NewInternalError(errors.New("no leader")))},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, do := range []func(client.Client) error{
				func(cl client.Client) error { return do(t.Context(), cl, edge, c.write) },
				func(cl client.Client) error { return apply.Try(t.Context(), cl, edge, c.write) },
			} {
				err := do(answering(t, c.answer))
				if err == nil {
					t.Fatal("there is no error")
				}
				if _, ok := errors.AsType[*apply.RefusedError](err); ok {
					t.Errorf("%v is a refusal", err)
				}
				if _, ok := errors.AsType[*apply.ConflictError](err); ok {
					t.Errorf("%v is a conflict", err)
				}
			}
		})
	}
}

func TestAConflictNamesWhoHasTheField(t *testing.T) {
	answer := status(apierrors.NewApplyConflict([]metav1.StatusCause{{Type: metav1.CauseTypeFieldManagerConflict, Field: ".metadata.labels.a", Message: `conflict with "helm"`}}, "Apply failed"))
	conflict, ok := errors.AsType[*apply.ConflictError](apply.Try(t.Context(), answering(t, answer), edge, write("u")))
	if !ok || len(conflict.Fields) != 1 || conflict.Fields[0] != `.metadata.labels.a (conflict with "helm")` {
		t.Errorf("the conflict is %+v", conflict)
	}
}

// TestWhatWasMadeForTheEdgeIsWrittenWhole: what is nil goes, be it that it was created, which an apply would leave; and nothing is written to another object.
func TestWhatWasMadeForTheEdgeIsWrittenWhole(t *testing.T) {
	var method, kind, manager string
	var body map[string]any
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		method, kind, manager = r.Method, r.Header.Get("Content-Type"), r.URL.Query().Get("fieldManager")
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"apiVersion":"v1","kind":"Service","metadata":{"namespace":"shop","name":"orders"}}`))
	}))
	defer server.Close()
	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(schema.GroupVersionKind{Version: "v1", Kind: "Service"}, meta.RESTScopeNamespace)
	c, err := client.New(&rest.Config{Host: server.URL}, client.Options{Scheme: runtime.NewScheme(), Mapper: mapper})
	if err != nil {
		t.Fatal(err)
	}
	w := write("u1")
	w.Force, w.Fields = true, map[string]any{"spec": map[string]any{"selector": map[string]any{"app": "orders", "old": nil}}}
	if err := do(t.Context(), c, edge, w); err != nil {
		t.Fatal(err)
	}
	selector, _ := body["spec"].(map[string]any)["selector"].(map[string]any)
	if old, is := selector["old"]; !is || old != nil || selector["app"] != "orders" {
		t.Errorf("it writes %v", body)
	}
	if uid := body["metadata"].(map[string]any)["uid"]; method != http.MethodPatch || kind != string(types.MergePatchType) || manager != edge.FieldOwner() || uid != "u1" {
		t.Errorf("%s %s by %s of uid %v", method, kind, manager, uid)
	}
}
