package explain

import (
	"slices"
	"testing"

	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// TestEachThingIsDependedOnOnce: hops depend on several things, and share some of them.
func TestEachThingIsDependedOnOnce(t *testing.T) {
	var on []string
	for _, h := range []Hop{
		{Decision: policy.Decision{On: policy.OnSource | policy.OnMethod}},
		{Decision: policy.Decision{On: policy.OnSource}},
		{Said: "a text, with a comma", Decision: policy.Decision{On: policy.OnUnreadable}},
	} {
		on = h.addOn(on)
	}
	if want := []string{"source identity", "method", "a text, with a comma"}; !slices.Equal(on, want) {
		t.Errorf("got %q, want %q", on, want)
	}
}
