package check

import (
	"encoding/json"
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Applied is what becomes of an object of a cluster when one of a file is applied to it, as kubectl does: what the file says comes first, what only the
// cluster has stays, and what an application before had said, and the file does not any more, goes. Lists come from the file as they are.
func Applied(live, file *unstructured.Unstructured) *unstructured.Unstructured {
	var before map[string]any
	if text := live.GetAnnotations()[corev1.LastAppliedConfigAnnotation]; text != "" {
		_ = json.Unmarshal([]byte(text), &before) // what nobody can read tells nothing
	}
	out := &unstructured.Unstructured{Object: merged(live.Object, before, file.Object)}
	out.SetAPIVersion(file.GetAPIVersion())
	if status, is := live.Object["status"]; is {
		out.Object["status"] = status
	}
	if a := out.GetAnnotations(); a[corev1.LastAppliedConfigAnnotation] != "" {
		if delete(a, corev1.LastAppliedConfigAnnotation); len(a) == 0 {
			a = nil
		}
		out.SetAnnotations(a)
	}
	return out
}

// merged are the fields of an object. before is what was applied last, or nil.
func merged(live, before, file map[string]any) map[string]any {
	out := maps.Clone(live)
	if out == nil {
		out = map[string]any{}
	}
	for key := range before {
		if _, still := file[key]; !still {
			delete(out, key)
		}
	}
	for key, v := range file {
		is, fields := v.(map[string]any)
		had, both := out[key].(map[string]any)
		if !fields || !both {
			out[key] = v
			continue
		}
		was, _ := before[key].(map[string]any)
		out[key] = merged(had, was, is)
	}
	return out
}
