package v1alpha1

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

func TestOwnersFitWhatTheyAreWrittenTo(t *testing.T) {
	seen := map[string]bool{}
	for _, name := range []string{"public", strings.Repeat("e", 58), strings.Repeat("e", 59), strings.Repeat("e", 111), strings.Repeat("e", 112), strings.Repeat("e", 253), strings.Repeat("e", 252) + "x", strings.Repeat("e.", 126) + "e"} {
		e := &AmbientEdge{ObjectMeta: metav1.ObjectMeta{Namespace: "edge", Name: name}}
		full := "edge." + name
		owner, manager := e.Owner(), e.FieldOwner()
		if why := validation.IsValidLabelValue(owner); len(why) > 0 {
			t.Errorf("owner %s: %v", owner, why)
		}
		if len(manager) > 128 || !strings.HasPrefix(manager, FieldOwnerPrefix) {
			t.Errorf("field manager %s has %d bytes", manager, len(manager))
		}
		if len(full) <= 63 && owner != full || len(full) <= 116 && manager != FieldOwnerPrefix+full {
			t.Errorf("%s is cut without need: %s, %s", full, owner, manager)
		}
		if seen[owner] || seen[manager] {
			t.Errorf("%s or %s is another's", owner, manager)
		}
		seen[owner], seen[manager] = true, true
	}
	e := &AmbientEdge{ObjectMeta: metav1.ObjectMeta{Namespace: "edge", Name: strings.Repeat("e", 59)}}
	if got, want := e.Owner(), "edge.eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee-8d42fe115dbbc4be"; got != want {
		t.Errorf("the owner is %s, want %s: it is on objects that were made", got, want)
	}
}
