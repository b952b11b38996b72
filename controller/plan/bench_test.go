package plan_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// BenchmarkMake plans for an edge at rest with a hundred Services.
func BenchmarkMake(b *testing.B) {
	text, err := os.ReadFile("testdata/all-done.yaml")
	if err != nil {
		b.Fatal(err)
	}
	objects, _, _ := strings.Cut(string(text), separator)
	s := snapshot(b, objects)
	for i := range 99 {
		service, pod := s.Services[0].DeepCopy(), s.Pods[len(s.Pods)-1]
		service.Name, pod.Name = fmt.Sprintf("orders-%d", i), fmt.Sprintf("orders-%d-1", i)
		pod.Labels = map[string]string{"app": service.Name}
		service.Spec.Selector = pod.Labels
		s.Services, s.Pods = append(s.Services, *service), append(s.Pods, pod)
		s.Edge.Spec.Backends.Services = append(s.Edge.Spec.Backends.Services, v1alpha1.ServiceRef{Namespace: service.Namespace, Name: service.Name})
	}
	for b.Loop() {
		plan.Make(s)
	}
}
