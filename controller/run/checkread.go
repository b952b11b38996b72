package run

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/check"
)

// CheckWorld is what ReadChecked has read.
type CheckWorld struct {
	*check.World
	// Objects is how many there were.
	Objects int
	// Forbidden are kinds, as resource.group, that may not be read and were done without.
	Forbidden []string
}

// MissingRights are kinds that checks cannot do without, and others too, that may not be read.
type MissingRights struct {
	// Resources are the kinds, as resource.group.
	Resources []string
	// Err is what the API server said of the first.
	Err error
}

// Error names all of them.
func (e *MissingRights) Error() string {
	return fmt.Sprintf("the rights to list %s are missing: %v", strings.Join(e.Resources, ", "), e.Err)
}

// Unwrap gives what the API server said of the first.
func (e *MissingRights) Unwrap() error { return e.Err }

// ReadChecked reads all that checks look at, page by page and several kinds at a time, and keeps no more of it than they need. It needs rights to read
// only. Kinds that the API server does not know have no objects; what may not be read is done without where no check would raise a false alarm, and else
// is an error of type *MissingRights, which names all that is missing. r has no cache.
func ReadChecked(ctx context.Context, r client.Reader, mesh check.Mesh) (*CheckWorld, error) {
	c := &checkReader{ctx: ctx, r: r, keep: newKeeper(), b: check.NewBuilder(mesh, false)}
	reads := append(c.typed(), c.untyped()...)
	if err := each(len(reads), atOnce, func(i int) error { return reads[i]() }); err != nil {
		return nil, err
	}
	slices.Sort(c.forbidden)
	if c.needed != nil {
		return nil, &MissingRights{Resources: slices.Compact(c.forbidden), Err: c.needed}
	}
	return &CheckWorld{World: c.b.World(), Objects: c.objects, Forbidden: slices.Compact(c.forbidden)}, nil
}

// checkReader reads for checks.
type checkReader struct {
	ctx  context.Context
	r    client.Reader
	keep *keeper

	mu        sync.Mutex // guards the fields below; not held across I/O
	b         *check.Builder
	objects   int
	forbidden []string
	needed    error // that of the first kind that cannot be done without
}

// typed reads the kinds that have Go types.
func (c *checkReader) typed() []func() error {
	const gateway, security, networking, discovery = gatewayv1.GroupName, "security.istio.io", "networking.k8s.io", "discovery.k8s.io"
	ours := v1alpha1.GroupVersion().Group
	// Those that services' own controller makes tell nothing that Services and pods do not.
	byHand := client.MatchingLabelsSelector{Selector: handmade()}
	return []func() error{
		// The largest first: they take longest.
		listed(c, "", "Pod", "pods", func(l *corev1.PodList) []corev1.Pod { return l.Items }),
		listed(c, "", "Service", "services", func(l *corev1.ServiceList) []corev1.Service { return l.Items }),
		listed(c, gateway, "HTTPRoute", "httproutes", func(l *gatewayv1.HTTPRouteList) []gatewayv1.HTTPRoute { return l.Items }),
		listed(c, security, "AuthorizationPolicy", "authorizationpolicies", func(l *securityv1.AuthorizationPolicyList) []*securityv1.AuthorizationPolicy {
			return l.Items
		}),
		listed(c, "apps", "Deployment", "deployments", func(l *appsv1.DeploymentList) []appsv1.Deployment { return l.Items }),
		listed(c, networking, "NetworkPolicy", "networkpolicies", func(l *networkingv1.NetworkPolicyList) []networkingv1.NetworkPolicy { return l.Items }),
		listed(c, "", "Namespace", "namespaces", func(l *corev1.NamespaceList) []corev1.Namespace { return l.Items }),
		listed(c, "apps", "DaemonSet", "daemonsets", func(l *appsv1.DaemonSetList) []appsv1.DaemonSet { return l.Items }),
		listed(c, discovery, "EndpointSlice", "endpointslices", func(l *discoveryv1.EndpointSliceList) []discoveryv1.EndpointSlice { return l.Items }, byHand),
		listed(c, networking, "Ingress", "ingresses", func(l *networkingv1.IngressList) []networkingv1.Ingress { return l.Items }),
		listed(c, networking, "IngressClass", "ingressclasses", func(l *networkingv1.IngressClassList) []networkingv1.IngressClass { return l.Items }),
		listed(c, gateway, "Gateway", "gateways", func(l *gatewayv1.GatewayList) []gatewayv1.Gateway { return l.Items }),
		listed(c, gateway, "GatewayClass", "gatewayclasses", func(l *gatewayv1.GatewayClassList) []gatewayv1.GatewayClass { return l.Items }),
		listed(c, gateway, "ReferenceGrant", "referencegrants", func(l *gatewayv1beta1.ReferenceGrantList) []gatewayv1beta1.ReferenceGrant { return l.Items }),
		listed(c, security, "RequestAuthentication", "requestauthentications", func(l *securityv1.RequestAuthenticationList) []*securityv1.RequestAuthentication {
			return l.Items
		}),
		listed(c, security, "PeerAuthentication", "peerauthentications", func(l *securityv1.PeerAuthenticationList) []*securityv1.PeerAuthentication {
			return l.Items
		}),
		listed(c, ours, "AmbientEdge", "ambientedges", func(l *v1alpha1.AmbientEdgeList) []v1alpha1.AmbientEdge { return l.Items }),
		c.accounts,
		c.settings,
	}
}

// spared are the kinds without which no check raises a false alarm: of gateways that obey one that may not be read nothing is sure.
func spared(gk schema.GroupKind) bool {
	return slices.Contains([]string{"NetworkPolicy", "EndpointSlice", "ServiceAccount", "AmbientEdge"}, gk.Kind) ||
		slices.ContainsFunc(checkFamilies()[len(families()):], func(f family) bool { return groupKind(f[0]) == gk })
}

