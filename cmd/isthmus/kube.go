package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	crlog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// client reads and writes the cluster directly. It also says which namespace is meant.
func (k *kubeFlags) client(scheme *runtime.Scheme) (client.Client, string, error) {
	cfg, ns, err := k.config()
	if err != nil {
		return nil, "", err
	}
	crlog.SetLogger(logr.Discard()) // what matters is in the errors
	c, err := client.New(cfg, client.Options{Scheme: scheme})
	if err != nil {
		return nil, "", explainKube("cannot read the cluster", cfg.Host, err)
	}
	return c, ns, nil
}

// quickClient is client for a shell that waits for names.
func (k *kubeFlags) quickClient(scheme *runtime.Scheme) (client.Client, error) {
	cfg, _, err := k.config()
	if err != nil {
		return nil, err
	}
	cfg.Timeout = completionTimeout
	crlog.SetLogger(logr.Discard())
	return client.New(cfg, client.Options{Scheme: scheme})
}

// checkEdge refuses an argument that is neither NAMESPACE/NAME nor NAME, or that names another namespace than -n.
func (k *kubeFlags) checkEdge(command, arg string) error {
	return k.checkName(command, arg, "an AmbientEdge")
}

// checkName is checkEdge, for something else.
func (k *kubeFlags) checkName(command, arg, what string) error {
	ns, name, both := strings.Cut(arg, "/")
	switch {
	case !both && arg != "":
		return nil
	case ns == "" || name == "" || strings.Contains(name, "/"):
		return usagef(command, "%q is not NAMESPACE/NAME of %s", arg, what)
	case k.namespace != "" && k.namespace != ns:
		return usagef(command, "%s is in namespace %s, and -n says %s: leave one of them out", arg, ns, k.namespace)
	}
	return nil
}

// edgeKey reads an argument that checkEdge has let through: NAMESPACE/NAME, or NAME in namespace.
func edgeKey(arg, namespace string) types.NamespacedName {
	if ns, name, both := strings.Cut(arg, "/"); both {
		return types.NamespacedName{Namespace: ns, Name: name}
	}
	return types.NamespacedName{Namespace: namespace, Name: arg}
}

// getEdge reads an AmbientEdge; its errors are failures.
func getEdge(ctx context.Context, c client.Reader, key types.NamespacedName, e *v1alpha1.AmbientEdge) error {
	err := c.Get(ctx, key, e)
	if apierrors.IsNotFound(err) {
		if missing := missingNamespace(ctx, c, key.Namespace); missing != nil {
			return missing
		}
	}
	if err != nil {
		return explainKube("cannot read AmbientEdge "+key.String(), "", err)
	}
	return nil
}

// missingNamespace says that a namespace is not there, where that can be found out: who may not look gets nil.
func missingNamespace(ctx context.Context, c client.Reader, name string) error {
	ns := &metav1.PartialObjectMetadata{}
	ns.SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: "Namespace"})
	if err := c.Get(ctx, types.NamespacedName{Name: name}, ns); !apierrors.IsNotFound(err) {
		return nil
	}
	return &failure{what: "there is no namespace " + name, next: nextNamespace, gone: true}
}

const nextNamespace = "name one that is there, with -n: kubectl get namespaces; or create it"

// explainKube says what an error of the API server means.
func explainKube(what, where string, err error) error {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	f := &failure{what: what, where: where, err: err, gone: apierrors.IsNotFound(err)}
	switch {
	case meta.IsNoMatchError(err), runtime.IsNotRegisteredError(err):
		f.err = fmt.Errorf("the API server does not know a kind that is needed: %w", err)
		f.next = "install the CRDs that are missing: those of Isthmus are in manifests/crd, the Gateway API's and Istio's come with them"
	case apierrors.IsNotFound(err) && kindOf(err) == "namespaces":
		f.next = nextNamespace
	case apierrors.IsNotFound(err):
		f.next = "check namespace and name: kubectl get ambientedges -A"
	case apierrors.IsForbidden(err):
		f.next = "this needs the rights of the ClusterRole isthmus-view: kubectl create clusterrolebinding NAME --clusterrole isthmus-view --user USER"
	case apierrors.IsUnauthorized(err):
		f.next = "log in again: the cluster does not know who you are"
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		f.next = "correct the fields named above; kubectl explain ambientedge.spec says what they take"
	case errors.Is(err, context.DeadlineExceeded), apierrors.IsTimeout(err):
		f.next = "check that the API server answers: kubectl version; --timeout gives it longer"
	case errors.Is(err, context.Canceled):
	default:
		f.next = "check that the API server can be reached: kubectl version"
	}
	return f
}

// kindOf is the kind of object that an error of the API server is about, or "".
func kindOf(err error) string {
	if s, ok := errors.AsType[*apierrors.StatusError](err); ok && s.ErrStatus.Details != nil {
		return s.ErrStatus.Details.Kind
	}
	return ""
}

// ago is how long ago t was, for people: "5s", "12m", "3h", "8d".
func ago(t, now time.Time) string {
	switch d := now.Sub(t); {
	case t.IsZero():
		return "-"
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(0, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}
