package rules_test

import (
	"slices"
	"testing"

	"github.com/isthmus-mesh/isthmus/controller/edge/rules"
)

func TestAHeaderIsClean(t *testing.T) {
	strips := func(names ...string) *rules.Rule { return &rules.Rule{Headers: &rules.Headers{Strips: names}} }
	writes := func(name string, overwrites rules.Answer) *rules.Rule {
		return &rules.Rule{Headers: &rules.Headers{Writes: []rules.Header{{Name: name, Overwrites: overwrites}}}}
	}
	doubt := func(r *rules.Rule) *rules.Rule {
		r.Unknown = []string{"spec.new"}
		return r
	}
	for _, c := range []struct {
		name    string
		inForce []*rules.Rule
		want    rules.Answer
	}{
		{"nobody strips it", []*rules.Rule{strips("x-other"), {JWT: &rules.JWT{}}}, rules.No},
		{"in other letters", []*rules.Rule{strips("X-Tenant-ID")}, rules.Yes},
		{"by how it begins", []*rules.Rule{strips("x-ten*")}, rules.Yes},
		{"by how another begins", []*rules.Rule{strips("x-tenant-id-of*")}, rules.No},
		{"all are stripped", []*rules.Rule{strips("*")}, rules.Yes},
		{"one with another dash", []*rules.Rule{strips("x_tenant_id")}, rules.No},
		{"a claim overwrites it", []*rules.Rule{writes("x-tenant-id", rules.Yes)}, rules.Yes},
		{"an authorizer may write it", []*rules.Rule{writes("*", rules.No)}, rules.No},
		{"one of several providers writes it", []*rules.Rule{writes("x-tenant-id", rules.Unsure)}, rules.Unsure},
		{"it is added to", []*rules.Rule{writes("x-tenant-id", rules.No)}, rules.No},
		{"one is enough", []*rules.Rule{writes("x-tenant-id", rules.No), doubt(&rules.Rule{}), strips("x-tenant-id")}, rules.Yes},
		{"a rule that is not understood", []*rules.Rule{doubt(strips("x-tenant-id"))}, rules.Unsure},
		{"another that is not understood", []*rules.Rule{doubt(&rules.Rule{})}, rules.Unsure},
	} {
		if got := rules.Clean(c.inForce, "x-tenant-id"); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// TestOrigins: all that is written under a name, by a pattern too, each origin once.
func TestOrigins(t *testing.T) {
	list := []*rules.Rule{
		{Headers: &rules.Headers{Writes: []rules.Header{{Name: "X-Tenant-Id", From: rules.FromClaim}, {Name: "x-other", From: rules.FromRequest}}}},
		{Headers: &rules.Headers{Strips: []string{"x-tenant-id"}}},
		{JWT: &rules.JWT{}},
		{Headers: &rules.Headers{Writes: []rules.Header{{Name: "*", From: rules.FromExtAuth}, {Name: "x-tenant-id", From: rules.FromClaim}}}},
	}
	if got, want := rules.Origins(list, "x-tenant-id"), []rules.Origin{rules.FromClaim, rules.FromExtAuth}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := rules.Origins(list[1:3], "x-tenant-id"); len(got) > 0 {
		t.Errorf("nobody writes it: %v", got)
	}
}
