package node

import (
	"cmp"
	"context"
	"fmt"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// retryToken is how long a failed renewal waits while the old token still serves.
const retryToken = 2 * time.Second

// token is a service account token that is renewed in time.
type token struct {
	value   string
	renewAt time.Time
}

// tokenKey names one token of a pod.
type tokenKey struct {
	audience string // empty: the API server's own
	seconds  int64
}

// tokens holds the tokens of one pod. It is not safe for concurrent use.
type tokens struct {
	client kubernetes.Interface
	rotate time.Duration // age of renewal; not positive: 80 % of the lifetime
	have   map[tokenKey]*token
}

// get returns a token for key that is not due for renewal; when renewal fails an old one that is still good serves on.
func (t *tokens) get(ctx context.Context, pod *corev1.Pod, key tokenKey) (string, error) {
	old := t.have[key]
	now := time.Now()
	if old != nil && now.Before(old.renewAt) {
		return old.value, nil
	}
	req := &authv1.TokenRequest{Spec: authv1.TokenRequestSpec{
		ExpirationSeconds: new(cmp.Or(key.seconds, 3600)),
		BoundObjectRef:    &authv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID},
	}}
	if key.audience != "" {
		req.Spec.Audiences = []string{key.audience}
	}
	account := serviceAccount(pod)
	got, err := t.client.CoreV1().ServiceAccounts(pod.Namespace).CreateToken(ctx, account, req, metav1.CreateOptions{})
	if err != nil {
		if old != nil {
			old.renewAt = now.Add(retryToken)
			return old.value, nil
		}
		return "", fmt.Errorf("request token of service account %s/%s: %w", pod.Namespace, account, err)
	}
	age := t.rotate
	if age <= 0 {
		age = got.Status.ExpirationTimestamp.Sub(now) * 4 / 5
	}
	if t.have == nil {
		t.have = map[tokenKey]*token{}
	}
	t.have[key] = &token{value: got.Status.Token, renewAt: now.Add(age)}
	return got.Status.Token, nil
}

// next is when the first token is due; zero when there is none.
func (t *tokens) next() time.Time {
	var at time.Time
	for _, tok := range t.have {
		if at.IsZero() || tok.renewAt.Before(at) {
			at = tok.renewAt
		}
	}
	return at
}

// serviceAccount is the account that pod runs as.
func serviceAccount(pod *corev1.Pod) string { return cmp.Or(pod.Spec.ServiceAccountName, "default") }
