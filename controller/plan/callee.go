package plan

import (
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
)

// CalleesOf are the Services that an object has the API server call: a webhook configuration, or an aggregated API.
func CalleesOf(o *unstructured.Unstructured) []Callee {
	var list []Callee
	for _, path := range [][]string{{"webhooks", "clientConfig", "service"}, {"spec", "service"}} {
		for _, s := range items(o.Object, path) {
			ns, _ := s["namespace"].(string)
			name, _ := s["name"].(string)
			if ns != "" && name != "" {
				list = append(list, Callee{types.NamespacedName{Namespace: ns, Name: name}, object(o.GetKind(), keyOf(o))})
			}
		}
	}
	return list
}
