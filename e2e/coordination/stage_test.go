package coordination

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/e2e/checktest"
	"github.com/isthmus-mesh/isthmus/e2e/envoyshim/accesslog"
	"github.com/isthmus-mesh/isthmus/e2e/mesh"
)

// patience is how long anything may take. What is waited for is done by others: istiod, Envoys, the controller, on a machine that may have other work.
const patience = time.Minute

// stage is where stories are told.
type stage struct {
	*testing.T

	mesh  *mesh.Mesh
	c     client.Client
	check *checktest.Asker
	// pods are the addresses of the gateways' pods and the callers', by name.
	pods map[string]string
}

// of is the same stage in another test.
func (s *stage) of(t *testing.T) *stage {
	other := *s
	other.T = t
	return &other
}

func (s *stage) apply(objects string) {
	s.Helper()
	if err := s.mesh.Apply(s.Context(), objects); err != nil {
		s.Fatal(err)
	}
}

// remove deletes objects, also when the test's context has ended.
func (s *stage) remove(objects string) {
	s.Helper()
	if err := s.mesh.Delete(context.WithoutCancel(s.Context()), objects); err != nil {
		s.Error(err)
	}
}

// has applies objects that the story takes away with it.
func (s *stage) has(objects string) {
	s.Helper()
	s.apply(objects)
	s.Cleanup(func() { s.remove(objects) })
}

// wait looks until nothing is missing.
func (s *stage) wait(what string, missing func() string) {
	s.Helper()
	began := time.Now()
	for {
		why := missing()
		if why == "" {
			return
		}
		if time.Since(began) > patience || s.Context().Err() != nil {
			s.Fatalf("%s: after %v: %s", what, time.Since(began).Round(time.Millisecond), why)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// rises waits until everybody of the scene is there.
func (s *stage) rises() {
	s.Helper()
	for _, d := range []types.NamespacedName{
		{Namespace: "edge", Name: "gateway"}, {Namespace: "edge", Name: "ingress-istio"},
		{Namespace: "envoy-gateway-system", Name: "web"}, {Namespace: "shop", Name: "other"}, {Namespace: "shop", Name: "shared"},
	} {
		s.wait("Deployment "+d.String()+" is available", func() string {
			o := &appsv1.Deployment{}
			if err := s.c.Get(s.Context(), d, o); err != nil {
				return err.Error()
			}
			if o.Status.AvailableReplicas == 0 {
				return fmt.Sprintf("it is %+v", o.Status)
			}
			return ""
		})
	}
	var list corev1.PodList
	if err := s.c.List(s.Context(), &list); err != nil {
		s.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(s.Context(), patience)
	defer cancel()
	s.pods = map[string]string{}
	for i := range list.Items {
		p := &list.Items[i]
		if !slices.Contains([]string{"edge", "envoy-gateway-system", "shop"}, p.Namespace) {
			continue
		}
		name := p.Labels["gateway.networking.k8s.io/gateway-name"]
		if name == "" {
			name = p.Labels["app"]
		}
		s.pods[name] = p.Status.PodIP
		if name == "ingress" || name == "shared" {
			continue // they speak for themselves
		}
		if err := s.mesh.Node.WaitCaptured(ctx, p.Namespace, p.Name, true); err != nil {
			s.Fatal(err)
		}
	}
	for _, route := range []string{"s11-web", "s13-web"} {
		s.accept(route)
	}
}

// accept says for a gateway that is played that a route is accepted.
func (s *stage) accept(name string) {
	s.Helper()
	r, g, class := &gatewayv1.HTTPRoute{}, &gatewayv1.Gateway{}, &gatewayv1.GatewayClass{}
	s.get("shop", name, r)
	s.get("edge", string(r.Spec.ParentRefs[0].Name), g)
	s.get("", string(g.Spec.GatewayClassName), class)
	is := gatewayv1.RouteParentStatus{ParentRef: r.Spec.ParentRefs[0], ControllerName: class.Spec.ControllerName}
	for _, what := range []string{"Accepted", "ResolvedRefs"} {
		meta.SetStatusCondition(&is.Conditions, metav1.Condition{Type: what, Status: metav1.ConditionTrue, Reason: what, ObservedGeneration: r.Generation})
	}
	r.Status.Parents = []gatewayv1.RouteParentStatus{is}
	if err := s.c.Status().Update(s.Context(), r); err != nil {
		s.Fatal(err)
	}
}

func (s *stage) get(namespace, name string, into client.Object) {
	s.Helper()
	if err := s.c.Get(s.Context(), types.NamespacedName{Namespace: namespace, Name: name}, into); err != nil {
		s.Fatal(err)
	}
}

// label sets labels of a Service of the shop as kubectl does, and takes those away whose value is "".
func (s *stage) label(service string, labels map[string]string) {
	s.Helper()
	set := map[string]any{}
	for k, v := range labels {
		if set[k] = v; v == "" {
			set[k] = nil
		}
	}
	s.patch(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: service}}, map[string]any{"metadata": map[string]any{"labels": set}})
}

// patch is a merge patch.
func (s *stage) patch(o client.Object, patch map[string]any) {
	s.Helper()
	text, err := json.Marshal(patch)
	if err != nil {
		s.Fatal(err)
	}
	if err := s.c.Patch(s.Context(), o, client.RawPatch(types.MergePatchType, text), client.FieldOwner("kubectl-patch")); err != nil {
		s.Fatal(err)
	}
}

// request is one that goes by a gateway, or by a caller inside, to the Service of a story.
type request struct {
	by      string // name of the pod that it is sent by: gateway, ingress, web or other
	service string
	method  string // "" is GET
	path    string // "" is /
	header  http.Header
	keep    bool // on connections of before
}

// with is the same request with one more header.
func (r request) with(name, value string) request {
	r.header = r.header.Clone()
	if r.header == nil {
		r.header = http.Header{}
	}
	r.header.Add(name, value)
	return r
}

// bearing is the same request with a token.
func (r request) bearing(token string) request { return r.with("Authorization", "Bearer "+token) }

func (r request) String() string {
	var names []string
	for name := range r.header {
		names = append(names, name)
	}
	slices.Sort(names)
	return fmt.Sprintf("%s %s of %s by %s %v", r.verb(), r.path, r.service, r.by, names)
}

func (r request) verb() string {
	if r.method == "" {
		return http.MethodGet
	}
	return r.method
}

// answer is what came of a request. Status 0: nothing.
type answer struct {
	status int
	text   string
}

// mediated says whether an Envoy has seen the request before the backend did.
func (a answer) mediated() bool { return strings.Contains(a.text, "X-Request-Id") }

// client asks on new connections, or on those that it has kept.
func (s *stage) client(keep bool) *http.Client {
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: s.mesh.NS.DialContext, DisableKeepAlives: !keep}}
}

