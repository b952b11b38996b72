package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/homedir"
)

// kubeFlags say which cluster.
type kubeFlags struct {
	kubeconfig, context, namespace string
	timeout                        time.Duration
}

func (k *kubeFlags) register(cmd *cobra.Command) {
	k.registerCluster(cmd)
	cmd.Flags().DurationVar(&k.timeout, "timeout", 30*time.Second, "how long the cluster may take to answer")
}

func (k *kubeFlags) registerCluster(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&k.kubeconfig, "kubeconfig", "", "`FILE` that says how to reach the cluster (default: KUBECONFIG, else ~/.kube/config, else the pod's own account)")
	f.StringVar(&k.context, "context", "", "`NAME` of the context in the kubeconfig (default: the current one)")
	completeFiles(cmd, "kubeconfig")
	_ = cmd.RegisterFlagCompletionFunc("context", k.completeContexts)
}

func (k *kubeFlags) registerNamespace(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&k.namespace, "namespace", "n", "", "`NAMESPACE` to look in (default: that of the context)")
	_ = cmd.RegisterFlagCompletionFunc("namespace", k.completeNamespaces)
}

func (k *kubeFlags) loader() clientcmd.ClientConfig {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = k.kubeconfig
	rules.WarnIfAllMissing = false // that is an error of ours
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: k.context})
}

// config reads the kubeconfig, and says which namespace is meant.
func (k *kubeFlags) config() (*rest.Config, string, error) {
	cc := k.loader()
	cfg, err := cc.ClientConfig()
	if err != nil {
		return nil, "", k.explainConfig(cc, err)
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

// explainConfig says why a kubeconfig leads nowhere.
func (k *kubeFlags) explainConfig(cc clientcmd.ClientConfig, err error) error {
	f := &failure{what: "there is no way to the cluster", where: k.kubeconfig, err: err, next: "name a kubeconfig with --kubeconfig or KUBECONFIG, and a context in it with --context"}
	named := os.Getenv(clientcmd.RecommendedConfigPathEnvVar)
	if k.kubeconfig == "" && named != "" {
		f.where = "KUBECONFIG=" + named
	}
	known := k.contexts(cc)
	switch {
	case k.kubeconfig != "" && errors.Is(err, fs.ErrNotExist):
		f.err, f.next = errors.New("there is no such file"), "correct --kubeconfig, or leave it out to use KUBECONFIG or ~/.kube/config"
	case clientcmd.IsContextNotFound(err), k.context != "" && len(known) > 0 && !slices.Contains(known, k.context):
		if k.context != "" {
			f.err = fmt.Errorf("it has no context %q", k.context)
		}
		if f.next = "name one of its contexts with --context: " + strings.Join(known, ", "); len(known) == 0 {
			f.next = "it has no contexts at all: name another kubeconfig with --kubeconfig or KUBECONFIG"
		}
	case clientcmd.IsEmptyConfig(err) && k.kubeconfig != "":
		f.err = errors.New("it names no cluster")
	case clientcmd.IsEmptyConfig(err) && named != "":
		if f.err = errors.New("it names no cluster"); !anyExists(filepath.SplitList(named)) {
			f.err = errors.New("there is no such file")
		}
		f.next = "correct KUBECONFIG, or unset it to use ~/.kube/config; or name a file with --kubeconfig"
	case clientcmd.IsEmptyConfig(err) && homedir.HomeDir() == "":
		f.err = errors.New("HOME is not set, so that ~/.kube/config cannot be found, and this is no pod")
		f.next = "name a kubeconfig with --kubeconfig or KUBECONFIG, or set HOME"
	case clientcmd.IsEmptyConfig(err):
		f.err = errors.New("no kubeconfig is configured, and this is no pod, or one without a token of its service account mounted")
	case strings.Contains(err.Error(), "error loading config file"):
		f.next = "correct that file, or name another with --kubeconfig or KUBECONFIG"
	}
	return f
}

func anyExists(paths []string) bool {
	return slices.ContainsFunc(paths, func(p string) bool {
		_, err := os.Stat(p)
		return err == nil
	})
}

// contexts are those of the kubeconfig.
func (k *kubeFlags) contexts(cc clientcmd.ClientConfig) []string {
	raw, err := cc.RawConfig()
	if err != nil {
		return nil
	}
	return slices.Sorted(maps.Keys(raw.Contexts))
}
