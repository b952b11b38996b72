package run

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/hbone/hbonetest"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
)

// TestAWitnessIsBelievedByItsAnswers: by the status and the text that a policy and a Service without endpoints give, from a pod with the waypoint's identity.
func TestAWitnessIsBelievedByItsAnswers(t *testing.T) {
	asks := spiffeid.RequireFromString("spiffe://cluster.local/ns/isthmus-system/sa/isthmus-controller")
	is, other := spiffeid.RequireFromString("spiffe://cluster.local/ns/shop/sa/waypoint"), spiffeid.RequireFromString("spiffe://cluster.local/ns/shop/sa/other")
	ca := identitytest.NewCA(asks.TrustDomain())
	at := netip.MustParseAddrPort("10.0.0.7:15008")
	type answer struct {
		status int
		body   string
	}
	refuses, nobody := answer{http.StatusForbidden, "RBAC: access denied"}, answer{http.StatusServiceUnavailable, "no healthy upstream"}
	for name, c := range map[string]struct {
		shown, hidden answer
		peer          spiffeid.ID
		want          string // of the error; empty: it is believed
	}{
		"as it should":                     {nobody, refuses, is, ""},
		"without the policy":               {nobody, nobody, is, "/hidden"},
		"with a policy of before":          {refuses, refuses, is, "/shown"},
		"an external authorizer's 503":     {answer{503, ""}, refuses, is, "/shown"},
		"an external authorizer's refusal": {nobody, answer{403, ""}, is, "/hidden"},
		"a pod that answers":               {answer{200, "hello"}, refuses, is, "/shown"},
		"a pod of somebody else's":         {nobody, refuses, other, "sa/other"},
	} {
		network := new(hbonetest.Network)
		l, err := network.Listen(at)
		if err != nil {
			t.Fatal(err)
		}
		server := &hbone.Server{Identity: ca.Source(c.peer), Admit: func(_ context.Context, r *hbone.ConnectRequest) error {
			if got := fmt.Sprint(r.Target); !strings.Contains(got, "10.96.0.7:80") {
				return fmt.Errorf("asked for %s", got)
			}
			return nil
		}}
		go func() { _ = server.Serve(l) }()
		go func() {
			_ = http.Serve(server, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { //nolint:gosec // it is asked by the test alone
				a := map[string]answer{"/shown": c.shown, "/hidden": c.hidden}[r.URL.Path]
				w.WriteHeader(a.status)
				fmt.Fprint(w, a.body)
			}))
		}()
		p := &HBONEProber{Identity: ca.Source(asks), NetDial: network.DialContext}
		err = p.Shows(t.Context(), at, []spiffeid.ID{is}, "10.96.0.7:80", "/shown", "/hidden")
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v", name, err)
		}
		server.Close()
	}
}

// witnesses is a prober whose pods show what is in it.
type witnesses struct {
	Prober
	hides map[string]error // by address
	asked []string
}

func (w *witnesses) Shows(_ context.Context, pod netip.AddrPort, _ []spiffeid.ID, authority, shown, hidden string) error {
	w.asked = append(w.asked, pod.String()+" "+authority+" "+shown)
	if hidden == shown {
		return errors.New("it is asked twice for one path")
	}
	return w.hides[pod.Addr().String()]
}

// TestEveryPodOfAWaypointIsAsked that is ready, and again when another comes.
func TestEveryPodOfAWaypointIsAsked(t *testing.T) {
	pod := func(name, ip string, ready corev1.ConditionStatus) plan.Pod {
		return plan.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)},
			Status:     plan.PodStatus{PodIP: ip, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}},
		}
	}
	a, b, starting := pod("a", "10.0.0.1", corev1.ConditionTrue), pod("b", "10.0.0.2", corev1.ConditionTrue), pod("c", "10.0.0.3", corev1.ConditionFalse)
	q := plan.WitnessToAsk{
		Service: &corev1.Service{Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.7", Ports: []corev1.ServicePort{{Port: 80}}}},
		Path:    "/shown", Hidden: "/hidden",
	}
	w := &witnesses{hides: map[string]error{"10.0.0.2": errors.New("it hides")}}
	f := &facts{prober: w}
	if err := f.allShow(t.Context(), &q, []*plan.Pod{&a}); err != nil || len(w.asked) != 1 || w.asked[0] != "10.0.0.1:15008 10.96.0.7:80 /shown" {
		t.Errorf("one pod: %v, asked %v", err, w.asked)
	}
	if err := f.allShow(t.Context(), &q, []*plan.Pod{&a, &b}); err == nil || !strings.Contains(err.Error(), "it hides") {
		t.Errorf("one of two hides: %v", err)
	}
	if err := f.allShow(t.Context(), &q, nil); err == nil {
		t.Error("no pod is ready, and all is shown")
	}
	if ready(&starting) {
		t.Error("a pod that is starting is asked")
	}
	if err := (&facts{prober: w.Prober}).allShow(t.Context(), &q, []*plan.Pod{&a}); err == nil {
		t.Error("nobody can ask, and all is shown")
	}
}
