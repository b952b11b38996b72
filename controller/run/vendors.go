package run

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// listTimeout is how long a cache may take to fill with objects of a kind: without the right to list them it never does, and says nothing.
const listTimeout = 30 * time.Second

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

// otherRoutes are the kinds of routes that are not followed to Services.
func otherRoutes() []edge.Kind {
	const group = "gateway.networking.k8s.io"
	return []edge.Kind{
		{Group: group, Version: "v1", Kind: "GRPCRoute"},
		{Group: group, Version: "v1", Kind: "TLSRoute"},
		{Group: group, Version: "v1alpha2", Kind: "TLSRoute"},
		{Group: group, Version: "v1alpha2", Kind: "TCPRoute"},
		{Group: group, Version: "v1alpha2", Kind: "UDPRoute"},
	}
}

// observe adds to a snapshot what it lacks about vendors: all of it, as there is little, or as nobody knows whom it concerns. Where the edge is being
// deleted it is half: undo asks for nothing but what may have been written.
func (v *vendors) observe(ctx context.Context, r client.Reader, s *plan.Snapshot) error {
	undo := s.Edge.DeletionTimestamp != nil
	for _, k := range callers() {
		if undo {
			break
		}
		list, err := v.list(ctx, r, k)
		if err != nil {
			return err
		}
		for i := range list {
			s.Callees = append(s.Callees, plan.CalleesOf(&list[i])...)
		}
	}
	for _, more := range []struct {
		kinds []edge.Kind
		to    *[]*unstructured.Unstructured
	}{
		{[]edge.Kind{{Group: "networking.istio.io", Version: "v1", Kind: "ServiceEntry"}}, &s.ServiceEntries},
		{otherRoutes(), &s.OtherRoutes},
	} {
		for _, k := range more.kinds {
			list, err := v.list(ctx, r, k)
			if err != nil {
				return err
			}
			for i := range list {
				*more.to = append(*more.to, &list[i])
			}
		}
		slices.SortFunc(*more.to, byKind)
	}
	for _, u := range edge.Uses() {
		if undo && !u.Patch {
			continue
		}
		list, err := v.list(ctx, r, u.Kind)
		if err != nil {
			return err
		}
		for i := range list {
			s.Objects = append(s.Objects, &list[i])
		}
	}
	slices.SortFunc(s.Callees, func(a, b plan.Callee) int {
		return cmp.Or(cmp.Compare(a.Service.String(), b.Service.String()), cmp.Compare(a.By, b.By))
	})
	slices.SortFunc(s.Objects, byKind)
	return nil
}

func byKind(a, b *unstructured.Unstructured) int {
	return cmp.Or(cmp.Compare(a.GetKind(), b.GetKind()), compareObjects(a, b))
}

// list reads the objects of a kind, none where the API server does not know it.
func (v *vendors) list(ctx context.Context, r client.Reader, k edge.Kind) ([]unstructured.Unstructured, error) {
	if v.missing(k) {
		return nil, nil
	}
	list := &unstructured.UnstructuredList{}
	list.SetAPIVersion(k.APIVersion())
	list.SetKind(k.Kind + "List")
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	err := r.List(ctx, list, client.UnsafeDisableDeepCopy) // plans change nothing of what they are made of
	if unknown(err) {
		v.miss(k)
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list objects of kind %s: %w", k.Kind, err)
	}
	return list.Items, nil
}

// watch fills a cache with the kinds that are there, before they are asked for, and does not wait for it.
func (v *vendors) watch(ctx context.Context, c cache.Cache) error {
	kinds := callers()
	for _, u := range edge.Uses() {
		kinds = append(kinds, u.Kind)
	}
	for _, k := range kinds {
		o := &unstructured.Unstructured{}
		o.SetAPIVersion(k.APIVersion())
		o.SetKind(k.Kind)
		if _, err := c.GetInformer(ctx, o, cache.BlockUntilSynced(false)); unknown(err) {
			v.miss(k)
		} else if err != nil {
			return fmt.Errorf("watch objects of kind %s: %w", k.Kind, err)
		}
	}
	return nil
}

// unknown says whether the API server does not know a kind.
func unknown(err error) bool {
	_, is := errors.AsType[*meta.NoKindMatchError](err)
	return is || meta.IsNoMatchError(err)
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
