package run

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kubescheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

// leanWithout is what a list is to be without what nobody looks at.
func leanWithout(tree any) any {
	list, _ := tree.(map[string]any)
	items, _ := list["items"].([]any)
	for _, item := range items {
		o, _ := item.(map[string]any)
		meta, _ := o["metadata"].(map[string]any)
		delete(meta, "managedFields")
		annotations, _ := meta["annotations"].(map[string]any)
		delete(annotations, corev1.LastAppliedConfigAnnotation)
	}
	return tree
}

func decodeAny(text []byte) (v any, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err = d.Decode(&v); err == nil {
		if _, more := d.Token(); more != io.EOF {
			err = io.ErrUnexpectedEOF
		}
	}
	return v, err
}

// TestPagesOfJSONAreTrimmed: wherever it stands, what is unwanted goes, and nothing else does.
func TestPagesOfJSONAreTrimmed(t *testing.T) {
	const applied = `"kubectl.kubernetes.io/last-applied-configuration"`
	for name, page := range map[string]string{
		"the first":             `{"items":[{"metadata":{"managedFields":[{"a":"}"}],"name":"a"}}]}`,
		"the last":              `{"items":[{"metadata":{"name":"a","managedFields":[]}}]}`,
		"between":               `{"items":[{"metadata":{"name":"a","managedFields":[],"namespace":"b"}}]}`,
		"alone":                 `{"items":[{"metadata":{"managedFields":null}}]}`,
		"twice, and at the end": `{"items":[{"metadata":{"name":"a","managedFields":1,"managedFields":[2]}}]}`,
		"twice, in the middle":  `{"items":[{"metadata":{"name":"a","managedFields":1,"managedFields":[2],"namespace":"b"}}]}`,
		"the copy":              `{"items":[{"metadata":{"annotations":{` + applied + `:"{\"a\":\"\\\\\"}\n","b":"c"},"managedFields":{}}}]}`,
		"the copy alone":        `{"items":[{"metadata":{"annotations":{` + applied + `:""}}},{"metadata":{"annotations":{"a":"b",` + applied + `:"c"},"name":"n"}}]}`,
		"with white space":      " {\n \"items\" : [ { \"metadata\" : { \"name\" : \"a\" ,\n \"managedFields\" : [ 1 , 2 ] ,\n \"x\" : true } } , { } ] , \"kind\" : \"L\" }\n",
		"elsewhere it stays": `{"metadata":{"managedFields":1},"items":[{"spec":{"metadata":{"managedFields":1},"managedFields":2},"managedFields":3,` +
			`"metadata":{"labels":{"managedFields":"4",` + applied + `:"5"},"name":"\"managedFields\":[","managedFields":6}}]}`,
		"nothing":            `{"items":[]}`,
		"no items":           `{"items":null,"kind":"L"}`,
		"items of no object": `{"items":[1,"a",[{"metadata":{"managedFields":1}}],null]}`,
		"no list":            `[{"metadata":{"managedFields":1}}]`,
	} {
		out, ok := trimJSON(nil, []byte(page))
		if !ok {
			t.Errorf("%s: it cannot be read", name)
			continue
		}
		got, err := decodeAny(out)
		want, err2 := decodeAny([]byte(page))
		if err != nil || err2 != nil {
			t.Errorf("%s: %v, %v: %s", name, err, err2, out)
			continue
		}
		if d := cmp.Diff(leanWithout(want), got); d != "" {
			t.Errorf("%s: -want +got\n%s", name, d)
		}
	}
	for _, page := range []string{`{`, `{"items":[`, `{"items":[{"metadata":{"managedFields":[}`, `{"items":[]} {}`, `{"a" 1}`, `{a:1}`, `{"a":"`, `{"a":1`} {
		if out, ok := trimJSON(nil, []byte(page)); ok {
			t.Errorf("%q is read as %q", page, out)
		}
	}
}

// FuzzTrimJSON: of what is JSON nothing else is lost, and no page makes it panic.
func FuzzTrimJSON(f *testing.F) {
	f.Add([]byte(`{"items":[{"metadata":{"name":"a","managedFields":[{}],"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"\"","a":"b"}}}]}`))
	f.Fuzz(func(t *testing.T, page []byte) {
		out, ok := trimJSON(nil, page)
		want, err := decodeAny(page)
		if err != nil || !ok {
			if err == nil {
				t.Fatalf("it is JSON, and cannot be read: %q", page)
			}
			return
		}
		got, err := decodeAny(out)
		if err != nil {
			t.Fatalf("%q became %q: %v", page, out, err)
		}
		// What is written with escapes stays.
		if d := cmp.Diff(leanWithout(want), leanWithout(got)); d != "" {
			t.Errorf("%q became %q: %s", page, out, d)
		}
	})
}

