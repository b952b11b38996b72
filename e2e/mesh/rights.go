package mesh

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
)

// rightsWithin is how long the API server may take to hear of a right.
const rightsWithin = 60 * time.Second

// WaitGranted waits until the API server knows that a user has rights in a namespace; the empty one is all. It hears of roles and bindings a moment after it
// has stored them: on a busy machine whoever uses a right at once is refused.
func (m *Mesh) WaitGranted(ctx context.Context, namespace, user string, rules ...rbacv1.PolicyRule) error {
	ctx, cancel := context.WithTimeout(ctx, rightsWithin)
	defer cancel()
	for _, rule := range rules {
		for _, right := range rights(namespace, rule) {
			if err := m.waitRight(ctx, user, right); err != nil {
				return fmt.Errorf("wait for %s's right to %s %s.%s %s: %w", user, right.Verb, right.Resource, right.Group, right.Name, err)
			}
		}
	}
	return nil
}

// rights are the single ones of a rule about resources.
func rights(namespace string, rule rbacv1.PolicyRule) (list []authorizationv1.ResourceAttributes) {
	names := rule.ResourceNames
	if len(names) == 0 {
		names = []string{""}
	}
	for _, group := range rule.APIGroups {
		for _, resource := range rule.Resources {
			resource, sub, _ := strings.Cut(resource, "/")
			for _, name := range names {
				for _, verb := range rule.Verbs {
					list = append(list, authorizationv1.ResourceAttributes{Namespace: namespace, Verb: verb, Group: group, Resource: resource, Subresource: sub, Name: name})
				}
			}
		}
	}
	return list
}

func (m *Mesh) waitRight(ctx context.Context, user string, right authorizationv1.ResourceAttributes) error {
	var last error
	for {
		r := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User: user, Groups: []string{"system:authenticated"}, ResourceAttributes: &right,
		}}
		err := m.Client().Create(ctx, r)
		if err == nil && r.Status.Allowed {
			return nil
		}
		if ctx.Err() != nil {
			return cmp.Or(last, ctx.Err())
		}
		if last = err; err == nil {
			last = errors.New("the API server says that he has it not; " + r.Status.Reason)
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}
