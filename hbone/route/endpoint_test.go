package route

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

const (
	spreadKey = "shop/spread.shop.svc.cluster.local"
	spreadVIP = "10.96.9.1:80"
)

// spread is a Service with an endpoint in every place, and a dialer at 10.244.9.9.
func spread(prefer []Scope, strict bool) *Table {
	t := NewTable()
	t.SetService(&Service{
		Name: "spread", Namespace: "shop", Hostname: "spread.shop.svc.cluster.local", Addresses: []NetAddr{addr("10.96.9.1")},
		Ports: []Port{{80, 80}}, Prefer: prefer, Strict: strict,
	})
	at := func(name, ip string, l Locality) *Workload {
		return with(pod("shop/"+name, ip, ""), func(w *Workload) { w.Locality = l })
	}
	for i, e := range []struct {
		name string
		l    Locality
	}{
		{"node", Locality{"r", "z", "s", "n", "c"}},
		{"subzone", Locality{"r", "z", "s", "n2", "c"}},
		{"zone", Locality{"r", "z", "s2", "n3", "c"}},
		{"region", Locality{"r", "z2", "s", "n4", "c"}}, // the same subzone of another zone
		{"far", Locality{"r2", "z", "s", "n5", "c2"}},
	} {
		t.SetWorkload(at(e.name, fmt.Sprintf("10.244.9.%d", i+1), e.l).of(spreadKey))
	}
	t.SetWorkload(at("dialer", "10.244.9.9", Locality{"r", "z", "s", "n", "c"}))
	return t
}

