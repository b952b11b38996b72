package mesh_test

import (
	"context"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/e2e/mesh"
)

// rightsAreWaitedFor: what is waited for works at once, for a client of ann's, and what nobody gave her is told.
func rightsAreWaitedFor(t *testing.T, m *mesh.Mesh, ann client.Client) {
	t.Helper()
	if err := m.Apply(t.Context(), `
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: ann, namespace: default}
rules: [{apiGroups: [""], resources: [secrets], verbs: [list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: ann, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: ann}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: ann}]
`); err != nil {
		t.Fatal(err)
	}
	lists := rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"list"}}
	if err := m.WaitGranted(t.Context(), "default", "ann", lists); err != nil {
		t.Fatal(err)
	}
	if err := ann.List(t.Context(), &corev1.SecretList{}, client.InNamespace("default")); err != nil {
		t.Errorf("a right that was waited for: %v", err)
	}
	for what, right := range map[string]struct {
		namespace string
		rule      rbacv1.PolicyRule
	}{
		"another verb":      {"default", rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"list", "delete"}}},
		"a part of it":      {"default", rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"secrets/status"}, Verbs: []string{"list"}}},
		"another namespace": {"kube-system", lists},
		"all namespaces":    {"", lists},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		err := m.WaitGranted(ctx, right.namespace, "ann", right.rule)
		cancel()
		if err == nil || !strings.Contains(err.Error(), "ann's right to") {
			t.Errorf("%s: got %v", what, err)
		}
	}
}
