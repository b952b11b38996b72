package controllertest

import (
	"context"
	"errors"
	"flag"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/controller/run"
	"github.com/isthmus-mesh/isthmus/manifests"
)

// slow is how long each answer takes. 2 s are promised; with them the test takes more than a minute.
var slow = flag.Duration("slow", 500*time.Millisecond, "how long the API server takes for an answer in TestASlowAPIServer")

// away is how long the API server does not answer. 60 s are promised; CI has less time.
var away = flag.Duration("away", 6*time.Second, "how long the API server is away in TestTheAPIServerMayBeAway")

// startManager runs a manager until the function that it returns is called, which gives what it ended with.
func startManager(t *testing.T, mgr ctrl.Manager) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	stop = func() error {
		cancel()
		return <-ended
	}
	if !mgr.GetCache().WaitForCacheSync(ctx) {
		t.Fatal(stop())
	}
	return stop
}

// unlabel takes the label away that leads a Service to its waypoint, as another manager.
func (s *site) unlabel(manager string) {
	s.t.Helper()
	patch := `{"metadata":{"labels":{"istio.io/use-waypoint":null},"annotations":{"test/by":"` + manager + time.Now().String() + `"}}}`
	if err := s.c.Patch(s.t.Context(), s.service("orders"), client.RawPatch(types.MergePatchType, []byte(patch)), client.FieldOwner(manager)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) wired() bool {
	s.t.Helper()
	return s.service("orders").Labels[plan.LabelUseWaypoint] != ""
}

func (s *site) rewired() time.Duration {
	s.t.Helper()
	return s.wait("the label is back", func() string {
		if s.wired() {
			return ""
		}
		return "it is not"
	})
}

// TestASlowAPIServer lets every request take two seconds.
func TestASlowAPIServer(t *testing.T) {
	t.Parallel()
	s := kgatewaySite(t, "slow")
	s.patience = 2 * time.Minute
	before := s.state(false)
	b := &between{}
	through(t, s, b)
	b.set(func(b *between) { b.slow = *slow })
	s.apply(edgeOfKgateway)
	_, took := s.ready("public", v1alpha1.ReasonDone)
	t.Logf("ready after %v", took)
	for path, most := range map[string]int{
		"PATCH /api/v1/namespaces/" + s.shop + "/services/orders":                               2,
		"PATCH /apis/gateway.networking.k8s.io/v1/namespaces/" + s.edge + "/gateways/http":      1,
		"POST /apis/gateway.networking.k8s.io/v1/namespaces/" + s.shop + "/gateways":            1,
		"PATCH /apis/isthmus.dev/v1alpha1/namespaces/" + s.edge + "/ambientedges/public":        1,
		"PATCH /apis/isthmus.dev/v1alpha1/namespaces/" + s.edge + "/ambientedges/public/status": 9, // a step, a status
	} {
		if n := b.wrote(path); n > most || n == 0 && most > 0 {
			t.Errorf("%s: %d times, want at most %d", path, n, most)
		}
	}
	s.delete(s.theEdge("public"))
	t.Logf("undone after %v", s.gone(s.theEdge("public")))
	s.same(before, false)
}

// TestConflictsOnEveryWrite has each write refused as if the object had been changed.
func TestConflictsOnEveryWrite(t *testing.T) {
	t.Parallel()
	s := kgatewaySite(t, "conflicts")
	before := s.state(false)
	b := &between{}
	through(t, s, b)
	b.set(func(b *between) { b.conflicts = true })
	s.apply(edgeOfKgateway)
	time.Sleep(5 * time.Second)
	n := b.wrote("")
	t.Logf("%d writes were tried in 5 s", n)
	if n < 2 || n > 40 {
		t.Errorf("%d writes were tried in 5 s: it gives up, or hammers", n)
	}
	b.set(func(b *between) { b.conflicts = false })
	s.ready("public", v1alpha1.ReasonDone)
	b.set(func(b *between) { b.conflicts = true })
	s.delete(s.theEdge("public"))
	time.Sleep(time.Second)
	b.set(func(b *between) { b.conflicts = false })
	s.gone(s.theEdge("public"))
	s.same(before, false)
}

// TestAWatchThatIsDroppedIsTakenUp has something change while nobody tells.
func TestAWatchThatIsDroppedIsTakenUp(t *testing.T) {
	t.Parallel()
	s := kgatewaySite(t, "dropped")
	b := &between{}
	through(t, s, b)
	s.apply(edgeOfKgateway)
	s.ready("public", v1alpha1.ReasonDone)
	b.set(func(b *between) { b.deaf = true })
	if n := b.cut(); n < 8 {
		t.Errorf("%d watches were cut, want one for each kind", n)
	}
	s.unlabel("kubectl")
	time.Sleep(time.Second)
	if s.wired() {
		t.Error("somebody has told")
	}
	b.set(func(b *between) { b.deaf = false })
	t.Logf("the label is back %v after watches are", s.rewired())
	s.ready("public", v1alpha1.ReasonDone)
}

func TestTheAPIServerMayBeAway(t *testing.T) {
	t.Parallel()
	s := kgatewaySite(t, "away")
	s.patience = 90 * time.Second // a watch is tried again after a minute at most
	before := s.state(false)
	b := &between{}
	through(t, s, b)
	s.apply(edgeOfKgateway)
	s.ready("public", v1alpha1.ReasonDone)
	b.set(func(b *between) { b.away = true })
	b.cut()
	s.unlabel("kubectl")
	time.Sleep(*away)
	b.set(func(b *between) { b.away = false })
	t.Logf("away for %v: the label is back %v later", *away, s.rewired())
	s.ready("public", v1alpha1.ReasonDone)
	s.delete(s.theEdge("public"))
	t.Logf("undone after %v", s.gone(s.theEdge("public")))
	patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"annotations":null}}`))
	if err := s.c.Patch(t.Context(), s.service("orders"), patch); err != nil {
		t.Fatal(err)
	}
	s.same(before, false)
}

// TestAFightIsNotALoop has another manager take a label away whenever it is there.
func TestAFightIsNotALoop(t *testing.T) {
	t.Parallel()
	s := kgatewaySite(t, "fight")
	s.apply(edgeOfKgateway)
	s.ready("public", v1alpha1.ReasonDone)
	// The switch's write was the first with this label; what comes back now is the second.
	s.unlabel("argocd")
	s.rewired()
	s.ready("public", v1alpha1.ReasonDone)
	s.unlabel("argocd")
	e, _ := s.ready("public", v1alpha1.ReasonBlocked)
	f := finding(e, v1alpha1.FindingFight)
	if f == nil || f.Object != "Service "+s.shop+"/orders" || f.Severity != v1alpha1.SeverityError {
		t.Fatalf("findings are %+v", e.Status.Findings)
	}
	says(t, f, []string{`"argocd"`, "taken back 2 times", "not written again"}, []string{"when the AmbientEdge changes"})
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) { // it asks about a refusal again after two
		if s.wired() {
			t.Fatal("it goes on")
		}
	}
	patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"annotations":{"test/again":"yes"}}}`))
	if err := s.c.Patch(t.Context(), s.theEdge("public"), patch); err != nil {
		t.Fatal(err)
	}
	s.rewired()
	s.ready("public", v1alpha1.ReasonDone)
}

