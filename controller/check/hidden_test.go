package check

import (
	"os"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// TestNothingIsSureOfWhatMayNotBeRead: a policy that nobody may read may do what is missed.
func TestNothingIsSureOfWhatMayNotBeRead(t *testing.T) {
	text, err := os.ReadFile("testdata/ISM501-live-kgateway.yaml")
	if err != nil {
		t.Fatal(err)
	}
	in, _, _ := strings.Cut(string(text), "---findings---\n")
	find := func(kind schema.GroupKind) v1alpha1.Severity {
		w := worldOf(t, in)
		(&Builder{w}).Hidden(kind)
		found := Run(w, All())
		i := slices.IndexFunc(found, func(f Finding) bool { return f.Code == "ISM501" })
		if i < 0 {
			t.Fatalf("without rights to %s it is not found", kind)
		}
		return found[i].Severity
	}
	if got := find(schema.GroupKind{Group: "gateway.kgateway.dev", Kind: "HTTPListenerPolicy"}); got != v1alpha1.SeverityWarning {
		t.Errorf("it is %s where a kind that the gateway obeys is hidden", got)
	}
	if got := find(schema.GroupKind{Group: "gateway.envoyproxy.io", Kind: "SecurityPolicy"}); got != v1alpha1.SeverityError {
		t.Errorf("it is %s where a kind of another vendor is hidden", got)
	}
}
