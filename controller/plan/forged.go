package plan

import (
	"encoding/json"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
)

// wrote says whether the edge's manager has applied fields of o, and none but those that we write. Whoever may apply an object may do so under our
// name: what is more than ours was not written by us, is not for us to take back, and the API server would not let us.
func (m *maker) wrote(o metav1.Object) bool {
	found := false
	for _, f := range o.GetManagedFields() {
		if f.Manager != m.Edge.FieldOwner() || f.Operation != metav1.ManagedFieldsOperationApply || f.FieldsV1 == nil {
			continue
		}
		ours, ok := allOurs(f.FieldsV1.GetRawBytes(), nil)
		if !ok {
			return false
		}
		found = found || ours > 0
	}
	return found
}

// allOurs counts the fields of ours in managed fields below path, and says whether there are no others.
func allOurs(raw []byte, path []string) (ours int, ok bool) {
	fields := map[string]json.RawMessage{}
	if json.Unmarshal(raw, &fields) != nil {
		return 0, false
	}
	for key, below := range fields {
		name, is := strings.CutPrefix(key, "f:")
		at := append(slices.Clone(path), name)
		switch {
		case key == ".":
		case is && ourField(at):
			ours++
		case is && len(below) > len("{}"):
			n, ok := allOurs(below, at)
			if !ok {
				return 0, false
			}
			ours += n
		default:
			return 0, false
		}
	}
	return ours, true
}

// ourField says whether a field is one that we set in objects of others.
func ourField(path []string) bool {
	key := path[len(path)-1]
	switch strings.Join(path[:len(path)-1], ".") {
	case "metadata.labels", "spec.template.metadata.labels", "spec.infrastructure.labels":
		if slices.Contains([]string{LabelDataplaneMode, LabelUseWaypoint, LabelUseWaypointNamespace, edge.LabelIngressUseWaypoint}, key) {
			return true
		}
	case "metadata.annotations", "spec.template.metadata.annotations", "spec.infrastructure.annotations":
		if slices.Contains([]string{AnnotationBypassInbound, AnnotationDNSCapture, v1alpha1.AnnotationRollout, v1alpha1.AnnotationFormer}, key) {
			return true
		}
	}
	return switched(edge.Field(path))
}
