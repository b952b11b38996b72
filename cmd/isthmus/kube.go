package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/pflag"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	crlog "sigs.k8s.io/controller-runtime/pkg/log"
)

// kubeFlags say which cluster.
type kubeFlags struct {
	kubeconfig, context, namespace string
	timeout                        time.Duration
}

func (k *kubeFlags) register(f *pflag.FlagSet) {
	k.registerCluster(f)
	f.DurationVar(&k.timeout, "timeout", 30*time.Second, "how long the cluster may take to answer")
}

func (k *kubeFlags) registerCluster(f *pflag.FlagSet) {
	f.StringVar(&k.kubeconfig, "kubeconfig", "", "`FILE` that says how to reach the cluster (default: KUBECONFIG, else ~/.kube/config, else the pod's own account)")
	f.StringVar(&k.context, "context", "", "`NAME` of the context in the kubeconfig (default: the current one)")
}

func (k *kubeFlags) registerNamespace(f *pflag.FlagSet) {
	f.StringVarP(&k.namespace, "namespace", "n", "", "`NAMESPACE` to look in (default: that of the context)")
}

// config reads the kubeconfig, and says which namespace is meant.
func (k *kubeFlags) config() (*rest.Config, string, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = k.kubeconfig
	cc := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: k.context})
	cfg, err := cc.ClientConfig()
	if err != nil {
		f := &failure{what: "there is no way to the cluster", where: k.kubeconfig, err: err, next: "name a kubeconfig with --kubeconfig or KUBECONFIG, and a context in it with --context"}
		if clientcmd.IsEmptyConfig(err) {
			f.err = errors.New("no kubeconfig is configured, and this is no pod")
		}
		return nil, "", f
	}
	ns := k.namespace
	if ns == "" {
		if ns, _, err = cc.Namespace(); err != nil {
			return nil, "", &failure{what: "the kubeconfig does not say which namespace", err: err, next: "name one with -n"}
		}
	}
	cfg.UserAgent = "isthmus/" + buildVersion().Version
	cfg.WarningHandler = rest.NoWarnings{}
	return cfg, ns, nil
}

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

// edgeKey reads NAMESPACE/NAME, or NAME in namespace.
func edgeKey(command, arg, namespace string) (types.NamespacedName, error) {
	ns, name, both := strings.Cut(arg, "/")
	if !both {
		ns, name = namespace, arg
	}
	if ns == "" || name == "" || strings.Contains(name, "/") {
		return types.NamespacedName{}, usagef(command, "%q is not NAMESPACE/NAME of an AmbientEdge", arg)
	}
	return types.NamespacedName{Namespace: ns, Name: name}, nil
}

// explainKube says what an error of the API server means.
func explainKube(what, where string, err error) error {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	f := &failure{what: what, where: where, err: err}
	switch {
	case meta.IsNoMatchError(err), runtime.IsNotRegisteredError(err):
		f.err = fmt.Errorf("the API server does not know a kind that is needed: %w", err)
		f.next = "install the CRDs that are missing: those of Isthmus are in manifests/crd, the Gateway API's and Istio's come with them"
	case apierrors.IsNotFound(err):
		f.next = "check namespace and name: kubectl get ambientedges -A"
	case apierrors.IsForbidden(err):
		f.next = "this needs the rights of the ClusterRole isthmus-observe: kubectl create clusterrolebinding NAME --clusterrole isthmus-observe --user USER"
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
