package run

import (
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
	if want := `write Service shop/orders: it was taken back 2 times within 10m0s by somebody else ("argocd" changed it last); it is not written again`; finding.Message != want {
		t.Errorf("the message is %s", finding.Message)
	}
}
