package run

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// settled is how long after the first refusal rights are asked for: an API server that starts refuses everybody until it has read its roles.
const settled = 3 * time.Second

// Denied is told what the API server does not let a cache read. Configure makes it.
type Denied struct {
	namespaces []string      // those of AmbientEdges; none: all
	typed      chan struct{} // has room for one: a kind that no plan can do without may not be read
	over       chan struct{} // closed when nobody is to wait for caches any more
	release    func()        // closes it

	mu   sync.Mutex // guards the fields below; not held while told is called
	told func(schema.GroupResource)
	seen map[schema.GroupResource]bool // refused, and no plan can do without
}

func newDenied(namespaces ...string) *Denied {
	d := &Denied{namespaces: namespaces, typed: make(chan struct{}, 1), over: make(chan struct{})}
	d.release = sync.OnceFunc(func() { close(d.over) })
	return d
}

// handle is told by a cache whenever a list or a watch fails, and logs it, but where the feed does.
func (d *Denied) handle(ctx context.Context, r *toolscache.Reflector, err error) {
	if !d.refused(err) {
		toolscache.DefaultWatchErrorHandler(ctx, r, err)
	}
}

// refused takes an error of a list or a watch, and says whether it is one that a plan can be made with.
func (d *Denied) refused(err error) bool {
	s, is := errors.AsType[*apierrors.StatusError](err)
	if !is || !apierrors.IsForbidden(err) || s.ErrStatus.Details == nil {
		return false
	}
	gr := schema.GroupResource{Group: s.ErrStatus.Details.Group, Resource: s.ErrStatus.Details.Kind}
	d.mu.Lock()
	told := d.told
	d.mu.Unlock()
	if told != nil {
		told(gr)
	}
	if !needed(gr) {
		return told != nil
	}
	d.mu.Lock()
	if d.seen == nil {
		d.seen = map[schema.GroupResource]bool{}
	}
	d.seen[gr] = true
	d.mu.Unlock()
	select {
	case d.typed <- struct{}{}:
	default: // it is being looked at
	}
	return false
}

// tell has every refusal from now on told to f, which may not block.
func (d *Denied) tell(f func(schema.GroupResource)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.told = f
}

// needed says whether no plan can do without a kind.
func needed(gr schema.GroupResource) bool {
	return slices.ContainsFunc(neededResources(), func(r schema.GroupResource) bool { return r == gr })
}

// neededResources are the resources of kinds, and AmbientEdges.
func neededResources() []schema.GroupResource {
	var list []schema.GroupResource
	for _, r := range planRules() {
		for _, name := range r.Resources {
			gr := schema.GroupResource{Group: r.APIGroups[0], Resource: name}
			if len(r.ResourceNames) == 0 && !slices.ContainsFunc(families(), func(f family) bool { return f[0].Group == gr.Group && f[0].Resource == name }) {
				list = append(list, gr)
			}
		}
	}
	return list
}

// MissingReadsError is what the controller may not read, and no plan can do without.
type MissingReadsError struct {
	// Rights are all that are missing, as verb and resource.group: "list gateways.gateway.networking.k8s.io".
	Rights []string
	// Account is the user name by which the API server knows the controller. Empty: it did not say.
	Account string
}

// Error names all of them.
func (e *MissingReadsError) Error() string {
	who := "the controller"
	if e.Account != "" {
		who = e.Account
	}
	return fmt.Sprintf("%s may not %s", who, strings.Join(e.Rights, ", "))
}

// Guard waits until a kind that no plan can do without may not be read, and ends ctx by end with a *MissingReadsError then. It asks the API server, with c,
// which rights are missing, and goes on waiting where none is. It returns when ctx ends. From then on caches keep nobody waiting to be filled: a manager that
// is stopped while its cache fills would never end.
func (d *Denied) Guard(ctx context.Context, c client.Client, end context.CancelCauseFunc) {
	defer d.release()
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.typed:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(settled):
		}
		if missing := d.missing(ctx, c); len(missing) > 0 {
			end(&MissingReadsError{Rights: missing, Account: account(ctx, c)})
		}
	}
}

// missing are the rights to list and to watch what no plan can do without, as far as the API server says that they are missing. Where it does not say, they
// are those that it has refused.
func (d *Denied) missing(ctx context.Context, c client.Client) []string {
	var asked []authorizationv1.ResourceAttributes
	for _, gr := range neededResources() {
		in := []string{""}
		if gr.Group == v1alpha1.GroupVersion().Group && len(d.namespaces) > 0 {
			in = d.namespaces
		}
		for _, ns := range in {
			for _, verb := range []string{"list", "watch"} {
				asked = append(asked, authorizationv1.ResourceAttributes{Verb: verb, Group: gr.Group, Version: "*", Resource: gr.Resource, Namespace: ns})
			}
		}
	}
	missing := make([]bool, len(asked))
	_ = each(len(asked), atOnce, func(i int) error {
		review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &asked[i]}}
		if err := c.Create(ctx, review); err != nil {
			missing[i] = d.saw(schema.GroupResource{Group: asked[i].Group, Resource: asked[i].Resource})
			return nil //nolint:nilerr // it is not known, and what was refused is
		}
		missing[i] = !review.Status.Allowed
		return nil
	})
	var list []string
	for i, a := range asked {
		if !missing[i] {
			continue
		}
		right := a.Verb + " " + (schema.GroupResource{Group: a.Group, Resource: a.Resource}).String()
		if a.Namespace != "" {
			right += " in namespace " + a.Namespace
		}
		list = append(list, right)
	}
	return list
}

func (d *Denied) saw(gr schema.GroupResource) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.seen[gr]
}

// account is the user name of whoever asks, or "".
func account(ctx context.Context, c client.Client) string {
	review := &authenticationv1.SelfSubjectReview{}
	if c.Create(ctx, review) != nil {
		return ""
	}
	return review.Status.UserInfo.Username
}
