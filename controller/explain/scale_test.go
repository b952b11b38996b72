package explain

import (
	"fmt"
	"testing"

	securityapi "istio.io/api/security/v1beta1"
	typev1beta1 "istio.io/api/type/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/controller/check"
)

// large is a cluster with n namespaces of 20 Services, 40 pods and 6 policies each.
func large(n int) *check.World {
	b := check.NewBuilder(check.Mesh{Known: true}, false)
	for i := range n {
		ns := fmt.Sprintf("team-%04d", i)
		b.AddTyped(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, "")
		for j := range 20 {
			app := map[string]string{"app": fmt.Sprintf("app-%02d", j)}
			b.AddTyped(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: app["app"]}, Spec: corev1.ServiceSpec{
				Selector: app, ClusterIP: "10.96.0.7", Ports: []corev1.ServicePort{{Port: 80, Name: "http"}},
			}}, "")
			for k := range 2 {
				b.AddTyped(&corev1.Pod{
					ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: fmt.Sprintf("%s-%d", app["app"], k), Labels: app, Annotations: map[string]string{"ambient.istio.io/redirection": "enabled"}},
					Spec:       corev1.PodSpec{ServiceAccountName: app["app"]},
				}, "")
			}
		}
		for j := range 6 {
			p := &securityv1.AuthorizationPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: fmt.Sprintf("p-%d", j)}}
			p.Spec.Selector = &typev1beta1.WorkloadSelector{MatchLabels: map[string]string{"app": fmt.Sprintf("app-%02d", j)}}
			p.Spec.Rules = []*securityapi.Rule{{From: []*securityapi.Rule_From{{Source: &securityapi.Source{Namespaces: []string{ns}}}}}}
			b.AddTyped(p, "")
		}
	}
	return b.World()
}

// BenchmarkMatrix asks of every Service of a cluster of 500 namespaces, 10,000 Services and 20,000 pods, for one account.
func BenchmarkMatrix(b *testing.B) {
	w := large(500)
	scope := Scope{From: []Source{{Kind: "ServiceAccount", Key: keyOf(named2("team-0001", "app-01"))}}, AllServices: true}
	for b.Loop() {
		m, err := New(w).Matrix(scope)
		if err != nil || len(m.Cells) != 10_000 {
			b.Fatalf("%d cells, %v", len(m.Cells), err)
		}
	}
}

// TestALargeMatrixIsNotQuadratic: four times the cluster takes no more than about four times the allocations.
func TestALargeMatrixIsNotQuadratic(t *testing.T) {
	allocated := func(n int) float64 {
		w := large(n)
		scope := Scope{From: []Source{{Kind: "ServiceAccount", Key: keyOf(named2("team-0001", "app-01"))}}, AllServices: true}
		return testing.AllocsPerRun(1, func() {
			if _, err := New(w).Matrix(scope); err != nil {
				t.Fatal(err)
			}
		})
	}
	small, big := allocated(10), allocated(40)
	if big > 6*small {
		t.Errorf("%.0f allocations for 10 namespaces, %.0f for 40", small, big)
	}
}