// send sends a request, from outside of the mesh, to the pod that is to send it on.
func (s *stage) send(c *http.Client, r request) answer {
	address := s.pods[r.by]
	if r.by != "ingress" {
		address += ":8080"
	}
	path := r.path
	if path == "" {
		path = "/"
	}
	req, err := http.NewRequestWithContext(s.Context(), r.verb(), "http://"+address+path, nil)
	if err != nil {
		return answer{text: err.Error()}
	}
	if r.header != nil {
		req.Header = r.header.Clone()
	}
	if r.keep {
		req.Header.Set(keepHeader, "yes")
	}
	req.Host = r.service + ".example.com"
	res, err := c.Do(req)
	if err != nil {
		return answer{text: err.Error()}
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil {
		return answer{text: err.Error()}
	}
	return answer{res.StatusCode, string(text)}
}

// inARow is how many answers have to be alike to be believed: a proxy's threads take a new configuration one after the other.
const inARow = 4

// gets waits until a request is answered so, again and again.
func (s *stage) gets(r request, status int) {
	s.Helper()
	s.getsWhere(r, fmt.Sprint(status), func(a answer) bool { return a.status == status })
}

// getsWhere waits until a request is answered as ok has it, again and again.
func (s *stage) getsWhere(r request, want string, ok func(answer) bool) {
	s.Helper()
	c := s.client(false)
	s.wait(fmt.Sprintf("%v is answered with %s", r, want), func() string {
		for range inARow {
			if a := s.send(c, r); !ok(a) {
				return fmt.Sprintf("it is with %d: %s", a.status, a.text)
			}
		}
		return ""
	})
}

// getsPast waits until a request is answered by the backend, with no Envoy of the waypoint between: a gate adds nothing that an Envoy would.
func (s *stage) getsPast(r request) {
	s.Helper()
	s.getsWhere(r, "200, past every waypoint", func(a answer) bool { return a.status == http.StatusOK && !a.mediated() })
}

// getsThrough waits until a request is answered by the backend, and an Envoy was between.
func (s *stage) getsThrough(r request) {
	s.Helper()
	s.getsWhere(r, "200, through the waypoint", func(a answer) bool { return a.status == http.StatusOK && a.mediated() })
}

// seen sends a request once, below its path, and is the line of the waypoint's log about it.
func (s *stage) seen(r request, status int) (line accesslog.Request) {
	s.Helper()
	r.path += fmt.Sprintf("/%d", time.Now().UnixNano())
	if a := s.send(s.client(false), r); a.status != status {
		s.Fatalf("%v is answered with %d: %s", r, a.status, a.text)
	}
	var pods corev1.PodList
	if err := s.c.List(s.Context(), &pods, client.InNamespace("shop"), client.MatchingLabels{"gateway.networking.k8s.io/gateway-name": "shared"}); err != nil {
		s.Fatal(err)
	}
	s.wait(fmt.Sprintf("the waypoint has logged %v", r), func() string {
		var list []accesslog.Request
		for _, p := range pods.Items {
			text, err := os.ReadFile(s.mesh.Node.LogPath(p.Namespace, p.Name, "istio-proxy"))
			if err != nil {
				return err.Error()
			}
			list = append(list, slices.DeleteFunc(accesslog.Requests(string(text)), func(l accesslog.Request) bool { return l.Path != r.path })...)
		}
		if len(list) != 1 {
			return fmt.Sprintf("it has %+v", list)
		}
		line = list[0]
		return ""
	})
	return line
}

// joins applies an AmbientEdge that the story takes away with it, and waits until the controller says of it what is wanted.
func (s *stage) joins(ambientEdge, reason string) *v1alpha1.AmbientEdge {
	s.Helper()
	s.apply(ambientEdge)
	s.Cleanup(func() { s.leaves() })
	return s.ready(reason)
}

// ready waits until the AmbientEdge's condition Ready has a reason, for its present generation.
func (s *stage) ready(reason string) *v1alpha1.AmbientEdge {
	s.Helper()
	e := &v1alpha1.AmbientEdge{}
	s.wait("Ready for the reason "+reason, func() string {
		s.get("edge", "public", e)
		c := meta.FindStatusCondition(e.Status.Conditions, v1alpha1.ConditionReady)
		if c != nil && c.Reason == reason && c.ObservedGeneration == e.Generation && (c.Status == metav1.ConditionTrue) == (reason == v1alpha1.ReasonDone) {
			return ""
		}
		text, err := json.MarshalIndent(e.Status, "", " ")
		if err != nil {
			return err.Error()
		}
		return "its status is " + string(text)
	})
	return e
}

// leaves deletes the AmbientEdge, confirms its undoing, and waits for its end: the next story has another.
func (s *stage) leaves() {
	s.Helper()
	ctx := context.WithoutCancel(s.Context())
	e := &v1alpha1.AmbientEdge{ObjectMeta: metav1.ObjectMeta{Namespace: "edge", Name: "public"}}
	if err := s.c.Get(ctx, client.ObjectKeyFromObject(e), e); err != nil {
		if !apierrors.IsNotFound(err) {
			s.Error(err)
		}
		return
	}
	if err := client.IgnoreNotFound(s.c.Delete(ctx, e)); err != nil {
		s.Error(err)
	}
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, v1alpha1.AnnotationUndo, e.UndoConfirmation())
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		err := s.c.Patch(ctx, e, client.RawPatch(types.MergePatchType, patch))
		if apierrors.IsNotFound(err) {
			return
		}
		if err != nil && !apierrors.IsConflict(err) {
			s.Error(err)
			return
		}
	}
	s.Errorf("the AmbientEdge is not undone after %v: %+v", patience, e.Status)
}
