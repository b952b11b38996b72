package run

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// TestWhatGatewaysDoIsWatchedFromWhenSomebodyWantsIt: until it is known which kinds there are, nobody takes it that there are none; then who waits is asked for.
func TestWhatGatewaysDoIsWatchedFromWhenSomebodyWantsIt(t *testing.T) {
	const v1alpha1Kinds = "gateway.kgateway.dev/v1alpha1"
	s := &kindsServer{has: map[string][]string{v1alpha1Kinds: {"trafficpolicies", "listenerpolicies"}}}
	c := &informers{of: map[string]*informer{}, synced: true}
	feeding(t, s, c, func(t *testing.T, f *feed, q queue) {
		if err := f.WaitForSync(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		taken(q)
		if got := c.watched(); got != crds {
			t.Errorf("nobody wants them, and watched are %s", got)
		}
		v, e := &vendors{feed: f}, &v1alpha1.AmbientEdge{}
		if err := v.rules(t.Context(), unread{nil}, &plan.Snapshot{Edge: e}); err == nil || !strings.Contains(err.Error(), "just begun") {
			t.Errorf("before it is known which there are: %v", err)
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if got, want := c.watched(), strings.Join([]string{crds, v1alpha1Kinds + " ListenerPolicy", v1alpha1Kinds + " TrafficPolicy"}, ", "); got != want {
			t.Errorf("watched are %s, want %s", got, want)
		}
		if n := taken(q); n == 0 {
			t.Error("who waits for them is not asked for")
		}
		s := &plan.Snapshot{Edge: e}
		if err := v.rules(t.Context(), unread{nil}, s); err != nil {
			t.Error(err)
		}
		for _, fam := range ruleFamilies() {
			k := fam[0]
			f.refused(schema.GroupResource{Group: k.Group, Resource: k.Resource})
		}
		if err := v.rules(t.Context(), unread{nil}, s); err != nil || len(s.RulesHidden) != 2 {
			t.Errorf("what may not be read is %v, %v", s.RulesHidden, err)
		}
	})
}

// TestOnlyWhoReadsRulesWaitsForThem: an AmbientEdge without a pin asks for none of them.
func TestOnlyWhoReadsRulesWaitsForThem(t *testing.T) {
	pins := &v1alpha1.AmbientEdge{Spec: v1alpha1.AmbientEdgeSpec{Authorization: &v1alpha1.Authorization{Mode: v1alpha1.AuthorizationPair, Pair: &v1alpha1.Pairing{Headers: v1alpha1.PairHeadersPin}}}}
	plain := pins.DeepCopy()
	plain.Spec.Authorization.Pair = nil
	for _, e := range []*v1alpha1.AmbientEdge{pins, plain} {
		f := newFeed(nil, nil, watch{})
		err := (&vendors{feed: f}).observe(t.Context(), nil, &plan.Snapshot{Edge: e})
		if (err != nil) != (e == pins) || f.rules.Load() != (e == pins) {
			t.Errorf("%+v: wanted are they %v, and %v", e.Spec.Authorization.Pair, f.rules.Load(), err)
		}
	}
}