// chosen dials often and lists the endpoints that came.
func chosen(t *testing.T, m *Table, src Source) []string {
	t.Helper()
	var names []string
	for range 200 {
		r, err := m.Resolve(src, spreadVIP, nothing)
		if err != nil {
			t.Fatal(err)
		}
		if name := strings.TrimPrefix(r.Hops[0].Name, "shop/"); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

var dialer = Source{IP: netip.MustParseAddr("10.244.9.9")}

func TestEndpointsByLocality(t *testing.T) {
	everyone := []string{"far", "node", "region", "subzone", "zone"}
	near := []Scope{ScopeNetwork, ScopeRegion, ScopeZone, ScopeSubzone, ScopeNode}
	tests := map[string]struct {
		prefer []Scope
		strict bool
		gone   []string
		want   []string
	}{
		"without preference all":     {nil, false, nil, everyone},
		"the nearest":                {near, false, nil, []string{"node"}},
		"the next when that is gone": {near, false, []string{"node"}, []string{"subzone"}},
		"the zone":                   {near, false, []string{"node", "subzone"}, []string{"zone"}},
		"the region, though the subzone is called alike":  {near, false, []string{"node", "subzone", "zone"}, []string{"region"}},
		"far away rather than nowhere":                    {near, false, []string{"node", "subzone", "zone", "region"}, []string{"far"}},
		"all of a zone":                                   {[]Scope{ScopeRegion, ScopeZone}, false, nil, []string{"node", "subzone", "zone"}},
		"all of a cluster":                                {[]Scope{ScopeCluster}, false, nil, []string{"node", "region", "subzone", "zone"}},
		"strictly the node":                               {[]Scope{ScopeNode}, true, nil, []string{"node"}},
		"strictly the zone":                               {[]Scope{ScopeRegion, ScopeZone}, true, []string{"node"}, []string{"subzone", "zone"}},
		"a scope of the future ends the comparison":       {[]Scope{ScopeRegion, 7, ScopeNode}, false, nil, []string{"node", "region", "subzone", "zone"}},
		"a scope of the future alone prefers nobody":      {[]Scope{7}, false, nil, everyone},
		"strictly the network, which is the same for all": {[]Scope{ScopeNetwork}, true, nil, everyone},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := spread(tt.prefer, tt.strict)
			for _, gone := range tt.gone {
				m.Remove("Kubernetes//Pod/shop/" + gone)
			}
			if got := chosen(t, m, dialer); !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// internalTrafficPolicy: Local must not send to another node, and must not guess.
func TestStrictLocalityRefuses(t *testing.T) {
	m := spread([]Scope{ScopeNode}, true)
	m.Remove("Kubernetes//Pod/shop/node")
	for want, src := range map[string]Source{
		`none of the 4 healthy endpoints of Service shop/spread is of our node (node "n")`: dialer,
		"istiod does not know where we are":                                                {},
		"is our own workload in the mesh?":                                                 {IP: netip.MustParseAddr("192.0.2.1")},
	} {
		r, err := m.Resolve(src, spreadVIP, nothing)
		if e, ok := errors.AsType[*Error](err); !ok || !strings.Contains(e.Why, want) {
			t.Errorf("got %+v, %v; want %q", r, err, want)
		}
	}
	// Who we are is asked for, where it decides; a mere preference does not wait for it.
	src := Source{IP: netip.MustParseAddr("192.0.2.1")}
	unknown := func(string) bool { return false }
	_, err := m.Resolve(src, spreadVIP, unknown)
	if miss, ok := errors.AsType[*MissingError](err); !ok || !slices.Equal(miss.Names, []string{"/192.0.2.1"}) {
		t.Errorf("strict, and our own workload not known yet: %v", err)
	}
	r, err := spread([]Scope{ScopeNode}, false).Resolve(src, spreadVIP, unknown)
	if err != nil || !strings.Contains(strings.Join(r.Reason, "; "), "istiod does not know where we are") {
		t.Errorf("a preference, and our own workload not known yet: %+v, %v", r, err)
	}
}

// A waypoint's own locality must neither be skipped nor be mistaken for a waypoint without pods.
func TestStrictWaypoint(t *testing.T) {
	m := mesh()
	m.SetService(&Service{
		Name: "waypoint", Namespace: "edge", Hostname: "waypoint.edge.svc.cluster.local",
		Ports: []Port{{15008, 15008}}, Prefer: []Scope{ScopeNode}, Strict: true,
	})
	_, err := m.Resolve(dialer, "10.96.0.2:80", func(string) bool { return false })
	if miss, ok := errors.AsType[*MissingError](err); !ok || !slices.Equal(miss.Names, []string{"/10.244.9.9"}) {
		t.Errorf("our own workload not known yet: %v", err)
	}
	_, err = m.Resolve(dialer, "10.96.0.2:80", nothing)
	if e, ok := errors.AsType[*Error](err); !ok || !strings.Contains(e.Why, "going around it would skip its policies") || !strings.Contains(e.Why, "where we are") {
		t.Errorf("our own workload not known at all: %v", err)
	}
}

func TestWeights(t *testing.T) {
	m := spread(nil, false)
	for uid, capacity := range map[string]uint32{"node": 6, "far": 3} {
		w := *m.WorkloadByUID("Kubernetes//Pod/shop/" + uid)
		w.Capacity = capacity
		m.SetWorkload(&w)
	}
	count := map[string]int{}
	const dials = 6000
	for range dials {
		r, err := m.Resolve(dialer, spreadVIP, nothing)
		if err != nil {
			t.Fatal(err)
		}
		count[r.Hops[0].Name]++
	}
	for name, weight := range map[string]int{"shop/node": 6, "shop/far": 3, "shop/zone": 1, "shop/region": 1, "shop/subzone": 1} {
		// Twelve weights in all; six standard deviations are some 230 for the heaviest.
		if want := dials * weight / 12; count[name] < want-235 || count[name] > want+235 {
			t.Errorf("%s was chosen %d times, want about %d", name, count[name], want)
		}
	}
}

func TestWeightedWaypoints(t *testing.T) {
	canaryKey := "edge/canary.edge.svc.cluster.local"
	canary := Gateway{Host: Host{"edge", "canary.edge.svc.cluster.local"}, Port: 15008}
	table := func(waypoint *Gateway, primary, second uint32) *Table {
		m := mesh()
		m.SetService(&Service{Name: "canary", Namespace: "edge", Hostname: "canary.edge.svc.cluster.local", Ports: []Port{{15008, 15008}}})
		m.SetWorkload(pod("edge/canary-1", "10.244.1.8", "canary").of(canaryKey))
		s := *m.Service(guardedKey)
		s.Waypoint, s.Weighted = waypoint, []Weighted{{*byWaypoint(), primary}, {canary, second}}
		m.SetService(&s)
		return m
	}
	for name, tt := range map[string]struct {
		m    *Table
		want []string
	}{
		"by weight":                    {table(byWaypoint(), 50, 50), []string{"edge/canary-1", "edge/waypoint-1"}},
		"all to the second":            {table(byWaypoint(), 0, 100), []string{"edge/canary-1"}},
		"all to the first":             {table(byWaypoint(), 100, 0), []string{"edge/waypoint-1"}},
		"without weight the primary":   {table(byWaypoint(), 0, 0), []string{"edge/waypoint-1"}},
		"without a primary not around": {table(nil, 0, 0), []string{"edge/waypoint-1"}},
		"the greatest weights":         {table(nil, 1<<32-1, 1<<32-1), []string{"edge/canary-1", "edge/waypoint-1"}},
	} {
		t.Run(name, func(t *testing.T) {
			var names []string
			for range 100 {
				r, err := tt.m.Resolve(Source{}, "10.96.0.2:80", nothing)
				if err != nil || len(r.Hops) != 1 || r.Hops[0].Authority != "10.96.0.2:80" {
					t.Fatalf("%+v, %v", r, err)
				}
				if !slices.Contains(names, r.Hops[0].Name) {
					names = append(names, r.Hops[0].Name)
				}
			}
			if slices.Sort(names); !slices.Equal(names, tt.want) {
				t.Errorf("through %v, want %v", names, tt.want)
			}
		})
	}
	m := table(byWaypoint(), 0, 100)
	m.Remove(canaryKey)
	if _, err := m.Resolve(Source{}, "10.96.0.2:80", nothing); err == nil || !strings.Contains(err.Error(), canaryKey) {
		t.Errorf("a canary that is gone: %v", err)
	}
}
