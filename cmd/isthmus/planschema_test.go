package main

import (
	"strings"
	"testing"
)

// TestWhatTheAPIServerRefusesIsRefusedFromFiles: values that a field does not take, in the file of -f and in a folder.
func TestWhatTheAPIServerRefusesIsRefusedFromFiles(t *testing.T) {
	for _, c := range []struct{ name, spec, want string }{
		{"all is well", "{targetRefs: [{name: http}], mode: Manage, waypoint: {policy: Create, name: waypoint}}", ""},
		{"a mode that is none", "{targetRefs: [{name: http}], mode: Mange}", `spec.mode is "Mange", and takes "Observe" or "Manage"`},
		{"an empty mode", `{targetRefs: [{name: http}], mode: ""}`, `spec.mode is ""`},
		{"a policy that is none", "{targetRefs: [{name: http}], waypoint: {policy: Make}}", `spec.waypoint.policy is "Make", and takes`},
		{"Pair", "{targetRefs: [{name: http}], waypoint: {policy: Create, name: waypoint}, authorization: {mode: Pair}}", ""},
		{"Pair with pins", "{targetRefs: [{name: http}], waypoint: {policy: Create, name: waypoint}, authorization: {mode: Pair, pair: {headers: Pin}}}", ""},
		{"pins that are none", "{targetRefs: [{name: http}], authorization: {mode: Pair, pair: {headers: Nail}}}", `spec.authorization.pair.headers is "Nail", and takes`},
		{"another authorization may not", "{targetRefs: [{name: http}], authorization: {mode: Twin}}", `spec.authorization.mode is "Twin"`},
		{"a Lock of who has no identity", "{targetRefs: [{name: http}], capture: None, authorization: {mode: Lock}}", "spec.authorization.mode is Lock, which needs a gateway with an identity"},
		{"Pair without waypoint", "{targetRefs: [{name: http}], waypoint: {policy: None}, authorization: {mode: Pair}}", "spec.authorization.mode is Pair, which leaves the way by the waypoint only"},
		{"how to pair, of a Lock", "{targetRefs: [{name: http}], authorization: {mode: Lock, pair: {scope: Service}}}", "spec.authorization.pair says how Pair is done"},
		{"how to pair, of nothing", "{targetRefs: [{name: http}], authorization: {pair: {}}}", "spec.authorization.pair says how Pair is done"},
		{"routes of a workload", "{workloadRefs: [{kind: Deployment, name: a}], backends: {services: [{namespace: a, name: b}]}, authorization: {mode: Pair, pair: {scope: Route}}}", "spec.authorization.pair.scope is Route"},
		{"routes beside Services", "{targetRefs: [{name: http}], backends: {services: [{namespace: a, name: b}]}, authorization: {mode: Pair, pair: {scope: Route}}}", "spec.authorization.pair.scope is Route"},
		{"no gateways", "{targetRefs: []}", "spec.targetRefs has 0 items"},
		{"a gateway without a name", "{targetRefs: [{}]}", "spec.targetRefs[0] has no name"},
		{"too long a name", "{targetRefs: [{name: " + strings.Repeat("a", 300) + "}]}", "spec.targetRefs[0].name has 300 characters"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := "apiVersion: isthmus.dev/v1alpha1\nkind: AmbientEdge\nmetadata: {name: public, namespace: edge}\nspec: " + c.spec + "\n"
			dir := folder(t, map[string]string{"edge.yaml": text, "cluster.yaml": paperCluster})
			for _, args := range [][]string{{"plan", "--from", dir}, {"plan", "-f", dir + "/edge.yaml", "--from", dir + "/cluster.yaml"}} {
				r := isthmus(t, args...)
				if c.want == "" {
					r.want(t, exitOK, r.stdout)
					continue
				}
				r.want(t, exitFailed, r.stderr, "would refuse", "edge.yaml", c.want, "kubectl explain ambientedge.spec")
			}
		})
	}
}

// TestEveryValueOfTheCRDIsKnown: the part of the schema that is read is not empty.
func TestEveryValueOfTheCRDIsKnown(t *testing.T) {
	s, err := edgeSchema()
	if err != nil {
		t.Fatal(err)
	}
	spec := s.Properties["spec"]
	if len(spec.Properties["mode"].Enum) < 2 || spec.Properties["targetRefs"].Items == nil || len(spec.Properties["targetRefs"].Items.Required) == 0 {
		t.Errorf("the schema of the spec is %+v", spec)
	}
}
