package v1alpha1

import (
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

// Owner is how what is written for e is marked: namespace.name.
func (e *AmbientEdge) Owner() string { return e.Namespace + "." + e.Name }

// FieldOwner is the field manager of what is written for e.
func (e *AmbientEdge) FieldOwner() string { return FieldOwnerPrefix + e.Owner() }
