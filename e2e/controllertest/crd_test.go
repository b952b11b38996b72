package controllertest

import (
	"fmt"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func TestMalformedEdgesAreRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t, "crd")
	s.apply(`{apiVersion: v1, kind: Namespace, metadata: {name: EDGE}}`)
	services := func(n int) string {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprintf("{namespace: a, name: s%d}", i))
		}
		return strings.Join(list, ", ")
	}
	for _, c := range []struct{ name, spec, want string }{
		{"one Gateway", `{targetRefs: [{name: http}]}`, ""},
		{"its kind in full", `{targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: http}]}`, ""},
		{"one Deployment and its Services", `{workloadRefs: [{kind: Deployment, name: a}], backends: {services: [{namespace: a, name: b}]}}`, ""},
		{"everything", `{targetRefs: [{name: http}], mode: Manage, capture: Ambient, backends: {from: Routes}, waypoint: {policy: Create, name: w}, onDelete: Keep}`, ""},
		{"a name alone", `{targetRefs: [{name: http}], waypoint: {name: w}}`, ""},
		{"as many Services as may be", `{targetRefs: [{name: http}], backends: {services: [` + services(64) + `]}}`, ""},

		{"a workload and its Ingresses", `{workloadRefs: [{kind: DaemonSet, name: a}], backends: {from: Ingresses}}`, ""},
		{"fields to take over", `{targetRefs: [{name: http}], takeOver: ["metadata.labels[istio.io/ingress-use-waypoint]", spec.routingType]}`, ""},

		{"nothing", `{}`, "exactly one of targetRefs and workloadRefs"},
		{"both kinds of targets", `{targetRefs: [{name: http}], workloadRefs: [{kind: Deployment, name: a}], backends: {services: [{namespace: a, name: b}]}}`, "exactly one of targetRefs and workloadRefs"},
		{"an empty list", `{targetRefs: []}`, "should have at least 1 items"},
		{"a Gateway twice", `{targetRefs: [{name: http}, {name: http}]}`, "Duplicate value"},
		{"17 Gateways", `{targetRefs: [` + strings.ReplaceAll(services(17), "namespace: a, ", "") + `]}`, "must have at most 16 items"},
		{"a target of another kind", `{targetRefs: [{kind: Service, name: http}]}`, "Unsupported value"},
		{"a target of another group", `{targetRefs: [{group: networking.istio.io, name: http}]}`, "Unsupported value"},
		{"a target without name", `{targetRefs: [{kind: Gateway}]}`, "Required value"},
		{"a workload of another kind", `{workloadRefs: [{kind: StatefulSet, name: a}], backends: {services: [{namespace: a, name: b}]}}`, "Unsupported value"},
		{"Lock", `{targetRefs: [{name: http}], authorization: {mode: Lock}}`, ""},
		{"Lock of a gateway without identity", `{targetRefs: [{name: http}], capture: None, authorization: {mode: Lock}}`, "capture None has none"},
		{"Lock without waypoint", `{targetRefs: [{name: http}], waypoint: {policy: None}, authorization: {mode: Lock}}`, "waypoint.policy None has none"},
		{"Pair", `{targetRefs: [{name: http}], authorization: {mode: Pair}}`, ""},
		{"Pair of a gateway without identity", `{targetRefs: [{name: http}], capture: None, authorization: {mode: Pair}}`, "capture None has none"},
		{"Pair without waypoint", `{targetRefs: [{name: http}], waypoint: {policy: None}, authorization: {mode: Pair}}`, "waypoint.policy None has none"},
		{"Check", `{targetRefs: [{name: http}], capture: None, waypoint: {policy: None}, authorization: {mode: Check}}`, ""},
		{"Pair by routes", `{targetRefs: [{name: http}], authorization: {mode: Pair, pair: {scope: Route, defaultDeny: Set}}}`, ""},
		{"Pair as it is by itself", `{workloadRefs: [{kind: Deployment, name: a}], backends: {services: [{namespace: a, name: b}]}, authorization: {mode: Pair, pair: {scope: Service, defaultDeny: Keep}}}`, ""},
		{"how to pair, of a Lock", `{targetRefs: [{name: http}], authorization: {mode: Lock, pair: {scope: Service}}}`, "needs authorization.mode Pair"},
		{"how to pair, of nothing", `{targetRefs: [{name: http}], authorization: {pair: {defaultDeny: Set}}}`, "needs authorization.mode Pair"},
		{"routes of a workload", `{workloadRefs: [{kind: Deployment, name: a}], backends: {services: [{namespace: a, name: b}]}, authorization: {mode: Pair, pair: {scope: Route}}}`, "needs targetRefs"},
		{"routes beside Services", `{targetRefs: [{name: http}], backends: {services: [{namespace: a, name: b}]}, authorization: {mode: Pair, pair: {scope: Route}}}`, "no backends.services"},
		{"a scope that is none", `{targetRefs: [{name: http}], authorization: {mode: Pair, pair: {scope: Host}}}`, "Unsupported value"},
		{"a default that is none", `{targetRefs: [{name: http}], authorization: {mode: Pair, pair: {defaultDeny: Always}}}`, "Unsupported value"},
		{"Pair with pins", `{targetRefs: [{name: http}], authorization: {mode: Pair, pair: {headers: Pin}}}`, ""},
		{"Pair without pins, written out", `{targetRefs: [{name: http}], authorization: {mode: Pair, pair: {headers: Ignore}}}`, ""},
		{"pins without Pair", `{targetRefs: [{name: http}], authorization: {mode: Lock, pair: {headers: Pin}}}`, "needs authorization.mode Pair"},
		{"pins without a mode", `{targetRefs: [{name: http}], authorization: {pair: {headers: Pin}}}`, "needs authorization.mode Pair"},
		{"pins that are none", `{targetRefs: [{name: http}], authorization: {mode: Pair, pair: {headers: Nail}}}`, "Unsupported value"},
		{"an authorization that is none", `{targetRefs: [{name: http}], authorization: {mode: Both}}`, "Unsupported value"},
		{"a workload without Services", `{workloadRefs: [{kind: Deployment, name: a}]}`, "list backends.services"},
		{"a workload with routes", `{workloadRefs: [{kind: Deployment, name: a}], backends: {from: Routes}}`, "list backends.services"},
		{"Gateways with Ingresses", `{targetRefs: [{name: http}], backends: {from: Ingresses}}`, "backends.from Ingresses is for workloadRefs"},
		{"a field to take over twice", `{targetRefs: [{name: http}], takeOver: [a, a]}`, "Duplicate value"},
		{"a field to take over without name", `{targetRefs: [{name: http}], takeOver: [""]}`, "should be at least 1 chars"},
		{"a mode that is none", `{targetRefs: [{name: http}], mode: Conquer}`, "Unsupported value"},
		{"an empty mode, written out", `{targetRefs: [{name: http}], mode: ""}`, "Unsupported value"},
		{"a capture that is none", `{targetRefs: [{name: http}], capture: Full}`, "Unsupported value"},
		{"a policy that is none", `{targetRefs: [{name: http}], waypoint: {policy: Make}}`, "Unsupported value"},
		{"an end that is none", `{targetRefs: [{name: http}], onDelete: Burn}`, "Unsupported value"},
		{"Create without a name", `{targetRefs: [{name: http}], waypoint: {policy: Create}}`, "waypoint.policy Create needs waypoint.name"},
		{"a waypoint's name that is no name", `{targetRefs: [{name: http}], waypoint: {name: "a b"}}`, "should match"},
		{"a waypoint's name that is too long", `{targetRefs: [{name: http}], waypoint: {name: ` + strings.Repeat("a", 64) + `}}`, "may not be more than 63"},
		{"Services and routes", `{targetRefs: [{name: http}], backends: {from: Routes, services: [{namespace: a, name: b}]}}`, "exactly one of from and services"},
		{"neither Services nor routes", `{targetRefs: [{name: http}], backends: {}}`, "exactly one of from and services"},
		{"backends from elsewhere", `{targetRefs: [{name: http}], backends: {from: Here}}`, "Unsupported value"},
		{"no Services", `{targetRefs: [{name: http}], backends: {services: []}}`, "should have at least 1 items"},
		{"too many Services", `{targetRefs: [{name: http}], backends: {services: [` + services(65) + `]}}`, "must have at most 64 items"},
		{"a Service twice", `{targetRefs: [{name: http}], backends: {services: [{namespace: a, name: b}, {namespace: a, name: b}]}}`, "Duplicate value"},
		{"a Service without namespace", `{targetRefs: [{name: http}], backends: {services: [{name: b}]}}`, "Required value"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := object("isthmus.dev/v1alpha1", "AmbientEdge", s.edge, "case")
			var spec map[string]any
			if err := yaml.Unmarshal([]byte(c.spec), &spec); err != nil {
				t.Fatal(err)
			}
			u.Object["spec"] = spec
			err := s.c.Create(t.Context(), u, client.DryRunAll)
			switch {
			case c.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.want != "" && err == nil:
				t.Error("accepted")
			case c.want != "" && (!apierrors.IsInvalid(err) || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
