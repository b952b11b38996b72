package plan_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

const delegatingEdge = `
{apiVersion: isthmus.dev/v1alpha1, kind: AmbientEdge, metadata: {name: public, namespace: edge}, spec: {targetRefs: [{name: http}], mode: Observe, waypoint: {policy: Use, name: waypoint}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: edge}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: kgateway}, spec: {controllerName: kgateway.dev/kgateway}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: http, namespace: edge}, spec: {gatewayClassName: kgateway}}
`

// delegating is a route that its parents, or the Gateway, have accepted, and that sends to others or to a Service of its name.
func delegating(name string, parents []string, to ...string) string {
	var reports, refs []string
	refsOf := ""
	const conditions = `conditions: [{type: Accepted, status: "True", observedGeneration: 1}, {type: ResolvedRefs, status: "True", observedGeneration: 1}]`
	for _, p := range parents {
		reports = append(reports, `{parentRef: {group: gateway.networking.k8s.io, kind: HTTPRoute, name: `+p+`, namespace: edge}, controllerName: kgateway.dev/kgateway, `+conditions+`}`)
	}
	if len(parents) == 0 {
		reports, refsOf = []string{`{parentRef: {name: http}, controllerName: kgateway.dev/kgateway, ` + conditions + `}`}, "parentRefs: [{name: http}], "
	}
	for _, t := range to {
		refs = append(refs, `{group: gateway.networking.k8s.io, kind: HTTPRoute, name: `+t+`}`)
	}
	if len(to) == 0 {
		refs = []string{`{name: ` + name + `, port: 80}`}
	}
	return fmt.Sprintf("---\n{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: %s, namespace: edge, generation: 1}, spec: {%srules: [{backendRefs: [%s]}]}, status: {parents: [%s]}}\n",
		name, refsOf, strings.Join(refs, ", "), strings.Join(reports, ", "))
}

// TestDelegationHasAnEnd: so many routes in a row, and no more.
func TestDelegationHasAnEnd(t *testing.T) {
	for _, c := range []struct {
		routes int
		ends   bool
	}{{16, false}, {17, true}} {
		text := delegatingEdge
		for i := range c.routes {
			var parents, to []string
			if i > 0 {
				parents = []string{fmt.Sprintf("r%d", i-1)}
			}
			if i < c.routes-1 {
				to = []string{fmt.Sprintf("r%d", i+1)}
			}
			text += delegating(fmt.Sprintf("r%d", i), parents, to...)
		}
		p := plan.Make(snapshot(t, text))
		last := fmt.Sprintf("Service edge/r%d", c.routes-1)
		told, reached := "", false
		for _, f := range p.Findings {
			if f.Code == v1alpha1.FindingUnfollowed {
				told = f.Message
			}
			reached = reached || f.Code == v1alpha1.FindingNoBackend && f.Object == last
		}
		if (told != "") != c.ends || reached == c.ends {
			t.Errorf("%d routes in a row: %q is told, and the last one's Service is reached: %v", c.routes, told, reached)
		}
	}
}

// TestDelegationIsFollowedOnce: each route delegates to all of the next dozen, and there are more ways through than can be gone.
func TestDelegationIsFollowedOnce(t *testing.T) {
	const layers, wide = 12, 8
	name := func(layer, i int) string { return fmt.Sprintf("r%d-%d", layer, i) }
	layer := func(n int) (names []string) {
		for i := range wide {
			names = append(names, name(n, i))
		}
		return names
	}
	var text strings.Builder
	text.WriteString(delegatingEdge + delegating("root", nil, layer(0)...))
	for n := range layers {
		parents, to := []string{"root"}, []string(nil)
		if n > 0 {
			parents = layer(n - 1)
		}
		if n < layers-1 {
			to = layer(n + 1)
		}
		for i := range wide {
			text.WriteString(delegating(name(n, i), parents, to...))
		}
	}
	s := snapshot(t, text.String())
	begin := time.Now()
	p := plan.Make(s)
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	missing := 0
	for _, f := range p.Findings {
		if f.Code == v1alpha1.FindingNoBackend {
			missing++
		}
	}
	if missing != wide {
		t.Errorf("%d Services are reached, want %d", missing, wide)
	}
}
