package controllertest

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/run"
)

// instead runs a controller in place of that of shared for the AmbientEdges of s that come, until the test ends or stop is called.
func (s *site) instead(account string, o run.Options) (stop func()) {
	s.t.Helper()
	s.own = true
	end, err := runController(s.mesh, account, o, nil, s.edge)
	if err != nil {
		s.t.Fatal(err)
	}
	stop = sync.OnceFunc(end)
	s.t.Cleanup(stop)
	return stop
}

// TestAnObserverSaysThatItOnlyObserves: whoever asks for mode Manage and gets a controller that may not is told so, also while undo waits for another.
func TestAnObserverSaysThatItOnlyObserves(t *testing.T) {
	t.Parallel()
	s := kgatewaySite(t, "observer")
	s.grant("observe", run.ObserveRules())
	before := s.state(true)
	observes := run.Options{Prober: shared.ask, ObserveOnly: true}
	stop := s.instead(s.weak(), observes)
	s.apply(edgeOfKgateway)
	e, _ := s.ready("public", v1alpha1.ReasonObserving)
	f := finding(e, v1alpha1.FindingObserver)
	if f == nil || f.Severity != v1alpha1.SeverityWarning || f.Object != "AmbientEdge "+s.edge+"/public" || f.Field != "spec.mode" {
		t.Fatalf("findings are %+v", e.Status.Findings)
	}
	says(t, f, []string{"only observes", "7 steps are left"}, []string{"spec.mode to Observe", "kubectl apply -k manifests"})
	if len(e.Finalizers) > 0 {
		t.Errorf("finalizers are %v", e.Finalizers)
	}
	s.same(before, true)
	stop()

	stop = s.instead(account, run.Options{Prober: shared.ask})
	e, _ = s.ready("public", v1alpha1.ReasonDone)
	if f := finding(e, v1alpha1.FindingObserver); f != nil {
		t.Errorf("the controller that manages says %s", f.Message)
	}

	wired := s.state(true)
	stop()
	stop = s.instead(s.weak(), observes)
	s.delete(s.theEdge("public"))
	e, _ = s.ready("public", v1alpha1.ReasonObserving)
	if f := finding(e, v1alpha1.FindingObserver); f == nil {
		t.Errorf("findings are %+v", e.Status.Findings)
	} else {
		says(t, f, []string{"being deleted", "takes nothing back"}, []string{"kubectl apply -k manifests"})
	}
	s.same(wired, true)
	stop()
	s.instead(account, run.Options{Prober: shared.ask})
	s.gone(s.theEdge("public"))
}

// TestWithoutAnIdentityNothingIsWritten: a controller that cannot ask a waypoint does not begin what it could not see to hold, and begins by itself when
// it can. An edge without waypoints needs none.
func TestWithoutAnIdentityNothingIsWritten(t *testing.T) {
	t.Parallel()
	s := kgatewaySite(t, "unable")
	var able atomic.Bool
	s.instead(account, run.Options{Prober: shared.ask, Able: func() error {
		if able.Load() {
			return nil
		}
		return errors.New("istiod gave no certificate")
	}})
	before := s.state(true)
	s.apply(edgeOfKgateway)
	e, _ := s.ready("public", v1alpha1.ReasonBlocked)
	f := finding(e, v1alpha1.FindingUnable)
	if f == nil || f.Severity != v1alpha1.SeverityError || f.Object != "AmbientEdge "+s.edge+"/public" {
		t.Fatalf("findings are %+v", e.Status.Findings)
	}
	says(t, f, []string{"istiod gave no certificate", "writes nothing"}, []string{"--istiod", "--identity"})
	time.Sleep(500 * time.Millisecond) // two rounds of a controller that would write
	if e := s.get("public"); len(e.Finalizers) > 0 || shared.ask.times(s.shop) > 0 {
		t.Errorf("finalizers are %v, and the waypoint was asked %d times", e.Finalizers, shared.ask.times(s.shop))
	}
	s.same(before, true)
	able.Store(true)
	s.ready("public", v1alpha1.ReasonDone)

	able.Store(false)
	s.delete(s.theEdge("public")) // to take back needs no identity
	s.gone(s.theEdge("public"))
	s.apply(strings.Replace(edgeOfKgateway, "{policy: Create, name: waypoint}", "{policy: None}", 1))
	s.ready("public", v1alpha1.ReasonDone)
}

// TestARouteWithoutItsGrantIsTold: the gateway's status says that all is resolved, and is older than the grant's end. What is wired stays.
func TestARouteWithoutItsGrantIsTold(t *testing.T) {
	t.Parallel()
	s := kgatewaySite(t, "grant")
	grant := object("gateway.networking.k8s.io/v1beta1", "ReferenceGrant", s.shop, "routes")
	again := `{apiVersion: gateway.networking.k8s.io/v1beta1, kind: ReferenceGrant, metadata: {name: routes, namespace: SHOP}, spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: EDGE}], to: [{group: "", kind: Service}]}}`
	missing := func() {
		t.Helper()
		e, _ := s.ready("public", v1alpha1.ReasonWaiting)
		f := finding(e, v1alpha1.FindingRouteNotCounted)
		if f == nil || f.Object != "HTTPRoute "+s.edge+"/orders" || f.Field != "spec.rules[0].backendRefs[0]" {
			t.Fatalf("findings are %+v", e.Status.Findings)
		}
		says(t, f, []string{"Service " + s.shop + "/orders", "no ReferenceGrant in namespace " + s.shop},
			[]string{"create a ReferenceGrant in namespace " + s.shop + " from HTTPRoute in namespace " + s.edge + " to Service orders"})
	}
	s.delete(grant)
	s.gone(grant)
	s.apply(edgeOfKgateway)
	missing()
	if l := s.service("orders").Labels; len(l) != 1 {
		t.Errorf("labels are %v", l)
	}
	s.apply(again)
	s.ready("public", v1alpha1.ReasonDone)
	wired := s.service("orders").ResourceVersion
	s.delete(object("gateway.networking.k8s.io/v1beta1", "ReferenceGrant", s.shop, "routes"))
	missing()
	time.Sleep(500 * time.Millisecond) // two rounds of a controller that would unwire it
	if now := s.service("orders"); now.ResourceVersion != wired {
		t.Errorf("the Service was written: labels are %v", now.Labels)
	}
	s.apply(again)
	s.ready("public", v1alpha1.ReasonDone)
}
