package policy

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	securityapi "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
)

// thousand are policies for one workload or service, DENY and ALLOW by turns.
func thousand(b testing.TB, rule func(i int) string) Mesh {
	b.Helper()
	var m Mesh
	for i := range 1000 {
		p := &securityv1.AuthorizationPolicy{}
		unmarshal(b, "{metadata: {namespace: shop}, spec: {rules: ["+rule(i)+"]}}", p)
		if p.Name = fmt.Sprint(i); i%2 == 0 {
			p.Spec.Action = securityapi.AuthorizationPolicy_DENY
		}
		m.AuthorizationPolicies = append(m.AuthorizationPolicies, p)
	}
	return m
}

// decisions are what a thousand policies are measured by, and tested for allocations.
func decisions(b testing.TB) map[string]func() Decision {
	sources := thousand(b, func(i int) string {
		if i == 999 {
			return "{from: [{source: {principals: [cluster.local/ns/edge/sa/gateway]}}]}"
		}
		return fmt.Sprintf("{from: [{source: {principals: [cluster.local/ns/team-%d/sa/caller, cluster.local/ns/team-%d/sa/other]}}]}", i, i)
	})
	paths := thousand(b, func(i int) string {
		return fmt.Sprintf("{from: [{source: {namespaces: [edge]}}], to: [{operation: {methods: [GET], paths: [/orders/%d]}}]}", i)
	})
	r := fromGateway()
	r.Path = Of("/orders/777?x=1")
	z, w, p := New(sources).Ztunnel(pod), New(toService(sources)).Waypoint(shopWay, orders), New(toService(paths)).Waypoint(shopWay, orders)
	return map[string]func() Decision{
		"ztunnel, by source":  func() Decision { return z.Decide(&r) },
		"waypoint, by source": func() Decision { return w.Decide(&r) },
		"waypoint, by path":   func() Decision { return p.Decide(&r) },
	}
}

func BenchmarkThousandPolicies(b *testing.B) {
	for name, decide := range decisions(b) {
		b.Run(strings.ReplaceAll(name, " ", "-"), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				decide()
			}
		})
	}
}

func TestDecidingAllocatesNothing(t *testing.T) {
	for name, decide := range decisions(t) {
		if n := testing.AllocsPerRun(100, func() { decide() }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
		if d := decide(); d.Verdict != Allow {
			t.Errorf("%s: %v", name, d)
		}
	}
}

func BenchmarkCompileThousandPolicies(b *testing.B) {
	set := New(thousand(b, func(i int) string {
		return fmt.Sprintf("{from: [{source: {principals: [cluster.local/ns/team-%d/sa/caller]}}]}", i)
	}))
	b.ReportAllocs()
	for b.Loop() {
		set.Ztunnel(pod)
	}
}

// FuzzDecide feeds what callers choose to policies that look at it.
func FuzzDecide(f *testing.F) {
	f.Add("/a/../b", "h:80", "x", "10.0.0.1")
	f.Add("//%2e%2e//", "", "gold,silver", "::1")
	f.Fuzz(func(t *testing.T, path, host, header, from string) {
		for _, n := range []Normalization{Base, None, MergeSlashes, DecodeAndMergeSlashes} {
			once, ok := n.normal(path)
			if twice, again := n.normal(once); ok && n != DecodeAndMergeSlashes && n != None && (twice != once || !again) {
				t.Fatalf("%d: %q is %q, and that %q", n, path, once, twice)
			}
		}
		m := toService(objects(t, ruled("DENY", op+"paths: ['/a/{**}', '/b', '*c'], hosts: [h, '*.x']}}], when: [{key: 'request.headers[k]', values: [x, 'g*']}]}")))
		point := New(m).Waypoint(shopWay, orders)
		r := fromGateway()
		r.Path, r.Host, r.Headers = Of(path), Of(host), map[string]Values[Header]{"k": Of(Header{header})}
		if a, err := netip.ParseAddr(from); err == nil {
			r.RemoteIP = Of(a)
		}
		d := point.Decide(&r)
		all := r
		all.Path, all.Host, all.Headers, all.NoOtherHeaders = Values[string]{}, Values[string]{}, nil, false
		if class := point.Decide(&all); class.Verdict != Depends {
			t.Fatalf("%v for all, %v for one", class, d)
		}
	})
}
