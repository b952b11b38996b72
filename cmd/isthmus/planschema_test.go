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
