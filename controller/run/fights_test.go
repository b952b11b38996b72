package run

import (
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// service is one as it is seen at a version.
func service(version int) metav1.Object {
	return &metav1.ObjectMeta{Namespace: "shop", Name: "orders", UID: "orders", ResourceVersion: strconv.Itoa(version)}
}

func TestWhatIsTakenBackTwiceIsNotWrittenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f fights
		e := fresh().Edge
		d := digest{1}
		expect := func(what string, o metav1.Object, want state) {
			t.Helper()
			if got := f.look(e, d, o); got != want {
				t.Errorf("%s: got %d, want %d", what, got, want)
			}
		}
		expect("nothing was written yet", service(10), wanted)
		f.add(e, d, "11")
		expect("the cache lags behind", service(10), pending)
		expect("somebody took it back", service(12), wanted)
		f.add(e, d, "13")
		expect("the cache lags behind again", service(12), pending)
		expect("it was taken back twice", service(14), lost)
		time.Sleep(time.Minute)
		expect("a minute later", service(15), lost)
		e.Generation++
		expect("the AmbientEdge was changed", service(15), wanted)
		e.Generation--
		time.Sleep(truce - time.Minute + time.Second)
		expect("after the truce", service(16), wanted)
		f.add(e, digest{2}, "17")
		expect("another write is another matter", service(18), wanted)
	})
}

func TestWhatIsDeletedTwiceIsNotCreatedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f fights
		e := fresh().Edge
		for i := range bouts {
			if got := f.look(e, digest{}, nil); got != wanted {
				t.Errorf("round %d: got %d", i, got)
			}
			f.add(e, digest{}, "1")
			time.Sleep(lag - time.Millisecond)
			if got := f.look(e, digest{}, nil); got != pending {
				t.Errorf("round %d: before the cache shows it: got %d", i, got)
			}
			time.Sleep(time.Millisecond)
		}
		if got := f.look(e, digest{}, nil); got != lost {
			t.Errorf("got %d", got)
		}
	})
}

func TestALostWriteIsTold(t *testing.T) {
	s := fresh()
	w := &plan.Write{APIVersion: "v1", Kind: "Service", Key: types.NamespacedName{Namespace: "shop", Name: "orders"}, UID: "orders"}
	now := metav1.Now()
	s.Services[0].ResourceVersion = "20"
	s.Services[0].ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "argocd", Time: &now}, {Manager: "isthmus.dev/edge.public", Time: &metav1.Time{Time: now.Add(time.Second)}}}
	var f fights
	d, err := digestOf(w)
	if err != nil {
		t.Fatal(err)
	}
	f.add(s.Edge, d, "11")
	f.add(s.Edge, d, "13")
	var finding v1alpha1.Finding
	told := false
	left, err := f.left(s.Edge, s, []*plan.Write{w}, func(lost *plan.Write, err error) {
		if lost == w {
			finding, told = stop(s.Edge, false, err)
		}
	})
	if len(left) > 0 || err != nil || !told || finding.Object != "Service shop/orders" || finding.Code != "ISM310" {
		t.Errorf("%v are left, the finding is %+v", left, finding)
	}
	if want := `write Service shop/orders: it was taken back 2 times within 10m0s by somebody else ("argocd" changed it last, at ` + now.UTC().Format(time.RFC3339) + `); it is not written again`; finding.Message != want {
		t.Errorf("the message is %s", finding.Message)
	}
	if want := "kubectl annotate --overwrite ambientedge -n edge public isthmus.dev/retry=$(date +%s)"; !strings.HasSuffix(finding.Fix, want) {
		t.Errorf("the fix is %s", finding.Fix)
	}
	for name, o := range map[string]struct {
		gone bool
		by   string
		want string
	}{
		"it was deleted":    {true, "", "by somebody who deleted it (the object is gone, and only the API server's audit log says by whom); it is not written again"},
		"nobody has a name": {false, "", "by somebody else (who takes a field away leaves no name: the API server's audit log has it); it is not written again"},
	} {
		if got := (&lostError{object: "Service shop/orders", manager: o.by, gone: o.gone}).Error(); !strings.HasSuffix(got, o.want) {
			t.Errorf("%s: the message is %s", name, got)
		}
	}
}

// TestALostWriteIsToldOfEveryKind: what of an object is seen tells whether it was deleted.
func TestALostWriteIsToldOfEveryKind(t *testing.T) {
	o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "BackendTrafficPolicy", "metadata": map[string]any{"namespace": "edge", "name": "a"}}}
	s := &plan.Snapshot{Objects: []*unstructured.Unstructured{o}}
	w := &plan.Write{APIVersion: "gateway.envoyproxy.io/v1", Kind: "BackendTrafficPolicy", Key: types.NamespacedName{Namespace: "edge", Name: "a"}}
	if objectOf(s, w) == nil {
		t.Error("a vendor's object that is there is taken for one that is gone")
	}
	if w.Key.Name = "b"; objectOf(s, w) != nil {
		t.Error("another is taken for it")
	}
}
