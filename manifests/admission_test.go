package manifests

import (
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// TestBoundsLetSwitchesThrough: what plans may write is also what the admission policy for the controller admits.
func TestBoundsLetSwitchesThrough(t *testing.T) {
	text, err := files.ReadFile("install/admission-controller.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		plan.LabelDataplaneMode, plan.LabelUseWaypoint, plan.LabelUseWaypointNamespace,
		plan.AnnotationBypassInbound, v1alpha1.AnnotationRollout, v1alpha1.AnnotationFormer,
	}
	for _, v := range edge.Vendors() {
		for i := range v.Switches {
			if s := &v.Switches[i]; s.Writable() {
				want = append(want, s.Path[len(s.Path)-1])
			}
		}
	}
	for _, u := range edge.Uses() {
		if u.Patch {
			want = append(want, u.Group+"/"+u.Resource)
		}
	}
	for _, w := range want {
		if !strings.Contains(string(text), "'"+w+"'") {
			t.Errorf("%s is not among what the controller may write", w)
		}
	}
	for _, u := range edge.Uses() {
		if !u.Patch && strings.Contains(string(text), u.Resource) {
			t.Errorf("%s is only read", u.Resource)
		}
	}
}
