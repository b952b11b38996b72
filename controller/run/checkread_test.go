package run

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/controller/check"
)

// TestCheckedObjectsKeepWhatChecksLookAt: what is found in the cases of checks is found too when their objects come from a cluster, and are stripped.
func TestCheckedObjectsKeepWhatChecksLookAt(t *testing.T) {
	scheme, err := Scheme()
	if err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob("../check/testdata/*.yaml")
	corpus, _ := filepath.Glob("../check/testdata/corpus/*.yaml")
	if len(corpus) == 0 {
		t.Fatal("there are no cases")
	}
	for _, file := range append(files, corpus...) {
		if filepath.Base(file) == "ISM130-misspelt.yaml" {
			continue // no API server stores that
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		in, _, _ := strings.Cut(string(text), "---findings---\n")
		keep := newKeeper()
		paper := !strings.HasPrefix(in, "# cluster\n")
		whole, kept := check.NewBuilder(check.Mesh{Known: true}, paper), check.NewBuilder(check.Mesh{Known: true}, paper)
		for doc := range strings.SplitSeq(in, "---\n") {
			u := &unstructured.Unstructured{}
			if err := yaml.Unmarshal([]byte(doc), &u.Object); err != nil {
				t.Fatal(err)
			}
			if len(u.Object) == 0 {
				continue
			}
			whole.Add(u.DeepCopy(), "")
			if u.GetKind() == "EndpointSlice" && !handmade().Matches(labels.Set(u.GetLabels())) {
				continue
			}
			untyped := u.GetKind() == "ConfigMap" || slices.ContainsFunc(checkFamilies(), func(f family) bool { return groupKind(f[0]) == u.GroupVersionKind().GroupKind() })
			o, err := scheme.New(u.GroupVersionKind())
			if untyped || err != nil {
				keep.stripAny(u)
				kept.Add(u, "")
				continue
			}
			text, err := json.Marshal(u.Object)
			if err == nil {
				err = json.Unmarshal(text, o)
			}
			if err != nil {
				t.Fatal(err)
			}
			m, _ := o.(metav1.Object)
			keep.strip(m)
			kept.AddTyped(m, "")
		}
		if d := cmp.Diff(check.Run(whole.World(), check.All()), check.Run(kept.World(), check.All())); d != "" {
			t.Errorf("%s: -whole +stripped\n%s", filepath.Base(file), d)
		}
	}
}

// TestPodsKeepLittle: a cluster has very many.
func TestPodsKeepLittle(t *testing.T) {
	long := strings.Repeat("x", 10_000)
	keep := newKeeper()
	pods := []*corev1.Pod{{}, {}}
	for i, p := range pods {
		text := fmt.Sprintf(`{metadata: {name: a-%d, namespace: ns, labels: {app: a}, annotations: {note: LONG}, managedFields: [{manager: LONG}]},
		  spec: {serviceAccountName: a, volumes: [{name: LONG}], initContainers: [{name: istio-init, image: i}], containers: [{name: istio-proxy, image: i, command: [LONG]}, {name: c, image: i, env: [{name: LONG}], ports: [{name: http, containerPort: 80}]}]},
		  status: {phase: Running, podIP: 10.0.0.1, message: LONG, conditions: [{type: Initialized, message: LONG}, {type: Ready, status: "True", message: LONG}],
		    containerStatuses: [{name: c, image: LONG, state: {running: {startedAt: "2026-01-01T00:00:00Z"}}}]}}`, i)
		if err := yaml.Unmarshal([]byte(strings.ReplaceAll(text, "LONG", long)), p); err != nil {
			t.Fatal(err)
		}
		keep.strip(p)
	}
	text, err := json.Marshal(pods[0])
	if err != nil || len(text) > 800 || bytes.Contains(text, []byte("xxx")) {
		t.Errorf("%v: it keeps %s", err, text)
	}
	pods[0].Labels["shared"] = "by all"
	if pods[1].Labels["shared"] == "" || pods[0].Spec.InitContainers[0].Name != "istio-init" || len(pods[0].Spec.Containers) != 2 {
		t.Errorf("equal labels are there once, and sidecars are kept: %+v", pods)
	}
}

// asking notes what is listed, and has nothing.
type asking struct {
	client.Reader

	mu    sync.Mutex // guards the field below
	asked map[string]bool
}

func (a *asking) Get(_ context.Context, key client.ObjectKey, _ client.Object, _ ...client.GetOption) error {
	return apierrors.NewNotFound(schema.GroupResource{Resource: "configmaps"}, key.Name)
}

func (a *asking) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	scheme, err := Scheme()
	if err != nil {
		return err
	}
	gvk, err := apiutil.GVKForObject(list, scheme)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked[gvk.Group+"/"+strings.TrimSuffix(gvk.Kind, "List")] = true
	return err
}

// TestChecksReadWhatViewersMay: each kind that is read has a rule, and each rule of checks has a kind that is read.
func TestChecksReadWhatViewersMay(t *testing.T) {
	r := &asking{asked: map[string]bool{}}
	w, err := ReadChecked(t.Context(), r, check.Mesh{})
	if err != nil || w.Objects != 0 {
		t.Fatalf("%v, %+v", err, w)
	}
	rules := map[string]bool{}
	for _, rule := range ViewRules() {
		for _, resource := range rule.Resources {
			rules[rule.APIGroups[0]+"/"+resource] = true
		}
	}
	plural := map[string]string{}
	for _, f := range checkFamilies() {
		plural[f[0].Group+"/"+f[0].Kind] = f[0].Group + "/" + f[0].Resource
	}
	plurals := strings.NewReplacer("policys", "policies", "classs", "classes", "ingresss", "ingresses")
	read := map[string]bool{}
	if d := cmp.Diff(settings(), checkRules()[1].ResourceNames); d != "" {
		t.Errorf("ConfigMaps: -read +may be read\n%s", d)
	}
	for _, kind := range slices.Sorted(maps.Keys(r.asked)) {
		resource, is := plural[kind]
		if !is {
			group, name, _ := strings.Cut(kind, "/")
			resource = group + "/" + plurals.Replace(strings.ToLower(name)+"s")
		}
		if read[resource] = true; !rules[resource] {
			t.Errorf("nobody may list %s", resource)
		}
	}
	for _, rule := range checkRules() {
		for _, resource := range rule.Resources {
			if !read[rule.APIGroups[0]+"/"+resource] && resource != "configmaps" {
				t.Errorf("%s/%s may be read, and is not", rule.APIGroups[0], resource)
			}
		}
	}
}

// denying has the objects of a cluster, and may not list one kind.
type denying struct {
	asking

	kind string
}

func (d *denying) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	if u, is := list.(*unstructured.UnstructuredList); is && u.GetKind() == d.kind+"List" {
		return apierrors.NewForbidden(schema.GroupResource{Resource: d.kind}, "", nil)
	}
	return d.asking.List(ctx, list, opts...)
}

// TestCheckedWorldKnowsWhatMayNotBeRead: what checks do about it is theirs.
func TestCheckedWorldKnowsWhatMayNotBeRead(t *testing.T) {
	kind := schema.GroupKind{Group: "gateway.kgateway.dev", Kind: "TrafficPolicy"}
	w, err := ReadChecked(t.Context(), &denying{asking{asked: map[string]bool{}}, kind.Kind}, check.Mesh{})
	if err != nil || len(w.Forbidden) == 0 || !w.Hides(kind) || w.Hides(schema.GroupKind{Group: "gateway.envoyproxy.io", Kind: "SecurityPolicy"}) {
		t.Errorf("%v, %+v", err, w)
	}
}
