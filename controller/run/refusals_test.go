package run

import (
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// refusedAt is a finding that an object was refused.
func refusedAt(object string) v1alpha1.Finding {
	return v1alpha1.Finding{Code: v1alpha1.FindingRefused, Severity: v1alpha1.SeverityError, Object: object}
}

func TestARefusalIsAskedAboutLessAndLess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r refusals
		s := fresh()
		p := plan.Make(s)
		f := refusedAt("Service shop/orders")
		if _, _, held := r.held(s.Edge, p); held {
			t.Error("nothing was refused, and it is held back")
		}
		for _, want := range []time.Duration{2, 4, 8, 16, 32, 60, 60} {
			pause := r.add(s.Edge, asked(s.Edge, p), f)
			if pause != want*time.Second {
				t.Errorf("the pause is %v, want %v s", pause, want)
			}
			time.Sleep(pause - time.Second)
			if got, left, held := r.held(s.Edge, plan.Make(s)); !held || left != time.Second || got != f {
				t.Errorf("a second before its end: %+v, %v, %t", got, left, held)
			}
			time.Sleep(time.Second)
			if _, _, held := r.held(s.Edge, p); held {
				t.Error("it is held back after the pause")
			}
		}
		if pause := r.add(s.Edge, asked(s.Edge, p), refusedAt("Service shop/stock")); pause != firstPause {
			t.Errorf("another object is refused, and the pause is %v", pause)
		}
		r.forget(client.ObjectKeyFromObject(s.Edge))
		if _, _, held := r.held(s.Edge, p); held {
			t.Error("it was forgotten, and is held back")
		}
		if pause := r.add(s.Edge, asked(s.Edge, p), f); pause != firstPause {
			t.Errorf("after it went well the pause is %v", pause)
		}
	})
}

func TestWhatWasChangedIsAskedAtOnce(t *testing.T) {
	for name, change := range map[string]func(s *plan.Snapshot){
		"the spec":       func(s *plan.Snapshot) { s.Edge.Generation++ },
		"an annotation":  func(s *plan.Snapshot) { s.Edge.Annotations = map[string]string{"try": "again"} },
		"what is to do":  more,
		"it is deleted":  func(s *plan.Snapshot) { now := metav1.Now(); s.Edge.DeletionTimestamp = &now },
		"another object": func(s *plan.Snapshot) { s.Edge.UID = "another" },
	} {
		t.Run(name, func(t *testing.T) {
			var r refusals
			s := fresh()
			p := plan.Make(s)
			r.add(s.Edge, asked(s.Edge, p), refusedAt("Service shop/orders"))
			if _, _, held := r.held(s.Edge, p); !held {
				t.Fatal("the same is not held back")
			}
			change(s)
			if _, _, held := r.held(s.Edge, plan.Make(s)); held {
				t.Error("it is held back")
			}
		})
	}
}
