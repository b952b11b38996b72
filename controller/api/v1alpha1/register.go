package v1alpha1

import (
	"crypto/sha256"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is isthmus.dev/v1alpha1.
func GroupVersion() schema.GroupVersion {
	return schema.GroupVersion{Group: "isthmus.dev", Version: "v1alpha1"}
}

// AddToScheme registers the types of this package.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion(), &AmbientEdge{}, &AmbientEdgeList{})
	metav1.AddToGroupVersion(s, GroupVersion())
	return nil
}

// Owner is how what is written for e is marked: namespace.name, as a value of a label. One that is too long for that is cut, and ends in a hash of
// the whole.
func (e *AmbientEdge) Owner() string { return fit(e.Namespace+"."+e.Name, 63) }

// FieldOwner is the field manager of what is written for e: namespace.name, cut as that of Owner where it is too long for a field manager.
func (e *AmbientEdge) FieldOwner() string {
	return FieldOwnerPrefix + fit(e.Namespace+"."+e.Name, 128-len(FieldOwnerPrefix))
}

// Owns says whether a field manager is that of the AmbientEdge whose Owner is owner. Of one whose name is cut in a field manager too it says no.
func Owns(manager, owner string) bool {
	name, is := strings.CutPrefix(manager, FieldOwnerPrefix)
	return is && owner != "" && fit(name, 63) == owner
}

// UndoConfirmation is the value of AnnotationUndo that confirms the undo of e. It is of no use to another AmbientEdge, of the same name too: what is
// made from a manifest that was confirmed once is not confirmed for good.
func (e *AmbientEdge) UndoConfirmation() string { return "confirmed-" + string(e.UID) }

// fit cuts a name to at most so many bytes.
func fit(name string, most int) string {
	if len(name) <= most {
		return name
	}
	hash := fmt.Sprintf("-%x", sha256.Sum256([]byte(name)))[:17]
	return strings.TrimRight(name[:most-len(hash)], ".-") + hash
}
