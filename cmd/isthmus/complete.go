package main

import (
	"context"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// completionTimeout is how long a shell waits for names: without an answer there are none, and nothing is said.
const completionTimeout = 2 * time.Second

// names lists objects for a shell, and gives those that begin with what was typed; each object has the names of of.
func names(cmd *cobra.Command, k *kubeFlags, typed string, list client.ObjectList, of func() []string, opts ...client.ListOption) ([]cobra.Completion, cobra.ShellCompDirective) {
	const none = cobra.ShellCompDirectiveNoFileComp
	scheme := runtime.NewScheme()
	if v1alpha1.AddToScheme(scheme) != nil || corev1.AddToScheme(scheme) != nil {
		return nil, none
	}
	ctx := cmd.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, completionTimeout)
	defer cancel()
	c, err := k.quickClient(scheme)
	if err != nil || c.List(ctx, list, opts...) != nil {
		return nil, none
	}
	all := slices.DeleteFunc(of(), func(name string) bool { return !strings.HasPrefix(name, typed) })
	slices.Sort(all)
	return slices.Compact(all), none
}

// completeEdge gives AmbientEdges: names in the namespace of -n, else namespace/name of all.
func (k *kubeFlags) completeEdge(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var list v1alpha1.AmbientEdgeList
	return names(cmd, k, typed, &list, func() (all []string) {
		for i := range list.Items {
			name := list.Items[i].Name
			if k.namespace == "" {
				name = list.Items[i].Namespace + "/" + name
			}
			all = append(all, name)
		}
		return all
	}, client.InNamespace(k.namespace))
}

func (k *kubeFlags) completeNamespaces(cmd *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	var list corev1.NamespaceList
	return names(cmd, k, typed, &list, func() (all []string) {
		for i := range list.Items {
			all = append(all, list.Items[i].Name)
		}
		return all
	})
}

// completeNamespacesOf gives the namespaces of the cluster that the flags of cmd name, where it has such flags.
func completeNamespacesOf(cmd *cobra.Command) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		k := &kubeFlags{}
		for name, value := range map[string]*string{"kubeconfig": &k.kubeconfig, "context": &k.context} {
			if f := cmd.Flags().Lookup(name); f != nil {
				*value = f.Value.String()
			}
		}
		return k.completeNamespaces(cmd, args, typed)
	}
}

func (k *kubeFlags) completeContexts(_ *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	all := slices.DeleteFunc(k.contexts(k.loader()), func(name string) bool { return !strings.HasPrefix(name, typed) })
	return all, cobra.ShellCompDirectiveNoFileComp
}

// completeTarget gives the TCP ports of Services, of the cluster that KUBECONFIG leads to.
func completeTarget(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var list corev1.ServiceList
	return names(cmd, &kubeFlags{}, typed, &list, func() (all []string) {
		for i := range list.Items {
			s := &list.Items[i]
			for _, p := range s.Spec.Ports {
				if p.Protocol == "" || p.Protocol == corev1.ProtocolTCP {
					all = append(all, net.JoinHostPort(s.Name+"."+s.Namespace+".svc.cluster.local", strconv.Itoa(int(p.Port))))
				}
			}
		}
		return all
	})
}

// completeFiles lets a shell complete paths for flags of cmd.
func completeFiles(cmd *cobra.Command, flags ...string) {
	for _, name := range flags {
		_ = cmd.RegisterFlagCompletionFunc(name, func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveDefault
		})
	}
}

// completeSources gives gateways and, after sa/, service accounts, each with its namespace.
func (k *kubeFlags) completeSources(cmd *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	list := &metav1.PartialObjectMetadataList{}
	gvk, prefix := schema.GroupVersionKind{Group: "gateway.networking.k8s.io", Version: "v1", Kind: "GatewayList"}, ""
	if strings.HasPrefix(typed, "sa/") {
		gvk, prefix = schema.GroupVersionKind{Version: "v1", Kind: "ServiceAccountList"}, "sa/"
	}
	list.SetGroupVersionKind(gvk)
	return names(cmd, k, typed, list, func() (all []string) {
		for i := range list.Items {
			all = append(all, prefix+list.Items[i].Namespace+"/"+list.Items[i].Name)
		}
		return all
	}, client.InNamespace(k.namespace))
}

// completeServices gives the TCP ports of Services, each with its namespace.
func (k *kubeFlags) completeServices(cmd *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	var list corev1.ServiceList
	return names(cmd, k, typed, &list, func() (all []string) {
		for i := range list.Items {
			s := &list.Items[i]
			for _, p := range s.Spec.Ports {
				if p.Protocol == "" || p.Protocol == corev1.ProtocolTCP {
					all = append(all, s.Namespace+"/"+s.Name+":"+strconv.Itoa(int(p.Port)))
				}
			}
		}
		return all
	}, client.InNamespace(k.namespace))
}