// encoded is a list as the API server sends it.
func encoded(t testing.TB, list runtime.Object) []byte {
	t.Helper()
	info, _ := runtime.SerializerInfoForMediaType(kubescheme.Codecs.SupportedMediaTypes(), runtime.ContentTypeProtobuf)
	text, err := runtime.Encode(kubescheme.Codecs.EncoderForVersion(info.Serializer, corev1.SchemeGroupVersion), list)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// decoded is the list that a page is.
func decoded[L any, P interface {
	*L
	runtime.Object
}](t *testing.T, page []byte) P {
	t.Helper()
	list := P(new(L))
	if err := runtime.DecodeInto(kubescheme.Codecs.UniversalDeserializer(), page, list); err != nil {
		t.Fatal(err)
	}
	return list
}

// leanPodList has pods with all that is looked at, and more.
func leanPodList(t testing.TB) *corev1.PodList {
	t.Helper()
	long := strings.Repeat("x", 300)
	list := &corev1.PodList{ListMeta: metav1.ListMeta{Continue: "next", ResourceVersion: "7"}}
	for _, text := range []string{
		`{}`,
		`{metadata: {name: a, namespace: ns, uid: u, labels: {app: a}, annotations: {note: LONG, ambient.istio.io/redirection: enabled, isthmus.dev/x: y}, creationTimestamp: "2026-01-01T00:00:00Z",
		    deletionTimestamp: "2026-01-03T00:00:00Z", ownerReferences: [{kind: ReplicaSet, name: LONG, uid: u}], finalizers: [LONG], managedFields: [{manager: LONG, fieldsV1: {"f:spec": {}}},
		    {manager: istio-cni, time: "2026-01-02T00:00:00Z", subresource: status, fieldsV1: {"f:metadata": {"f:annotations": {"f:ambient.istio.io/redirection": {}}}}}]},
		  spec: {serviceAccountName: a, hostNetwork: true, nodeName: LONG, volumes: [{name: LONG}], tolerations: [{key: LONG}], initContainers: [{name: istio-init, image: i, restartPolicy: Always}],
		    containers: [{name: istio-proxy, image: i, command: [LONG]}, {name: dns, image: external-dns, args: [a, b]},
		      {name: c, image: i, env: [{name: LONG}], ports: [{name: http, containerPort: 80, protocol: TCP}], readinessProbe: {httpGet: {port: 80, path: /x}},
		       livenessProbe: {tcpSocket: {port: http}}, startupProbe: {grpc: {port: 90}}}]},
		  status: {phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}], hostIP: 172.18.0.2, message: LONG, startTime: "2026-01-01T00:00:00Z",
		    conditions: [{type: Initialized, message: LONG}, {type: Ready, status: "True", message: LONG}],
		    containerStatuses: [{name: c, image: LONG, imageID: LONG, containerID: LONG, ready: true, state: {running: {startedAt: "2026-01-01T00:00:00Z"}}}]}}`,
		`{metadata: {name: b, labels: {istio.io/dataplane-mode: none}, managedFields: [{manager: m, time: "2026-01-02T00:00:00Z", fieldsV1: {"f:metadata": {"f:labels": {"f:istio.io/dataplane-mode": {}}}}}]},
		  spec: {containers: [{name: c, livenessProbe: {exec: {command: [a]}}}]}, status: {phase: Failed, conditions: [{type: Ready, status: "False"}],
		    containerStatuses: [{name: c, state: {running: {startedAt: "2026-01-01T00:00:00Z"}}}, {name: d, state: {waiting: {}}}]}}`,
	} {
		var p corev1.Pod
		if err := yaml.Unmarshal([]byte(strings.ReplaceAll(text, "LONG", long)), &p); err != nil {
			t.Fatal(err)
		}
		list.Items = append(list.Items, p)
	}
	return list
}

// TestPagesOfPodsAreTrimmed: what is kept of pods is the same, and much less is decoded.
func TestPagesOfPodsAreTrimmed(t *testing.T) {
	page := encoded(t, leanPodList(t))
	lean, ok := leanPods().trim(nil, page)
	if !ok || len(lean) > 1000 || bytes.Contains(lean, []byte("xxxxxxxx")) {
		t.Errorf("%v, %d bytes of %d: %q", ok, len(lean), len(page), lean)
	}
	want, got := decoded[corev1.PodList](t, page), decoded[corev1.PodList](t, lean)
	if d := cmp.Diff(want.ListMeta, got.ListMeta); d != "" {
		t.Errorf("of the list: -want +got\n%s", d)
	}
	for _, list := range []*corev1.PodList{want, got} {
		keep := newKeeper()
		for i := range list.Items {
			keep.strip(&list.Items[i])
		}
	}
	if d := cmp.Diff(want.Items, got.Items); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	if p := &got.Items[1]; len(p.ManagedFields) != 1 || len(p.Status.ContainerStatuses) != 1 {
		t.Errorf("that it was captured late is to be seen: %+v", p)
	}
}

// TestPagesOfObjectsAreTrimmed: of other kinds who has set which field goes, and the copy of the object.
func TestPagesOfObjectsAreTrimmed(t *testing.T) {
	list := &corev1.ServiceList{Items: []corev1.Service{{}, {
		ObjectMeta: metav1.ObjectMeta{
			Name: "a", Labels: map[string]string{"a": "b"}, Annotations: map[string]string{corev1.LastAppliedConfigAnnotation: "{}", "c": corev1.LastAppliedConfigAnnotation},
			ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "m", FieldsV1: metav1.NewFieldsV1(`{}`)}},
		},
		Spec: corev1.ServiceSpec{ClusterIP: "10.0.0.1", Ports: []corev1.ServicePort{{Name: "http", Port: 80}}},
	}}}
	lean, ok := leanObjects().trim(nil, encoded(t, list))
	if !ok {
		t.Fatal("it cannot be read")
	}
	list.Items[1].ManagedFields = nil
	delete(list.Items[1].Annotations, corev1.LastAppliedConfigAnnotation)
	if d := cmp.Diff(list.Items, decoded[corev1.ServiceList](t, lean).Items); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