func TestAGatewayThatGoesHalfWay(t *testing.T) {
	t.Parallel()
	s := kgatewaySite(t, "goes")
	gateway := object("gateway.networking.k8s.io/v1", "Gateway", s.edge, "http")
	before := s.state(false)
	delete(before, "Gateway "+s.edge+"/http")
	shared.ask.silence(s.shop, errors.New("connection refused"))
	defer shared.ask.silence(s.shop, nil)
	s.apply(edgeOfKgateway)
	s.step(plan.VerbAwait, "it does not answer")
	s.delete(gateway)
	e, _ := s.ready("public", v1alpha1.ReasonBlocked)
	if f := finding(e, v1alpha1.FindingNoTarget); f == nil || f.Object != "Gateway "+s.edge+"/http" {
		t.Errorf("findings are %+v", e.Status.Findings)
	}
	shared.ask.silence(s.shop, nil)
	time.Sleep(time.Second)
	if s.wired() {
		t.Error("it went on without a gateway")
	}
	s.delete(s.theEdge("public"))
	s.gone(s.theEdge("public"))
	s.same(before, false)
}

func TestNamespacesMayTerminate(t *testing.T) {
	t.Parallel()
	t.Run("that of the backends", func(t *testing.T) {
		s := kgatewaySite(t, "ending")
		s.patience = time.Minute // a namespace is emptied bit by bit
		s.apply(edgeOfKgateway)
		s.ready("public", v1alpha1.ReasonDone)
		// Somebody holds the namespace for a while, by the grant without which the route does not lead there.
		grant := object("gateway.networking.k8s.io/v1beta1", "ReferenceGrant", s.shop, "routes")
		hold := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":["test.example.com/held"]}}`))
		if err := s.c.Patch(t.Context(), grant, hold); err != nil {
			t.Fatal(err)
		}
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.shop}}
		s.delete(ns)
		s.wait("the Service that is gone is missed", func() string {
			if finding(s.get("public"), v1alpha1.FindingNoBackend) == nil {
				return "it is not"
			}
			return ""
		})
		s.ready("public", v1alpha1.ReasonBlocked)
		s.delete(s.theEdge("public"))
		s.gone(s.theEdge("public"))
		if err := s.c.Patch(t.Context(), grant, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`))); err != nil {
			t.Fatal(err)
		}
		s.gone(ns)
	})
	t.Run("that of the edge", func(t *testing.T) {
		s := kgatewaySite(t, "leaving")
		s.apply(edgeOfKgateway)
		s.ready("public", v1alpha1.ReasonDone)
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.edge}}
		s.delete(ns)
		s.patience = time.Minute // what Kubernetes still finds in it, it looks for again after longer and longer pauses
		s.gone(ns)
		if labels := s.service("orders").Labels; len(labels) != 1 {
			t.Errorf("the Service's labels are %v", labels)
		}
		s.gone(s.wayPoint())
	})
}

// TestOneOfTwoReplicasWorks has the first give up its lease, and the second lose the API server. It is not parallel: a lease is to be renewed in time.
func TestOneOfTwoReplicasWorks(t *testing.T) {
	s := kgatewaySite(t, "replicas")
	s.own = true
	replica := func() (*between, func() error, <-chan struct{}) {
		b := &between{}
		mgr, err := newManager(s.mesh, account, run.Options{Prober: shared.ask}, func(cfg *rest.Config, mo *ctrl.Options) {
			b.wrap(cfg, mo)
			duration, deadline, retry := 3*time.Second, 2*time.Second, 300*time.Millisecond
			mo.LeaderElection, mo.LeaderElectionID, mo.LeaderElectionNamespace = true, manifests.Controller, manifests.Namespace
			mo.LeaderElectionReleaseOnCancel, mo.LeaseDuration, mo.RenewDeadline, mo.RetryPeriod = true, &duration, &deadline, &retry
		}, s.edge)
		if err != nil {
			t.Fatal(err)
		}
		return b, startManager(t, mgr), mgr.Elected()
	}
	first, stopFirst, elected := replica()
	<-elected
	second, stopSecond, elected := replica()
	s.apply(edgeOfKgateway)
	s.ready("public", v1alpha1.ReasonDone)
	if n := second.others(); n > 0 {
		t.Errorf("the second wrote %d times while the first worked: %v", n, second.writes)
	}
	if err := stopFirst(); err != nil {
		t.Errorf("the first ended: %v", err)
	}
	<-elected
	n := first.others()
	s.unlabel("kubectl")
	t.Logf("the label is back after %v", s.rewired())
	s.ready("public", v1alpha1.ReasonDone)
	if first.others() != n || second.others() == 0 {
		t.Errorf("the first wrote %d times after its end, the second %d times", first.others()-n, second.others())
	}

	third, stopThird, elected := replica()
	second.set(func(b *between) { b.away = true })
	second.cut()
	<-elected
	if err := stopSecond(); err == nil || !strings.Contains(err.Error(), "leader election lost") {
		t.Errorf("the second lost its lease, and ended with %v", err)
	}
	s.delete(s.theEdge("public"))
	s.gone(s.theEdge("public"))
	if third.others() == 0 {
		t.Error("the third did nothing")
	}
	if err := stopThird(); err != nil {
		t.Errorf("the third ended: %v", err)
	}
}
