package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// heldFields are the fields that a field manager has applied, as far as isthmus apply writes any.
type heldFields struct {
	Metadata struct {
		Labels      map[string]json.RawMessage `json:"f:labels"`
		Annotations map[string]json.RawMessage `json:"f:annotations"`
	} `json:"f:metadata"`
	Spec json.RawMessage `json:"f:spec"`
}

// appliedFields are the fields that isthmus apply has applied before, so that it has to again: what it leaves out goes.
func appliedFields(e *v1alpha1.AmbientEdge) (list []heldFields, err error) {
	for _, m := range e.ManagedFields {
		if m.Manager != v1alpha1.CommandOwner || m.Operation != metav1.ManagedFieldsOperationApply || m.Subresource != "" || m.FieldsV1 == nil {
			continue
		}
		var f heldFields
		if err := json.Unmarshal(m.FieldsV1.GetRawBytes(), &f); err != nil {
			return nil, fmt.Errorf("read metadata.managedFields of AmbientEdge %s/%s, manager %s: %w", e.Namespace, e.Name, m.Manager, err)
		}
		list = append(list, f)
	}
	return list, nil
}

// heldMetadata are the labels and annotations that isthmus apply has applied before, as they are now, but for the approval.
func heldMetadata(e *v1alpha1.AmbientEdge) (labels, annotations map[string]string, err error) {
	labels, annotations = map[string]string{}, map[string]string{}
	list, err := appliedFields(e)
	for _, f := range list {
		copyHeld(labels, e.Labels, f.Metadata.Labels)
		copyHeld(annotations, e.Annotations, f.Metadata.Annotations)
	}
	delete(annotations, v1alpha1.AnnotationPlan)
	return labels, annotations, err
}

// copyHeld copies what is there of what is held.
func copyHeld(to, there map[string]string, fields map[string]json.RawMessage) {
	for field := range fields {
		if key, is := strings.CutPrefix(field, "f:"); is {
			if v, is := there[key]; is {
				to[key] = v
			}
		}
	}
}

// holdsSpec says whether isthmus apply has applied an AmbientEdge's spec before.
func holdsSpec(e *v1alpha1.AmbientEdge) (bool, error) {
	list, err := appliedFields(e)
	return slices.ContainsFunc(list, func(f heldFields) bool { return f.Spec != nil }), err
}
