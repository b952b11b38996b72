package state

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
)

// Objects is every object of a cluster by "resource namespace/name", without what no user sets: managedFields,
// resourceVersion, generation, status.
type Objects map[string]string

// left are kinds that are no part of Objects, and why.
var left = map[string]string{
	"events":            "tell of the past, and stay",
	"leases":            "are renewed all the time by who holds them",
	"componentstatuses": "are made up for each answer: nobody stores them",
}

// moving are annotations with which controllers note when they last looked, by resource; they change though nothing else does.
var moving = map[string]string{
	"configmaps":     "control-plane.alpha.kubernetes.io/leader",         // istiod's leases
	"endpoints":      "endpoints.kubernetes.io/last-change-trigger-time", // of the pod that changed last
	"endpointslices": "endpoints.kubernetes.io/last-change-trigger-time",
}

// Read lists every listable object.
func Read(ctx context.Context, cfg *rest.Config) (Objects, error) {
	disco, err := discovery.NewDiscoveryClientForConfig(cfg)
	if err != nil {
		return nil, err
	}
	lists, err := disco.ServerPreferredResources()
	if err != nil {
		return nil, fmt.Errorf("discover resources: %w", err)
	}
	client, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return nil, err
	}
	objects := Objects{}
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			return nil, err
		}
		for _, r := range list.APIResources {
			if !slices.Contains(r.Verbs, "list") || left[r.Name] != "" {
				continue
			}
			if err := objects.read(ctx, client, gv.WithResource(r.Name)); err != nil {
				return nil, err
			}
		}
	}
	return objects, nil
}

func (s Objects) read(ctx context.Context, client dynamic.Interface, gvr schema.GroupVersionResource) error {
	list, err := client.Resource(gvr).List(ctx, metav1.ListOptions{})
	switch {
	case apierrors.IsMethodNotSupported(err) || apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("list %s: %w", gvr.Resource, err)
	}
	for i := range list.Items {
		o := &list.Items[i]
		strip(gvr.Resource, o)
		text, err := json.MarshalIndent(o.Object, "", "  ")
		if err != nil {
			return err
		}
		s[strings.TrimSpace(gvr.GroupResource().String()+" "+o.GetNamespace()+"/"+o.GetName())] = string(text)
	}
	return nil
}

// strip takes away what is no part of Objects.
func strip(resource string, o *unstructured.Unstructured) {
	delete(o.Object, "status")
	for _, field := range []string{"managedFields", "resourceVersion", "generation"} {
		unstructured.RemoveNestedField(o.Object, "metadata", field)
	}
	annotations := o.GetAnnotations()
	if delete(annotations, moving[resource]); len(annotations) == 0 {
		annotations = nil // an empty set is as none
	}
	o.SetAnnotations(annotations)
	endpoints, _, _ := unstructured.NestedSlice(o.Object, "endpoints")
	if resource != "endpointslices" || len(endpoints) == 0 {
		return
	}
	for _, e := range endpoints {
		if e, ok := e.(map[string]any); ok {
			delete(e, "conditions") // the status of a pod, written twice
		}
	}
	o.Object["endpoints"] = endpoints
}

// Diff names the objects that came, went or changed between s and later, with the lines that differ.
func (s Objects) Diff(later Objects) []string {
	var diffs []string
	for _, name := range slices.Sorted(maps.Keys(s)) {
		switch after, ok := later[name]; {
		case !ok:
			diffs = append(diffs, name+" is gone")
		case after != s[name]:
			diffs = append(diffs, name+" changed:\n"+cmp.Diff(s[name], after))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(later)) {
		if _, ok := s[name]; !ok {
			diffs = append(diffs, name+" is new")
		}
	}
	return diffs
}
