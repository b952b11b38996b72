package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kubescheme "k8s.io/client-go/kubernetes/scheme"
)

// fakeKind is a kind of a fakeCluster. Its objects are made when they are asked for.
type fakeKind struct {
	gv             schema.GroupVersion
	kind, resource string
	cluster        bool // without namespaces
	n              int
	at             func(i int) runtime.Object
	list           func() runtime.Object // of Go's type, for protobuf; nil: JSON alone
}

// fakeCluster is an API server over HTTP that gives objects page by page, as a real one does: those of Kubernetes as protobuf, if they are so asked for.
type fakeCluster struct {
	kinds     []fakeKind
	forbidden []string // resources
	expire    string   // the resource of which a continue token expires, once
	requests  func(r *http.Request)
}

// start serves, and has KUBECONFIG name it.
func (c *fakeCluster) start(t *testing.T) {
	t.Helper()
	srv := httptest.NewServer(c)
	t.Cleanup(srv.Close)
	path := filepath.Join(t.TempDir(), "kubeconfig")
	config := fmt.Sprintf("{apiVersion: v1, kind: Config, clusters: [{name: c, cluster: {server: %q}}], contexts: [{name: c, context: {cluster: c}}], current-context: c}", srv.URL)
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBECONFIG", path)
}

// ServeHTTP answers discovery, lists and gets.
func (c *fakeCluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if c.requests != nil {
		c.requests(r)
	}
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case len(parts) == 1 && parts[0] == "api":
		answer(w, metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"}})
		return
	case len(parts) == 1:
		answer(w, c.groups())
		return
	case parts[0] == "api":
		parts = append([]string{"apis", ""}, parts[1:]...)
	}
	gv := schema.GroupVersion{Group: parts[1], Version: parts[min(2, len(parts)-1)]}
	if len(parts) == 3 {
		c.resources(w, gv)
		return
	}
	var namespace, name string
	rest := parts[3:]
	if rest[0] == "namespaces" && len(rest) > 2 {
		namespace, rest = rest[1], rest[2:]
	}
	if len(rest) > 1 {
		name = rest[1]
	}
	i := slices.IndexFunc(c.kinds, func(k fakeKind) bool { return k.gv == gv && k.resource == rest[0] })
	resource := schema.GroupResource{Group: gv.Group, Resource: rest[0]}
	switch {
	case r.Method == http.MethodPost && rest[0] == "selfsubjectaccessreviews":
		c.review(w, r)
	case slices.Contains(c.forbidden, rest[0]):
		refuse(w, apierrors.NewForbidden(resource, name, nil))
	case i < 0:
		refuse(w, apierrors.NewNotFound(resource, name))
	case r.URL.Query().Get("watch") != "":
		<-r.Context().Done() // nothing happens
	case name != "":
		c.get(w, &c.kinds[i], namespace, name)
	default:
		c.page(w, r, &c.kinds[i])
	}
}

// review says whether whoever asks may do what he asks for: all but what is forbidden.
func (c *fakeCluster) review(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(r.Body)
	if err != nil {
		refuse(w, apierrors.NewBadRequest(err.Error()))
		return
	}
	o, _, err := kubescheme.Codecs.UniversalDeserializer().Decode(text, nil, nil) // it may be protobuf
	review, is := o.(*authorizationv1.SelfSubjectAccessReview)
	if err != nil || !is {
		refuse(w, apierrors.NewBadRequest(fmt.Sprintf("this is %T, %v", o, err)))
		return
	}
	review.TypeMeta = metav1.TypeMeta{APIVersion: "authorization.k8s.io/v1", Kind: "SelfSubjectAccessReview"}
	review.Status.Allowed = !slices.Contains(c.forbidden, review.Spec.ResourceAttributes.Resource)
	answer(w, review)
}

func (c *fakeCluster) groups() metav1.APIGroupList {
	list := metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}}
	for _, k := range c.kinds {
		if k.gv.Group == "" || slices.ContainsFunc(list.Groups, func(g metav1.APIGroup) bool { return g.Name == k.gv.Group }) {
			continue
		}
		v := metav1.GroupVersionForDiscovery{GroupVersion: k.gv.String(), Version: k.gv.Version}
		list.Groups = append(list.Groups, metav1.APIGroup{Name: k.gv.Group, Versions: []metav1.GroupVersionForDiscovery{v}, PreferredVersion: v})
	}
	return list
}

