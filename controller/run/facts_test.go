package run

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// TestWhoDoesNotAnswerIsAskedLess: at first for each plan, as it may be starting; later once in a while, so that nobody waits for it.
func TestWhoDoesNotAnswerIsAskedLess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f facts
		times, answer := 0, errors.New("nobody is there")
		ask := func(span time.Duration) int {
			t.Helper()
			times = 0
			for end := time.Now().Add(span); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
				got := f.known(fact{waypoint: "w"}, nil, func() error { times++; return answer })
				if got.Answers || got.Why != "nobody is there" {
					t.Fatalf("got %+v", got)
				}
			}
			return times
		}
		if n := ask(patience); n != 50 {
			t.Errorf("in the beginning it is asked %d times in %v", n, patience)
		}
		if n := ask(time.Minute); n < 12 || n > 13 {
			t.Errorf("later on it is asked %d times a minute", n)
		}
		answer = nil
		asked := time.Now()
		for !f.known(fact{waypoint: "w"}, nil, func() error { return answer }).Answers {
			time.Sleep(200 * time.Millisecond)
		}
		if took := time.Since(asked); took > while {
			t.Errorf("its answer is heard after %v", took)
		}
		time.Sleep(believed)
		answer = errors.New("nobody is there")
		if n := ask(patience); n != 50 {
			t.Errorf("when it falls silent again it is asked %d times in %v", n, patience)
		}
	})
}

// teller is a Prober of waypoints that answer, and serve Services or not.
type teller struct {
	serves error
	asked  int // for Services
}

func (*teller) Answers(context.Context, netip.AddrPort, []spiffeid.ID, string) error { return nil }

func (p *teller) Serves(context.Context, netip.AddrPort, []spiffeid.ID, string, []byte) error {
	p.asked++
	return p.serves
}

// served is an edge whose one Service is wired, and whose waypoint has a pod.
func served(t *testing.T) *plan.Snapshot {
	t.Helper()
	s := golden(t, "all-done")
	for i := range s.Services {
		o := &s.Services[i]
		o.Spec.ClusterIP, o.Spec.Ports = "10.96.0.7", []corev1.ServicePort{{Port: 80}}
	}
	of := map[string]string{edge.LabelGatewayName: "waypoint"}
	s.Services = append(s.Services, corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "waypoint", Labels: of}, Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.9"},
	})
	s.Pods = append(s.Pods, plan.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "waypoint-1", Labels: of}})
	return s
}

// TestAnAnswerIsForgottenWithItsQuestion: that a waypoint served a Service a moment ago is no proof when the Service is led there anew.
func TestAnAnswerIsForgottenWithItsQuestion(t *testing.T) {
	orders := types.NamespacedName{Namespace: "shop", Name: "orders"}
	unwire := func(s *plan.Snapshot) {
		for i := range s.Services {
			if s.Services[i].Name == orders.Name {
				s.Services[i].Labels = nil
			}
		}
	}
	for _, c := range []struct {
		name string
		// away is what happens between two plans of the edge.
		away  func(t *testing.T, f *facts)
		again bool // the waypoint is asked anew
	}{
		{"nothing happens", func(*testing.T, *facts) {}, false},
		{"the edge is undone", func(t *testing.T, f *facts) {
			s := served(t)
			now := metav1.Now()
			s.Edge.DeletionTimestamp = &now
			f.ask(t.Context(), s)
		}, true},
		{"the edge has gone", func(t *testing.T, f *facts) {
			none := fresh()
			none.Edge.Name, none.Edges = "other", nil
			r := &reconciler{client: &cluster{server: &server{}, reader: newReader(t, none)}}
			r.facts.prober, r.facts.until, r.facts.asked = f.prober, f.until, f.asked
			if _, err := r.Reconcile(t.Context(), reconcile.Request{NamespacedName: types.NamespacedName{Namespace: "edge", Name: "public"}}); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"somebody takes the label away, and sets it again", func(t *testing.T, f *facts) {
			s := served(t)
			unwire(s)
			f.ask(t.Context(), s)
		}, true},
		{"the edge is undone, and another one needs the same", func(t *testing.T, f *facts) {
			s := served(t)
			s.Edge.Name = "other"
			for i := range s.Namespaces {
				s.Namespaces[i].Annotations = map[string]string{v1alpha1.AnnotationEdges: "edge/other"}
			}
			f.ask(t.Context(), s)
			f.leave(types.NamespacedName{Namespace: "edge", Name: "public"})
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &teller{}
			f := &facts{prober: p}
			s := served(t)
			if f.ask(t.Context(), s); p.asked != 1 || !s.Served[orders].Answers {
				t.Fatalf("asked %d times, served %+v, waypoints %+v", p.asked, s.Served, s.Waypoints)
			}
			c.away(t, f)
			p.serves, p.asked = errors.New("not yet"), 0
			f.ask(t.Context(), s)
			if got := p.asked == 1 && !s.Served[orders].Answers; got != c.again || p.asked > 1 {
				t.Errorf("asked anew: %d times, and told %+v", p.asked, s.Served[orders])
			}
		})
	}
}