// itemOf is an item of a list as an object: lists are of objects, or of pointers to them.
func itemOf[T any](o *T) metav1.Object {
	if m, is := any(o).(metav1.Object); is {
		return m
	}
	m, _ := any(*o).(metav1.Object)
	return m
}

// listed reads all objects of a kind.
func listed[T, L any, P interface {
	*L
	client.ObjectList
}](c *checkReader, group, kind, resource string, items func(P) []T, opts ...client.ListOption) func() error {
	gk := schema.GroupKind{Group: group, Kind: kind}
	return func() error {
		return c.pages(gk, resource, func() client.ObjectList { return P(new(L)) }, func(list client.ObjectList) {
			page, _ := list.(P)
			all := items(page)
			for i := range all {
				o := itemOf(&all[i])
				c.keep.strip(o)
				c.b.AddTyped(o, "")
			}
			c.objects += len(all)
		}, opts...)
	}
}

// accounts reads service accounts: their names.
func (c *checkReader) accounts() error {
	gvk := corev1.SchemeGroupVersion.WithKind("ServiceAccountList")
	return c.pages(schema.GroupKind{Kind: "ServiceAccount"}, "serviceaccounts", func() client.ObjectList {
		list := &metav1.PartialObjectMetadataList{}
		list.SetGroupVersionKind(gvk)
		return list
	}, func(list client.ObjectList) {
		page, _ := list.(*metav1.PartialObjectMetadataList)
		for i := range page.Items {
			o := &page.Items[i]
			c.b.AddTyped(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{
				Namespace: c.keep.text(o.Namespace), Name: o.Name, Annotations: c.keep.annotations(o.Annotations, ours),
			}}, "")
		}
		c.objects += len(page.Items)
	})
}

// settings reads the ConfigMaps that checks look at, by name. One that is not there, or may not be read, is done without.
func (c *checkReader) settings() error {
	for _, key := range check.ConfigMaps() {
		var o corev1.ConfigMap
		err := c.r.Get(c.ctx, key, &o)
		if apierrors.IsForbidden(err) {
			c.forbid(schema.GroupKind{}, "configmaps/"+key.Name, false, err)
		}
		if apierrors.IsForbidden(err) || unknown(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read ConfigMap %s: %w", key, err)
		}
		data := map[string]any{}
		for name, v := range o.Data {
			data[name] = v
		}
		u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "data": data}}
		u.SetNamespace(key.Namespace)
		u.SetName(key.Name)
		u.SetAnnotations(c.keep.annotations(o.Annotations, ours))
		c.mu.Lock()
		c.b.Add(u, "") // of kinds without types it takes all
		c.objects++
		c.mu.Unlock()
	}
	return nil
}

// untyped reads the kinds of checkFamilies.
func (c *checkReader) untyped() (reads []func() error) {
	for _, f := range checkFamilies() {
		reads = append(reads, func() error {
			for _, k := range f { // the first version that the API server has
				there := true
				err := c.pages(groupKind(k), k.Resource, func() client.ObjectList {
					list := &unstructured.UnstructuredList{}
					list.SetAPIVersion(k.APIVersion())
					list.SetKind(k.Kind + "List")
					return list
				}, func(list client.ObjectList) {
					page, _ := list.(*unstructured.UnstructuredList)
					for i := range page.Items {
						c.keep.stripAny(&page.Items[i])
						c.b.Add(&page.Items[i], "") // of kinds without types it takes all
					}
					c.objects += len(page.Items)
				})
				if unknown(err) {
					there, err = false, nil
				}
				if there || err != nil {
					return err
				}
			}
			return nil
		})
	}
	return reads
}

// pages lists all objects of a kind, and hands over page after page under the lock. A kind of checks' types that the API server does not know has none.
func (c *checkReader) pages(
	gk schema.GroupKind, resource string, list func() client.ObjectList, add func(client.ObjectList), opts ...client.ListOption,
) error {
	opts = append(opts, client.Limit(pageSize))
	for token, first := "", true; ; first = false {
		page := list()
		err := c.r.List(c.ctx, page, append(slices.Clone(opts), client.Continue(token))...)
		switch {
		case apierrors.IsResourceExpired(err) && token != "":
			// It took longer than the API server keeps what it was: it goes on from there with what is now.
			if token = expired(err); token == "" {
				return fmt.Errorf("list %s: %w", resource, err)
			}
			continue
		case apierrors.IsForbidden(err):
			c.forbid(gk, resource, !spared(gk), err)
			return nil
		case unknown(err):
			if _, untyped := page.(*unstructured.UnstructuredList); untyped {
				return err // there may be another version
			}
			return nil
		case err != nil:
			return fmt.Errorf("list %s: %w", resource, err)
		}
		c.mu.Lock()
		if first {
			c.b.Asked(gk)
		}
		if more := page.GetRemainingItemCount(); first && more != nil {
			c.b.Expect(gk, pageSize+int(*more))
		}
		add(page)
		c.mu.Unlock()
		if token = page.GetContinue(); token == "" {
			return nil
		}
	}
}

func (c *checkReader) forbid(gk schema.GroupKind, resource string, needed bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if gk.Group != "" {
		resource += "." + gk.Group
	}
	c.forbidden = append(c.forbidden, resource)
	c.b.Hidden(gk)
	if needed && c.needed == nil {
		c.needed = err
	}
}

// expired is the token by which a list goes on that took too long, or "".
func expired(err error) string {
	if s, is := err.(apierrors.APIStatus); is { // a client returns it as it is
		return s.Status().Continue
	}
	return ""
}