// FuzzTrimProtobuf: no page makes it panic, and none gets longer.
func FuzzTrimProtobuf(f *testing.F) {
	f.Add(encoded(f, leanPodList(f)))
	f.Fuzz(func(t *testing.T, page []byte) {
		for _, m := range []*message{leanPods(), leanObjects()} {
			if out, ok := m.trim(nil, page); ok && len(out) > len(page) {
				t.Errorf("%q became %q", page, out)
			}
		}
	})
}

// TestOnlyPagesAreTrimmed: what a client gets, or lists without pages, is whole; a page that cannot be read passes.
func TestOnlyPagesAreTrimmed(t *testing.T) {
	const whole, lean = `{"items":[{"metadata":{"name":"a","managedFields":[]}}]}`, `{"items":[{"metadata":{"name":"a"}}]}`
	answer, kind, status := whole, "application/json", http.StatusOK
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, answer)
	}))
	defer srv.Close()
	client := &http.Client{Transport: Lean(http.DefaultTransport)}
	defer client.CloseIdleConnections()
	get := func(path string) string {
		t.Helper()
		resp, err := client.Get(srv.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil || resp.ContentLength != int64(len(text)) {
			t.Errorf("%v, length %d of %q", err, resp.ContentLength, text)
		}
		return string(text)
	}
	for range 3 { // what is used again holds nothing of the page before
		if got := get("/api/v1/services?limit=500"); got != lean {
			t.Errorf("a page is %s", got)
		}
	}
	for _, path := range []string{"/api/v1/services", "/api/v1/namespaces/a/services/b", "/api/v1/pods?limit=500"} {
		if got := get(path); got != whole {
			t.Errorf("%s is %s", path, got)
		}
	}
	kind = runtime.ContentTypeProtobuf
	if got := get("/api/v1/services?limit=500"); got != whole {
		t.Errorf("what is no protobuf is %s", got)
	}
	kind, answer = "application/json", whole[:30]
	if got := get("/api/v1/services?limit=500"); got != answer {
		t.Errorf("what is no JSON is %s", got)
	}
	answer, status = whole, http.StatusForbidden
	if got := get("/api/v1/services?limit=500"); got != whole {
		t.Errorf("a refusal is %s", got)
	}
}
