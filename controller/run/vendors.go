package run

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// absentFor is how long a kind counts as missing that the API server did not know: its CRD may come.
const absentFor = 30 * time.Second

// vendors reads what plans need to know of gateways' vendors. The zero value knows of no missing kind.
type vendors struct {
	mu     sync.Mutex // guards the field below; not held across I/O
	absent map[edge.Kind]time.Time
}

// callers are the kinds of objects that have the API server call Services.
func callers() []edge.Kind {
	return []edge.Kind{
		{Group: "admissionregistration.k8s.io", Version: "v1", Kind: "ValidatingWebhookConfiguration"},
		{Group: "admissionregistration.k8s.io", Version: "v1", Kind: "MutatingWebhookConfiguration"},
		{Group: "apiregistration.k8s.io", Version: "v1", Kind: "APIService"},
	}
}

// observe adds to a snapshot what it lacks about vendors. It blocks for a dozen requests where r has no cache.
func (v *vendors) observe(ctx context.Context, r client.Reader, s *plan.Snapshot) error {
	var (
		strict    securityv1.PeerAuthenticationList
		ingresses networkingv1.IngressList
		classes   networkingv1.IngressClassList
	)
	for _, l := range []struct {
		what string
		list client.ObjectList
	}{
		{"PeerAuthentications", &strict},
		{"Ingresses", &ingresses},
		{"IngressClasses", &classes},
	} {
		if err := r.List(ctx, l.list); err != nil {
			return fmt.Errorf("list %s: %w", l.what, err)
		}
	}
	s.Strictness, s.Ingresses, s.IngressClasses = strict.Items, ingresses.Items, classes.Items
	for _, k := range callers() {
		list, err := v.list(ctx, r, k)
		if err != nil {
			return err
		}
		for i := range list {
			s.Callees = append(s.Callees, plan.CalleesOf(&list[i])...)
		}
	}
	for _, u := range edge.Uses() {
		list, err := v.list(ctx, r, u.Kind)
		if err != nil {
			return err
		}
		for i := range list {
			s.Objects = append(s.Objects, &list[i])
		}
	}
	return nil
}

// list reads the objects of a kind, none where the API server does not know it.
func (v *vendors) list(ctx context.Context, r client.Reader, k edge.Kind) ([]unstructured.Unstructured, error) {
	if v.missing(k) {
		return nil, nil
	}
	list := &unstructured.UnstructuredList{}
	list.SetAPIVersion(k.APIVersion())
	list.SetKind(k.Kind + "List")
	err := r.List(ctx, list)
	if _, unknown := errors.AsType[*meta.NoKindMatchError](err); unknown || meta.IsNoMatchError(err) {
		v.miss(k)
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list objects of kind %s: %w", k.Kind, err)
	}
	return list.Items, nil
}

func (v *vendors) missing(k edge.Kind) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return time.Now().Before(v.absent[k])
}

func (v *vendors) miss(k edge.Kind) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.absent == nil {
		v.absent = map[edge.Kind]time.Time{}
	}
	v.absent[k] = time.Now().Add(absentFor)
}