func (c *fakeCluster) resources(w http.ResponseWriter, gv schema.GroupVersion) {
	list := metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: gv.String()}
	for _, k := range c.kinds {
		if k.gv == gv {
			list.APIResources = append(list.APIResources, metav1.APIResource{Name: k.resource, Kind: k.kind, Namespaced: !k.cluster, Verbs: []string{"get", "list"}})
		}
	}
	if len(list.APIResources) == 0 {
		refuse(w, apierrors.NewNotFound(schema.GroupResource{Group: gv.Group}, ""))
		return
	}
	answer(w, list)
}

func (c *fakeCluster) get(w http.ResponseWriter, k *fakeKind, namespace, name string) {
	for i := range k.n {
		o := k.at(i)
		if m, err := meta.Accessor(o); err == nil && m.GetName() == name && (k.cluster || m.GetNamespace() == namespace) {
			o.GetObjectKind().SetGroupVersionKind(k.gv.WithKind(k.kind))
			answer(w, o)
			return
		}
	}
	refuse(w, apierrors.NewNotFound(schema.GroupResource{Group: k.gv.Group, Resource: k.resource}, name))
}

// page gives a page of a list. A continue token is the number of the next object.
func (c *fakeCluster) page(w http.ResponseWriter, r *http.Request, k *fakeKind) {
	q := r.URL.Query()
	from, _ := strconv.Atoi(q.Get("continue"))
	limit, _ := strconv.Atoi(q.Get("limit"))
	selector, err := labels.Parse(q.Get("labelSelector"))
	if err != nil {
		refuse(w, apierrors.NewBadRequest(err.Error()))
		return
	}
	if from > 0 && c.expire == k.resource {
		c.expire = ""
		gone := apierrors.NewResourceExpired("it is too old")
		gone.ErrStatus.Continue = strconv.Itoa(from)
		refuse(w, gone)
		return
	}
	if limit == 0 {
		limit = k.n
	}
	var items []runtime.Object
	next := from
	for ; next < k.n && len(items) < limit; next++ {
		o := k.at(next)
		if m, err := meta.Accessor(o); err == nil && selector.Matches(labels.Set(m.GetLabels())) {
			items = append(items, o)
		}
	}
	m := metav1.ListMeta{ResourceVersion: "1"}
	if next < k.n {
		m.Continue = strconv.Itoa(next)
		if left := int64(k.n - next); selector.Empty() {
			m.RemainingItemCount = &left
		}
	}
	accept := r.Header.Get("Accept")
	switch {
	case strings.Contains(accept, "as=PartialObjectMetadataList"):
		list := metav1.PartialObjectMetadataList{TypeMeta: metav1.TypeMeta{Kind: "PartialObjectMetadataList", APIVersion: "meta.k8s.io/v1"}, ListMeta: m}
		for _, o := range items {
			if of, is := o.(metav1.ObjectMetaAccessor); is {
				meta, _ := of.GetObjectMeta().(*metav1.ObjectMeta)
				list.Items = append(list.Items, metav1.PartialObjectMetadata{ObjectMeta: *meta})
			}
		}
		answer(w, list)
	case k.list != nil && strings.Contains(accept, runtime.ContentTypeProtobuf):
		list := k.list()
		if err := meta.SetList(list, items); err != nil {
			panic(err)
		}
		if l, err := meta.ListAccessor(list); err == nil {
			l.SetContinue(m.Continue)
			l.SetRemainingItemCount(m.RemainingItemCount)
		}
		info, _ := runtime.SerializerInfoForMediaType(kubescheme.Codecs.SupportedMediaTypes(), runtime.ContentTypeProtobuf)
		w.Header().Set("Content-Type", runtime.ContentTypeProtobuf)
		if err := kubescheme.Codecs.EncoderForVersion(info.Serializer, k.gv).Encode(list, w); err != nil {
			panic(err)
		}
	default:
		for _, o := range items {
			o.GetObjectKind().SetGroupVersionKind(k.gv.WithKind(k.kind))
		}
		answer(w, map[string]any{"apiVersion": k.gv.String(), "kind": k.kind + "List", "metadata": m, "items": orEmpty(items)})
	}
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func refuse(w http.ResponseWriter, err *apierrors.StatusError) {
	s := err.ErrStatus
	s.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(int(s.Code))
	_ = json.NewEncoder(w).Encode(s)
}

// stored is a fakeKind of objects that are there.
func stored(gv schema.GroupVersion, kind, resource string, objects ...runtime.Object) fakeKind {
	return fakeKind{gv: gv, kind: kind, resource: resource, cluster: kind == "Namespace" || kind == "GatewayClass", n: len(objects), at: func(i int) runtime.Object {
		return objects[i].DeepCopyObject()
	}}
}

// core is Kubernetes' core group.
func core() schema.GroupVersion { return corev1.SchemeGroupVersion }
